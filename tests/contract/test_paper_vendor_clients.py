"""The vendor's own client (boto3) against the paper market's Bedrock, as against the real one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broker.paper.serve import PaperMarket

boto3 = pytest.importorskip("boto3", reason="boto3 is not here")
MODEL = "regional.anthropic.claude-haiku-4-5-20251001-v1:0"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOLS = {"tools": [{"toolSpec": {"name": "get_weather", "inputSchema": {"json": SCHEMA}}}]}


def client(url: str, secret: str) -> Any:
    from botocore.config import Config

    return boto3.client(
        "bedrock-runtime",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="AKIDPAPER",
        aws_secret_access_key=secret,
        config=Config(retries={"max_attempts": 0}),
    )


def said(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"text": text}]}]


async def test_boto3_converses_streams_and_calls_tools() -> None:
    market = PaperMarket(time_scale=0.001, providers=["aws"])
    await market.start()
    url = market.catalogue.provider("aws").base_url

    def talk() -> None:
        bedrock = client(url, market.api_key)
        whole = bedrock.converse(modelId=MODEL, messages=said("Hello there."))
        text = whole["output"]["message"]["content"][0]["text"]
        assert whole["stopReason"] == "end_turn"
        assert whole["usage"]["inputTokens"] > 0
        streamed = bedrock.converse_stream(modelId=MODEL, messages=said("Hello there."))
        events = list(streamed["stream"])
        pieces = [
            e["contentBlockDelta"]["delta"]["text"] for e in events if "contentBlockDelta" in e
        ]
        assert "".join(pieces) == text
        assert "metadata" in events[-1]
        called = bedrock.converse(
            modelId=MODEL, messages=said("Go"), toolConfig={**TOOLS, "toolChoice": {"any": {}}}
        )
        assert called["output"]["message"]["content"][0]["toolUse"]["name"] == "get_weather"
        with pytest.raises(bedrock.exceptions.ResourceNotFoundException):
            bedrock.converse(modelId="no.such-model-v1:0", messages=said("Hi"))
        with pytest.raises(bedrock.exceptions.AccessDeniedException, match="signature"):
            client(url, "wrong").converse(modelId=MODEL, messages=said("Hi"))

    try:
        await asyncio.to_thread(talk)
    finally:
        await market.stop()
