"""Embedding models on the paper market: who sells them, for how much, and their vectors.

Prices are list prices (a test compares them with `genai-prices`), latency is an assumption: no
public probe set covers embeddings. A vector is the sum of one random direction per word, the
same at every seller of a model, so that texts which share words are near each other.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from bidding.market import Catalogue, Model, Offer, PriceList
from bidding.units import NUSD_PER_USD
from broker.paper.draws import normal
from broker.paper.errors import BadAsk
from broker.paper.tokens import count_tokens

TYPICAL_MS = 60.0
TYPICAL_LOG_SD = 0.35
MAX_REQUEST_TOKENS = 300_000
"""OpenAI's limit to the inputs of one request together."""
MAX_INPUT_TOKENS = 8192


class _Embedder(NamedTuple):
    """A model; `shortens` says that it can make shorter vectors of the same meaning."""

    id: str
    family: str
    n_dimensions: int
    shortens: bool
    sold: dict[str, tuple[str, float]]


EMBEDDERS = (
    _Embedder("text-embedding-3-small", "embedding-3", 1536, True, {
        "openai": ("openai:text-embedding-3-small", 0.02),
        "azure": ("azure:text-embedding-3-small", 0.02),
    }),
    _Embedder("text-embedding-3-large", "embedding-3", 3072, True, {
        "openai": ("openai:text-embedding-3-large", 0.13),
        "azure": ("azure:text-embedding-3-large", 0.13),
    }),
    _Embedder("titan-embed-v2", "titan", 1024, True, {
        "aws": ("aws:amazon.titan-embed-text-v2:0", 0.02),
    }),
    _Embedder("embed-v4", "cohere-embed", 1536, True, {
        "cohere": ("cohere:embed-v4.0", 0.12),
    }),
    _Embedder("gemini-embedding-001", "gemini-embedding", 3072, True, {
        "google": ("google:gemini-embedding-001", 0.15),
        "gemini": ("google:gemini-embedding-001", 0.15),
    }),
    _Embedder("bge-m3", "bge", 1024, False, {
        "cloudflare": ("cloudflare:@cf/baai/bge-m3", 0.012),
        "ovhcloud": ("ovhcloud:bge-m3", 0.01),
    }),
    _Embedder("bge-base-en-v1.5", "bge", 768, False, {
        "cloudflare": ("cloudflare:@cf/baai/bge-base-en-v1.5", 0.067),
        "ovhcloud": ("ovhcloud:bge-base-en-v1.5", 0.01),
    }),
    _Embedder("bge-large-en-v1.5", "bge", 1024, False, {
        "cloudflare": ("cloudflare:@cf/baai/bge-large-en-v1.5", 0.204),
        "databricks": ("databricks:databricks-bge-large-en", 0.1),
    }),
)  # fmt: skip
_BY_ID = {embedder.id: embedder for embedder in EMBEDDERS}


def models() -> list[Model]:
    """The embedding models. Their context window is that of a request's inputs together."""
    return [
        Model(
            id=e.id,
            family=e.family,
            context_window=MAX_REQUEST_TOKENS,
            max_output_tokens=1,
            capabilities=["embeddings"],
        )
        for e in EMBEDDERS
    ]


def offers() -> list[Offer]:
    """Who sells them."""
    return [
        Offer(
            provider=provider,
            model=e.id,
            prices=PriceList(input_nusd_per_mtok=round(usd * NUSD_PER_USD), output_nusd_per_mtok=0),
            upstream_model=listed.partition(":")[2],
            lacks=[] if e.shortens else ["dimensions"],
        )
        for e in EMBEDDERS
        for provider, (listed, usd) in e.sold.items()
    ]


def with_embedders(catalogue: Catalogue) -> Catalogue:
    """`catalogue`, its providers' embedding models on sale as well."""
    present = {p.id for p in catalogue.providers}
    added = [o for o in offers() if o.provider in present]
    sold = {o.model for o in added}
    return msgspec.structs.replace(
        catalogue,
        models=[*catalogue.models, *(m for m in models() if m.id in sold)],
        offers=[*catalogue.offers, *added],
    ).checked()


class EmbedAsk(Struct):
    """A request for vectors."""

    model: str
    input: str | list[str | int | list[int]]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


_decoder = msgspec.json.Decoder(EmbedAsk)


def decode(raw: bytes) -> EmbedAsk:
    """The request in `raw`. Raises `BadAsk` (400) as OpenAI refuses it."""
    try:
        ask = _decoder.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadAsk(f"Invalid body: {error}") from error
    if not ask.input:
        raise BadAsk("'$.input' is invalid: it is empty.", param="input")
    return ask


def vectors_of(ask: EmbedAsk, model_id: str) -> tuple[list[NDArray[np.float32]], int]:
    """The vectors, and the tokens they bill. Raises `BadAsk` for what the model cannot do."""
    embedder = _BY_ID[model_id]
    n = embedder.n_dimensions
    if ask.dimensions is not None:
        if not embedder.shortens:
            raise BadAsk(f"{model_id} does not support specifying dimensions.", param="dimensions")
        if not 1 <= ask.dimensions <= n:
            raise BadAsk(f"dimensions must be between 1 and {n}.", param="dimensions")
    inputs: list[list[str]] = []
    n_tokens = 0
    given: list[str | int | list[int]] = (
        [ask.input] if isinstance(ask.input, str) else list(ask.input)
    )
    if all(isinstance(x, int) for x in given):
        given = [[x for x in given if isinstance(x, int)]]
    for one in given:
        if isinstance(one, int) or not one:
            raise BadAsk("'$.input' is invalid.", param="input")
        n_here = count_tokens(one) if isinstance(one, str) else len(one)
        if n_here > MAX_INPUT_TOKENS:
            raise BadAsk(
                f"This model's maximum context length is {MAX_INPUT_TOKENS} tokens.",
                code="context_length_exceeded",
                param="input",
            )
        n_tokens += n_here
        inputs.append(one.lower().split() if isinstance(one, str) else [str(t) for t in one])
    made = []
    for words in inputs:
        vector = _vector(embedder, words)[: ask.dimensions]
        vector /= np.linalg.norm(vector)
        made.append(vector.astype("<f4"))
    return made, n_tokens


def openai_body(ask: EmbedAsk, vectors: list[NDArray[np.float32]], n_tokens: int) -> bytes:
    """The answer in OpenAI's shape."""
    data = []
    for i, packed in enumerate(vectors):
        told: object = packed.tolist()
        if ask.encoding_format == "base64":
            told = base64.b64encode(packed.tobytes()).decode()
        data.append({"object": "embedding", "index": i, "embedding": told})
    usage = {"prompt_tokens": n_tokens, "total_tokens": n_tokens}
    body = {"object": "list", "data": data, "model": ask.model, "usage": usage}
    return msgspec.json.encode(body)


def took_ms(offer_id: str, nth: int) -> float:
    """How long the nth answer of an offer takes: log-normal, an assumption."""
    return TYPICAL_MS * float(np.exp(TYPICAL_LOG_SD * normal("embeds", offer_id, nth)))


def _vector(embedder: _Embedder, words: list[str]) -> NDArray[np.float64]:
    total = np.full(embedder.n_dimensions, 1e-3)
    for word in words or [""]:
        digest = hashlib.blake2b(f"{embedder.id}\0{word}".encode(), digest_size=8).digest()
        total += np.random.default_rng(int.from_bytes(digest, "big")).normal(
            size=embedder.n_dimensions
        )
    return total
