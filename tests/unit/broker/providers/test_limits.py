"""Rate-limit headers under every provider's own names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from bidding.market import Provider, Wire
from broker.providers.limits import MAX_RESET_S, QuotaLeft, quota_left, reset_s

NOW_S = 1_700_000_000.0


def provider(name: str, wire: Wire = "openai") -> Provider:
    return Provider(id=name, name=name, wire=wire, base_url="https://x.test", jurisdiction="us")


@pytest.mark.parametrize(
    ("who", "headers", "left"),
    [
        (
            provider("openai"),
            {
                "X-RateLimit-Limit-Requests": "60",
                "x-ratelimit-remaining-requests": "6",
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-limit-tokens": "150000",
                "x-ratelimit-remaining-tokens": "149984",
                "x-ratelimit-reset-tokens": "6m0s",
            },
            QuotaLeft(
                requests_limit=60,
                requests_left=6,
                requests_reset_s=1,
                tokens_limit=150_000,
                tokens_left=149_984,
                tokens_reset_s=360,
            ),
        ),
        (
            provider("anthropic", "anthropic"),
            {
                "anthropic-ratelimit-requests-limit": "50",
                "anthropic-ratelimit-requests-remaining": "49",
                "anthropic-ratelimit-requests-reset": "2023-11-14T22:13:50Z",
            },
            QuotaLeft(requests_limit=50, requests_left=49, requests_reset_s=30),
        ),
        (
            provider("cerebras"),
            {
                "x-ratelimit-remaining-tokens-minute": "100",
                "x-ratelimit-limit-tokens-minute": "1000",
            },
            QuotaLeft(tokens_limit=1000, tokens_left=100),
        ),
        (
            provider("openrouter"),
            {"x-ratelimit-remaining": "3", "x-ratelimit-reset": "1700000005000"},
            QuotaLeft(requests_left=3, requests_reset_s=5),
        ),
        (provider("gemini", "gemini"), {"x-ratelimit-remaining-requests": "1"}, None),
        (provider("groq"), {"x-ratelimit-remaining-requests": "soon"}, None),
    ],
)
def test_names_are_the_providers_own(
    who: Provider, headers: dict[str, str], left: QuotaLeft | None
) -> None:
    assert quota_left(CIMultiDict(headers), who, NOW_S) == left


@given(st.text(max_size=50))
def test_any_reset_is_bounded(text: str) -> None:
    found = reset_s(text, NOW_S)
    assert found is None or 0.0 <= found <= MAX_RESET_S
