"""What an analyst has on a running market: the shell, a client with frames, the notebook."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from pathlib import Path

import nbformat
import pandas as pd
import polars as pl
import pytest
from rich.console import Console

import analytics
from analytics.errors import StoreRejected, StoreUnavailable
from analytics.notebook import CONFIG_VARIABLE, analyst_settings, connect
from bidding.errors import BadRequest
from broker.sql_shell import answer, checked_format
from tests.fakes.up_rig import Market

pytestmark = pytest.mark.asyncio(loop_scope="session")

NOTEBOOK = Path(__file__).resolve().parents[2] / "docs" / "notebooks" / "market.ipynb"
SQL = "SELECT 'a' AS word, [1, 2] AS numbers, 3 AS n"


async def sql(market: Market, *arguments: str, typed: str = "") -> tuple[int, bytes, str]:
    """`broker sql` as a process: its exit code, stdout and stderr."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "broker", "sql", "--config", str(market.up.config_path), *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(typed.encode())
    assert process.returncode is not None
    return process.returncode, out, err.decode()


async def test_one_query_in_every_format(market: Market) -> None:
    def answered(fmt: str) -> bytes:
        out, shown = io.BytesIO(), io.StringIO()
        with connect(market.up.analyst_store()) as client:
            answer(client, SQL, fmt, Console(file=shown), out)
        return out.getvalue() or shown.getvalue().encode()

    table, csv, json_ = [await asyncio.to_thread(answered, f) for f in ("table", "csv", "json")]
    assert "numbers" in table.decode()
    assert "[1, 2]" in table.decode()
    assert csv.decode() == '"word","numbers","n"\n"a","[1,2]",3\n'
    assert json.loads(json_) == {"word": "a", "numbers": [1, 2], "n": 3}
    code, parquet, _ = await sql(market, "-q", SQL, "--format", "parquet")
    assert code == 0
    assert pd.read_parquet(io.BytesIO(parquet))["n"].tolist() == [3]


async def test_a_shell_goes_on_after_a_refusal_and_says_so_at_the_end(market: Market) -> None:
    typed = (
        "SHOW\nTABLES;\nhelp\nDROP TABLE attempts;\nSELECT 40 +\n  2 AS answer;\nexit\nSELECT 1;"
    )
    code, out, err = await sql(market, "--format", "csv", typed=typed)
    told = out.decode()
    assert code == 2
    assert '"attempts"' in told
    assert "DESCRIBE TABLE" in told
    assert told.endswith('"answer"\n42\n')
    assert "Not allowed for analysts: DROP is no query" in err
    with pytest.raises(BadRequest, match="unknown format 'excel'"):
        checked_format("excel")


def _look(config: Path) -> None:
    with analytics.client(config) as ch:
        assert ch.query("SELECT count() FROM attempts").first_row[0] > 0
        offers = "SELECT offer, sum(n) AS n, max(minute) AS last FROM offer_minutes GROUP BY offer"
        pandas_frame = ch.query_df(offers)
        polars_frame = ch.query_df_arrow(offers, dataframe_library="polars")
    assert isinstance(pandas_frame, pd.DataFrame)
    assert isinstance(polars_frame, pl.DataFrame)
    assert set(pandas_frame["offer"]) == set(polars_frame["offer"])
    assert str(pandas_frame["last"].dt.tz) == "UTC"


async def test_a_client_gives_pandas_and_polars_frames(market: Market) -> None:
    await asyncio.to_thread(_look, market.up.config_path)


async def test_the_notebook_runs(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CONFIG_VARIABLE, str(market.up.config_path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    names: dict[str, object] = {}

    def run() -> None:
        for source in cells:
            exec(compile(source, NOTEBOOK.name, "exec"), names)
        names.pop("ch").close()

    await asyncio.to_thread(run)
    spend = names["spend"]
    assert isinstance(spend, pd.DataFrame)
    assert spend["calls"].sum() > 0
    assert all(not cell.get("outputs") for cell in notebook.cells), "clear outputs before storing"


async def test_where_the_account_comes_from(market: Market, tmp_path: Path) -> None:
    config = market.up.config_path
    settings = analyst_settings(config, {})
    assert settings == market.up.analyst_store()
    assert settings.username == "analyst"
    told = {
        "BROKER__STORE__PORT": "9",
        "BROKER__ANALYST__PASSWORD": "p",
        CONFIG_VARIABLE: str(config),
    }
    from_both = analyst_settings(None, told)
    assert (from_both.port, from_both.password, from_both.host) == (9, "p", settings.host)
    toml = tmp_path / "broker.toml"
    toml.write_text('[store]\nport = 1\n[analyst]\npassword = "x"\n[gateway]\nport = 3\n')
    assert analyst_settings(toml, {}).port == 1
    toml.write_text("[store]\nprot = 1\n")
    with pytest.raises(StoreRejected, match="prot"):
        analyst_settings(toml, {})
    with pytest.raises(StoreRejected, match="No such file"):
        analyst_settings(tmp_path / "none.toml", {})
    wrong = tmp_path / "wrong.json"
    wrong.write_text(f'{{"store": {{"port": {settings.port}}}, "analyst": {{"password": "no"}}}}')
    with pytest.raises(StoreRejected, match="Authentication failed"):
        await asyncio.to_thread(analytics.client, wrong)
    wrong.write_text('{"store": {"port": 1}}')
    with pytest.raises(StoreUnavailable):
        await asyncio.to_thread(analytics.client, wrong)
