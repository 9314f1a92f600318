"""The analyst's guard, on parses it is handed."""

from __future__ import annotations

import re
from typing import Final

import pytest

from broker.embedded import allowed, guard
from broker.embedded.accounts import AnalystLimits
from broker.embedded.engine import Session
from broker.embedded.errors import QueryFailed, Refused, from_engine

#: Whoever adds to the list of functions should meet these first.
NEVER: Final = re.findall(
    r"\w+",
    """file url s3 remote sleep sleepeachrow dictget joinget getsetting getserverport getmacro
    hostname fqdn throwif logtrace demangle addresstoline encrypt decrypt showcertificate
    catboostevaluate evalmlmethod aigenerate formatrow formatrownonewline chdb hascolumnintable
    getclienthttpheader filesystemavailable executable input merge dictionary""",
)


def test_no_function_on_the_list_reaches_outside() -> None:
    functions = allowed.functions()
    assert functions.isdisjoint(NEVER)
    assert not [
        name for name in functions if re.match(r"dict|ai[A-Z]|region|getServer|currentP", name)
    ]
    assert {"sum", "quantiletdigest", "tostartofhour", "in", "plus", "if", "array"} <= functions


def test_no_setting_on_the_list_names_a_file_or_lifts_a_limit() -> None:
    assert not [
        name
        for name in allowed.SETTINGS
        if re.search(r"schema|path|file|max_|readonly$|allow_|filter|disk", name)
    ]


def test_row_filters_quote_what_they_are_given() -> None:
    limits = AnalystLimits(databases=("mar'ket",), hidden_tables=("a_%*",))
    filters = guard.row_filters(limits)
    assert r"'name IN (\'mar\\\'ket\')'" in filters
    assert r"NOT LIKE \'a\\\\_\\\\%%\'" in filters


class ParseOnly(Session):
    """A session whose engine answers every EXPLAIN AST with one tree."""

    def __init__(self, tree: str, n_statements: int = 1) -> None:
        class Connection:
            def classify_query(self, sql: str) -> dict[str, int]:
                return {"statement_count": n_statements}

            def query(self, sql: str, *_: object, **__: object) -> object:
                class Result:
                    def bytes(self) -> bytes:
                        return tree.encode()

                    def __getattr__(self, _: str) -> object:
                        return lambda: 0

                return Result()

        super().__init__(Connection())


def approve(tree: str, sql: str = "SELECT 1", n_statements: int = 1) -> guard.Approved:
    return guard.approve(
        ParseOnly(tree, n_statements),
        sql,
        params={},
        default_format="CSV",
        limits=AnalystLimits(),
    )


def test_an_approved_query_is_wrapped() -> None:
    approved = approve("SelectQuery\n Literal UInt64_1\n", "SELECT 1 FORMAT JSON")
    assert approved == ("SELECT * FROM (\nSELECT 1 \n)", "JSON")


@pytest.mark.parametrize(
    "tree",
    [
        "NewKindOfClause",
        "ColumnsApplyTransformer",
        "Set",
        "Function file (alias sum) (children 1)",
        "Function `sum (alias x`",
        "TableExpression (children 1)\n Function sum (children 1)",
        "TableIdentifier other.t",
        "TableIdentifier market.x_control_keys (alias sales)",
        "Identifier system.tables",
        "Function in (children 1)\n ExpressionList (children 2)\n  Literal 1\n  Identifier other.t",
        "?? unreadable",
    ],
)
def test_any_tree_not_known_to_be_harmless_is_refused(tree: str) -> None:
    with pytest.raises(Refused):
        approve(tree)


def test_two_statements_by_the_engines_count_are_refused() -> None:
    with pytest.raises(Refused, match="more than one statement"):
        approve("SelectQuery", n_statements=2)


def test_errors_of_the_engine_are_taken_apart() -> None:
    error = from_engine(
        "Code: 60. DB::Exception: No (such) table. (UNKNOWN_TABLE) (version 26.9.2.1)"
    )
    assert (error.code, error.name, error.text) == (60, "UNKNOWN_TABLE", "No (such) table.")
    assert (
        error.body("1.2")
        == "Code: 60. DB::Exception: No (such) table. (UNKNOWN_TABLE) (version 1.2)\n"
    )
    strange = from_engine("out of luck")
    assert isinstance(strange, QueryFailed)
    assert (strange.code, strange.text) == (1001, "out of luck")
