"""The paper market's tokenizer: four characters are a token, a message has four more.

Every seller counts alike, so usage can be checked to the token by anyone.
"""

from __future__ import annotations

from collections.abc import Iterable

CHARS_PER_TOKEN = 4
TOKENS_PER_MESSAGE = 4
TOKENS_PER_IMAGE = 256


def count_tokens(text: str) -> int:
    """Tokens of `text`.

    Examples
    --------
    >>> count_tokens("hello")
    2
    """
    return -(-len(text) // CHARS_PER_TOKEN)


def prompt_tokens(texts: Iterable[str]) -> int:
    """Tokens of a conversation, given the text of each message.

    Examples
    --------
    >>> prompt_tokens(["hello"])
    6
    """
    return sum(count_tokens(text) + TOKENS_PER_MESSAGE for text in texts)
