"""The matrix: each feature asked of each surface for an offer of each dialect, over real HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

from msgspec import Struct

from tests.compat.answers import events, read
from tests.compat.features import FEATURES, PATHS, Feature
from tests.fakes.up_rig import Market, Reply

PINS = {
    "OpenAI": ("openai/gpt-4o", "openai/o1", "openai/text-embedding-3-small"),
    "Azure": ("azure/gpt-4o", "azure/o1@eu", "azure/text-embedding-3-small"),
    "Anthropic": ("anthropic/claude-haiku-4.5",),
    "Gemini": ("gemini/gemini-2.0-flash", "gemini/gemini-embedding-001"),
    "Vertex": ("google/gemini-2.0-flash", "google/gemini-embedding-001"),
    "Vertex Claude": ("google/claude-haiku-4.5",),
    "Bedrock": ("aws/claude-haiku-4.5", "aws/titan-embed-v2"),
    "Cohere": ("cohere/command-r", "cohere/embed-v4"),
}
"""Offers that speak a dialect; a feature is there if one of them has it."""


class Cell(Struct):
    """`state` is yes, refused (`why`: the no-bid or the remedy) or failed (`why`: what came)."""

    surface: str
    dialect: str
    feature: str
    state: str
    why: str = ""


async def cells(market: Market) -> list[Cell]:
    """All of them, in the order of the table."""
    at_once = asyncio.Semaphore(4)

    async def one(feature: Feature, surface: str, dialect: str) -> Cell:
        async with at_once:
            return await _cell(market, feature, surface, dialect)

    return await asyncio.gather(
        *(one(f, surface, dialect) for f in FEATURES for surface in f.bodies for dialect in PINS)
    )


def tally(found: list[Cell]) -> dict[str, int]:
    """How many there are of each."""
    states = [cell.state for cell in found]
    return {"cells": len(found)} | {s: states.count(s) for s in ("yes", "refused", "failed")}


async def _cell(market: Market, feature: Feature, surface: str, dialect: str) -> Cell:
    refusal = ""
    for pin in PINS[dialect]:
        body = {"model": pin, **feature.bodies[surface]}
        reply = await market.send("POST", PATHS[surface], json=body)
        for _ in range(2):  # as often as the vendors' clients do by themselves
            if reply.status == 503:
                await asyncio.sleep(float(reply.headers.get("Retry-After", 1)))
                reply = await market.send("POST", PATHS[surface], json=body)
        if reply.status == 200:
            fault = _fault(feature, surface, body, reply, pin)
            state = "failed" if fault or feature.field else "yes"
            return Cell(surface, dialect, feature.name, state, fault)
        refusal = _refusal(feature, surface, reply)
        if not refusal:
            told = f"{pin}: {reply.status} {reply.body}"
            return Cell(surface, dialect, feature.name, "failed", told)
    return Cell(surface, dialect, feature.name, "refused", refusal)


def _fault(feature: Feature, surface: str, body: dict[str, Any], reply: Reply, pin: str) -> str:
    """What is wrong with an answer; empty if nothing is."""
    if reply.headers["x-broker-offer"] != pin:
        return f"bought {reply.headers['x-broker-offer']}, not {pin}"
    streamed = bool(body.get("stream"))
    try:
        told = events(reply.body.decode()) if streamed else reply.body
        shown = feature.shown(read(surface, told, streamed=streamed))
    except (LookupError, TypeError, ValueError) as error:
        return f"{pin}: {error!r} in {reply.body!r}"
    return "" if shown else f"{pin}: not done in {reply.body!r}"


def _refusal(feature: Feature, surface: str, reply: Reply) -> str:
    """Why it was refused, if in the surface's own shape and for a reason; else empty."""
    error = reply.body.get("error", {}) if isinstance(reply.body, dict) else {}
    if surface == "messages" and reply.body.get("type") != "error":
        return ""
    message = error.get("message", "")
    if reply.status == 422 and "capability" in message:
        return "no-bid: capability"
    named = any(field in message for field in feature.field.split())
    named = named or (bool(feature.field) and feature.field in str(error.get("param")))
    return message if reply.status == 400 and named else ""
