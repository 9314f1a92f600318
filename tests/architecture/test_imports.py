"""The layers hold: bidding <- feeds <- analytics <- broker, and each imports only what it may."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAYERS = ("bidding", "feeds", "analytics", "broker")
THIRD_PARTY: dict[str, frozenset[str]] = {
    "bidding": frozenset({"msgspec", "numpy", "scipy", "numba"}),
    "feeds": frozenset({"msgspec", "numpy", "scipy", "aiokafka", "aiohttp", "yarl"})
    | {"feedparser", "genai_prices", "google", "litellm", "opentelemetry", "zstandard"},
}
IMPURE = frozenset(
    {"socket", "asyncio", "time", "logging", "os", "threading", "random", "subprocess", "pathlib"}
)


def _parsed(path: Path) -> ast.Module:
    """CPython 3.11 may raise `SystemError` where another thread parses too (gh-106905)."""
    for _ in range(9):
        try:
            return ast.parse(path.read_text(encoding="utf-8"))
        except SystemError:
            continue
    return ast.parse(path.read_text(encoding="utf-8"))


def _imports(path: Path) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    for node in ast.walk(_parsed(path)):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.append((node.module, node.lineno))
    return found


def _files(layer: str) -> list[Path]:
    return sorted((ROOT / layer).rglob("*.py"))


@pytest.mark.parametrize("layer", LAYERS)
def test_layers_point_downwards(layer: str) -> None:
    above = set(LAYERS[LAYERS.index(layer) + 1 :])
    broken = [
        f"{path.relative_to(ROOT)}:{line} imports {name}: {layer} may not know {name.split('.')[0]}"
        for path in _files(layer)
        for name, line in _imports(path)
        if name.split(".")[0] in above
    ]
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize("layer", sorted(THIRD_PARTY))
def test_third_party_imports_are_those_of_the_layer(layer: str) -> None:
    import sys

    allowed = THIRD_PARTY[layer] | set(LAYERS) | sys.stdlib_module_names
    broken = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in _files(layer)
        for name, line in _imports(path)
        if name.split(".")[0] not in allowed
    ]
    assert not broken, "\n".join(broken)


def test_bidding_is_pure() -> None:
    broken = [
        f"{path.relative_to(ROOT)}:{line} imports {name}: bidding knows no clock, socket or log"
        for path in _files("bidding")
        for name, line in _imports(path)
        if name.split(".")[0] in IMPURE
    ]
    assert not broken, "\n".join(broken)


def test_no_import_cycles_within_a_layer() -> None:
    paths = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for layer in LAYERS
        for path in _files(layer)
    }
    graph: dict[str, set[str]] = {}
    for module, path in paths.items():
        graph[module] = set()
        for node in _parsed(path).body:
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                below = {f"{node.module}.{alias.name}" for alias in node.names}
                graph[module] |= (below & paths.keys()) or {node.module}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, "cycle: " + " -> ".join((*path[path.index(module) :], module))
        if module in done:
            return
        for below in sorted(graph.get(module, ())):
            if below in graph:
                visit(below, (*path, module))
        done.add(module)

    for module in graph:
        visit(module, ())
