"""Every snippet of docs/guides is run as it stands, against a gateway over the paper market.

Only the address and the key are put in. LlamaIndex and the AI SDK are installed once, into a
cache folder of their own (LlamaIndex wants another `openai` than we test with); where their
registry cannot be reached, or Node is missing, that is said and the snippet skipped.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.fakes.gateway_rig import Rig
from tests.fakes.rig_thread import rig_on_thread

ROOT = Path(__file__).resolve().parents[2]
GUIDES = ROOT / "docs" / "guides"
CACHE = Path(tempfile.gettempdir()) / f"broker-guides-{os.getuid()}"
LITELLM_YAML = ROOT / "tests" / "golden" / "importing" / "litellm.yaml"
NPM = ("ai@6", "@ai-sdk/openai-compatible@2")
LLAMA_INDEX = "llama-index-llms-openai-like==0.8.1"
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_UNREACHABLE = re.compile(
    "ENOTFOUND|ECONNREFUSED|ETIMEDOUT|EAI_AGAIN|ECONNRESET|ConnectionError|Max retries|"
    "Temporary failure|timed out|No matching distribution"
)


class Snippet(NamedTuple):
    guide: str
    language: str
    code: str


SNIPPETS = [
    Snippet(path.stem, language, code)
    for path in sorted(GUIDES.glob("*.md"))
    for language, code in _FENCE.findall(path.read_text(encoding="utf-8"))
]


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("guides")
    with rig_on_thread(folder, models=("llama-3-8b", "llama-3.1-8b"), time_scale=0.01) as made:
        yield made


def _run(*command: str, cwd: Path, within_s: float = 90.0) -> tuple[int, str, str]:
    here = str(Path(sys.executable).parent)
    env = {**os.environ, "PATH": f"{here}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    try:
        ran = subprocess.run(
            command, cwd=cwd, env=env, capture_output=True, text=True, timeout=within_s, check=False
        )
    except subprocess.TimeoutExpired:
        return 1, "", f"timed out after {within_s:g} s"
    return ran.returncode, ran.stdout, ran.stderr


def _got(*command: str, cwd: Path) -> None:
    """Install something; skips where its registry cannot be reached."""
    code, out, told = _run(*command, cwd=cwd, within_s=150.0)
    if code and _UNREACHABLE.search(out + told):
        pytest.skip(f"{command[0]}'s registry cannot be reached: {(out + told).strip()[-200:]}")
    assert code == 0, told


def _llama_python() -> str:
    """A Python that has LlamaIndex."""
    folder = CACHE / LLAMA_INDEX
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        folder.mkdir(parents=True, exist_ok=True)
        _got(sys.executable, "-m", "venv", str(folder), cwd=folder)
        install = ["-m", "pip", "install", "-q", "--disable-pip-version-check"]
        _got(str(python), *install, LLAMA_INDEX, cwd=folder)
        (folder / "ready").touch()
    return str(python)


def _npm_folder() -> Path:
    """A folder that has the AI SDK."""
    missing = [tool for tool in ("node", "npm") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}; the AI SDK needs it")
    folder = CACHE / "-".join(NPM).replace("/", "_")
    if not (folder / "node_modules" / "ai" / "package.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text('{"private": true, "type": "module"}')
        _got("npm", "install", "--no-audit", "--no-fund", *NPM, cwd=folder)
    return folder


@pytest.mark.parametrize("n", range(len(SNIPPETS)), ids=lambda n: f"{SNIPPETS[n].guide}-{n}")
def test_snippets_run_as_they_stand(market: Rig, tmp_path: Path, n: int) -> None:
    guide, language, code = SNIPPETS[n]
    code = code.replace("http://127.0.0.1:8080", market.gateway.url)
    code = code.replace("mmb_your_key", market.gateway.key())
    if language == "sh":
        shutil.copy(LITELLM_YAML, tmp_path / "config.yaml")
        # `broker` is the command of this source, not of whatever else is installed.
        command = f'broker() {{ "{sys.executable}" -m broker "$@"; }}\nset -eu\n'
        unset = "export OPENAI_API_KEY=x AZURE_EU_KEY=x AZURE_US_KEY=x ANTHROPIC_API_KEY=x "
        ran = _run("bash", "-c", command + unset + "GROQ_API_KEY=x\n" + code, cwd=tmp_path)
    elif language == "js":
        script = _npm_folder() / f"snippet-{os.getpid()}.mjs"
        script.write_text(code)
        try:
            ran = _run("node", str(script), cwd=script.parent)
        finally:
            script.unlink()
    else:
        assert language == "python"
        python = _llama_python() if guide == "llamaindex" else sys.executable
        script = tmp_path / "snippet.py"
        script.write_text(code)
        ran = _run(python, str(script), cwd=tmp_path)
    status, out, told = ran
    assert status == 0, told[-3000:]
    assert out.strip() or "print" not in code, told


def test_every_guide_has_a_snippet_and_its_links_lead_somewhere() -> None:
    assert {s.guide for s in SNIPPETS} == {
        "langchain",
        "litellm",
        "llamaindex",
        "openai",
        "vercel-ai-sdk",
    }
    for path in GUIDES.glob("*.md"):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), target
