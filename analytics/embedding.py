"""Static text embeddings, without calling a model: token vectors looked up and averaged.

Owns the weights: those that the PyPI package `wordllama` ships (MIT; 32,000 × 256). The files
are read directly: importing the package would configure the root logger and bring an HTTP
client that this never needs. Shared by replay and gateway, so it stands in the lower layer.

A long prompt is judged by its beginning and its end: instructions and the question itself.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from analytics.errors import EmbeddingUnavailable
from bidding.features import N_EMBEDDING, Floats, Projection, compact, raw_counts

HEAD_CHARS: Final = 1024
TAIL_CHARS: Final = 512

_MAX_WORDS: Final = 50_000
_WORD_CHARS: Final = 24
_SHORT_CHARS: Final = 6
_WEIGHTS: Final = "weights/l2_supercat_256.safetensors"
_TOKENIZER: Final = "tokenizers/l2_supercat_tokenizer_config.json"
_PROJECTION: Final = Path(__file__).with_name("prompt_projection.npz")


class Embedder:
    """Token vectors and their tokenizer.

    Raises
    ------
    EmbeddingUnavailable
        When `wordllama` is not installed (extra `[features]`) or lacks its weights.
    """

    def __init__(self) -> None:
        folder = _package_folder()
        try:
            from safetensors.numpy import load_file
            from tokenizers import Tokenizer
        except ImportError as error:
            raise EmbeddingUnavailable(f"install the extra [features]: {error}") from error
        (vectors,) = load_file(folder / _WEIGHTS).values()
        self._vectors: NDArray[np.float32] = np.ascontiguousarray(vectors, dtype=np.float32)
        self._tokenizer = Tokenizer.from_file(str(folder / _TOKENIZER))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._word_tokens: dict[str, tuple[int, ...]] = {}

    def embed(self, text: str) -> Floats:
        """Mean vector of the text's tokens, shape (N_EMBEDDING,); zeros for no text.

        Notes
        -----
        The tokenizer works word by word, so words that come back are looked up in a bounded
        table; only long numbers, names of code and other scripts are tokenized each time.
        """
        table = self._word_tokens
        ids: list[int] = []
        rest: list[str] = []
        for word in text.split():
            known = table.get(word)
            if known is None:
                rest.append(word)
            else:
                ids += known
        if rest:
            ids += self._tokenized(rest)
        if not ids:
            return np.zeros(N_EMBEDDING)
        mean: Floats = self._vectors.take(ids, axis=0).mean(axis=0).astype(np.float64)
        return mean

    def _tokenized(self, words: list[str]) -> list[int]:
        plain = [word for word in words if _comes_back(word)]
        if len(self._word_tokens) > _MAX_WORDS:
            self._word_tokens.clear()
        encode = self._tokenizer.encode
        n_vectors = len(self._vectors)
        for word in plain:
            tokens = encode(word, add_special_tokens=False).ids
            self._word_tokens[word] = tuple(min(i, n_vectors - 1) for i in tokens)
        ids = [i for word in plain for i in self._word_tokens[word]]
        odd = [word for word in words if word not in self._word_tokens]
        if odd:
            tokens = encode(" ".join(odd), add_special_tokens=False).ids
            ids += [min(i, n_vectors - 1) for i in tokens]
        return ids


class PromptFeatures:
    """From a prompt to its features; holds no prompt."""

    def __init__(self, embedder: Embedder, projection: Projection) -> None:
        self._embedder = embedder
        self.projection = projection

    def features(self, prompt: str) -> Floats:
        """The prompt's features, shape (N_FEATURES,)."""
        text = excerpt(prompt)
        return compact(self.projection, raw_counts(text, len(prompt)), self._embedder.embed(text))


def _comes_back(word: str) -> bool:
    """Whether other prompts will hold the word too: letters with a mark, or short and plain."""
    if len(word) <= _SHORT_CHARS:
        return word.isascii()
    return len(word) <= _WORD_CHARS and word.isascii() and word[:-1].isalpha()


def excerpt(prompt: str) -> str:
    """The prompt, or its beginning and end when it is long."""
    if len(prompt) <= HEAD_CHARS + TAIL_CHARS:
        return prompt
    return prompt[:HEAD_CHARS] + "\n" + prompt[-TAIL_CHARS:]


def load_prompt_features() -> PromptFeatures:
    """Embedder and projection as shipped. Raises `EmbeddingUnavailable`."""
    with np.load(_PROJECTION) as arrays:
        projection = Projection.of_arrays(arrays)
    return PromptFeatures(Embedder(), projection)


def _package_folder() -> Path:
    spec = importlib.util.find_spec("wordllama")
    if spec is None or spec.origin is None:
        raise EmbeddingUnavailable("wordllama is not installed; install the extra [features]")
    folder = Path(spec.origin).parent
    for name in (_WEIGHTS, _TOKENIZER):
        if not (folder / name).is_file():
            raise EmbeddingUnavailable(f"{folder / name} is missing from the wordllama package")
    return folder
