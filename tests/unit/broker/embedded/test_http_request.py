"""Requests of ClickHouse's HTTP interface, read."""

from __future__ import annotations

import gzip
import zlib
from typing import Final
from urllib.parse import urlencode

import lz4.frame
import pytest
from aiohttp.test_utils import make_mocked_request
from backports import zstd

from broker.embedded.errors import QueryFailed
from broker.embedded.http_request import credentials, decompress, read_call

PLAIN: Final = b"INSERT INTO t FORMAT CSV\n" + b"1\n" * 1000
PACK: Final = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "lz4": lz4.frame.compress,
    "zstd": zstd.compress,
}


@pytest.mark.parametrize("encoding", PACK)
def test_every_encoding_and_frames_in_a_row(encoding: str) -> None:
    pack = PACK[encoding]
    assert decompress(pack(PLAIN), encoding, len(PLAIN)) == PLAIN
    assert decompress(pack(PLAIN) + pack(b"more"), encoding, 10_000) == PLAIN + b"more"


@pytest.mark.parametrize("encoding", PACK)
def test_bombs_stumps_and_nonsense_are_refused(encoding: str) -> None:
    packed = PACK[encoding](PLAIN)
    for body, limit, word in (
        (packed, len(PLAIN) - 1, "larger"),
        (packed[:-3], 10_000, "cut short"),
        (b"\1nonsense" * 10, 10_000, encoding),
    ):
        with pytest.raises(QueryFailed, match=word):
            decompress(body, encoding, limit)


async def test_url_names_are_parameters_settings_or_the_interfaces_own() -> None:
    request = make_mocked_request(
        "GET",
        "/?query=SELECT+{x:Int8}&param_x=1&max_threads=2&database=market&session_id=s"
        "&wait_end_of_query=1&default_format=CSV&query_id=q",
    )
    call = await read_call(request, 1000)
    assert call.sql == b"SELECT {x:Int8}"
    assert call.params == {"x": "1"}
    assert call.settings == {"max_threads": "2"}
    assert (call.database, call.default_format, call.query_id) == ("market", "CSV", "q")


@pytest.mark.parametrize("name", ["a b", "x=1;", "1st", "", "max-threads"])
async def test_what_cannot_be_a_setting_is_refused(name: str) -> None:
    request = make_mocked_request("GET", "/?" + urlencode({"query": "SELECT 1", name: "1"}))
    with pytest.raises(QueryFailed, match="no name of a setting"):
        await read_call(request, 1000)


def test_credentials_from_header_basic_and_url_in_this_order() -> None:
    def given(url: str = "/", **headers: str) -> tuple[str, str]:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return credentials(make_mocked_request("GET", url, headers=names))

    basic = "Basic YTpiOmM="  # a, b:c
    assert given() == ("default", "")
    assert given("/?user=u&password=p") == ("u", "p")
    assert given("/?user=u", Authorization=basic) == ("a", "b:c")
    assert given(Authorization=basic, X_ClickHouse_User="x", X_ClickHouse_Key="y") == ("x", "y")
    assert given(Authorization="Bearer YTpi") == ("", "")
    assert given(Authorization="Basic ???") == ("", "")
