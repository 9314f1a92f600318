"""The `openai` npm client, unchanged, against the broker. Installed once into a cache folder."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.fakes.up_rig import Market

pytestmark = pytest.mark.asyncio(loop_scope="session")
CACHE = Path(tempfile.gettempdir()) / f"broker-npm-{os.getuid()}"
SCRIPT = Path(__file__).with_name("openai_client.mjs")
VERSION = "6"
_UNREACHABLE = ("ENOTFOUND", "ECONNREFUSED", "ETIMEDOUT", "EAI_AGAIN", "ECONNRESET", "timed out")


async def _ran(*command: str, within_s: float, **env: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **env},
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), within_s)
    except TimeoutError:
        process.kill()
        await process.communicate()
        return 1, "", f"timed out after {within_s:g} s"
    return process.returncode or 0, out.decode(), err.decode()


async def _installed() -> Path:
    """The folder the client is in; skips where there is no way to get it."""
    missing = [tool for tool in ("node", "npm") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}; the openai npm client needs it")
    folder = CACHE / VERSION
    if not (folder / "node_modules" / "openai" / "package.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text('{"private": true}')
        install = ["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund"]
        code, _, told = await _ran(*install, f"openai@{VERSION}", within_s=90)
        if code and any(sign in told for sign in _UNREACHABLE):
            pytest.skip(f"npm's registry cannot be reached: {told.strip().splitlines()[-1]}")
        assert code == 0, told
    return folder


async def test_the_npm_client(market: Market) -> None:
    folder = await _installed()
    code, out, told = await _ran(
        "node",
        str(SCRIPT),
        within_s=60,
        CLIENT_DIR=str(folder),
        BASE_URL=f"{market.url}/v1",
        API_KEY=market.up.keys["app"],
    )
    assert code == 0, told
    got = json.loads(out)
    assert got["whole"]
    assert got["streamed"]
    assert got["tool"] == "get_weather"
    assert got["response"]
    assert got["last"] == "response.completed"
    assert got["vectors"] == [1536, 1536]
    assert got["refused"] == "NotFoundError 404 model_not_found"
