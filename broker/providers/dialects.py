"""The dialects by the name a provider's `wire` has in the catalogue."""

from __future__ import annotations

from broker.providers.anthropic import ANTHROPIC
from broker.providers.base import Dialect
from broker.providers.openai import OPENAI

DIALECTS: dict[str, Dialect] = {"openai": OPENAI, "anthropic": ANTHROPIC}
