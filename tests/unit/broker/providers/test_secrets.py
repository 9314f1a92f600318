"""No key in what is shown or recorded, whatever a seller echoes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bidding.outcome import FailureClass
from broker.providers.secrets import MASK, masked, masked_text
from broker.wire.neutral import Failed

KEYS = [
    "sk-proj-abcdefgh12345678",
    "gsk_abcdefghijklmnop",
    "AIzaSyA1234567890abcdefghijk",
    "ya29.a0AfH6SMBabcdef",
    "AKIAIOSFODNN7EXAMPLE",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc",
    "xai-abcdefghijklmnop",
]


@pytest.mark.parametrize("key", KEYS)
def test_what_looks_like_a_key_goes(key: str) -> None:
    assert key not in masked_text(f"Incorrect key provided: {key}. See the docs.", None)


@given(
    key=st.text("abcdefXYZ0123456789-_/+", min_size=6, max_size=60),
    around=st.text(max_size=40),
)
def test_our_own_key_goes_whatever_it_looks_like(key: str, around: str) -> None:
    assert key not in masked_text(f"{around}{key}{around}", key).replace(MASK, "")


def test_both_halves_of_a_pair_go() -> None:
    said = masked_text("user AKIDPAPER with s3cr3tvalue", "AKIDPAPER:s3cr3tvalue")
    assert said == f"user {MASK} with {MASK}"


def test_plain_words_stay() -> None:
    text = "This model's maximum context length is 8192 tokens; key ideas and sk-ip stay."
    assert masked_text(text, "short") == text
    failed = Failed(failure=FailureClass.BAD_REQUEST, reason="400 bad", message=text)
    assert masked(failed, "sk-1") is failed


def test_reason_and_message_are_both_masked() -> None:
    bad = Failed(failure=FailureClass.BAD_REQUEST, reason=f"400 {KEYS[0]}", message=KEYS[1])
    seen = masked(bad, None)
    assert (seen.reason, seen.message) == (f"400 {MASK}", MASK)
