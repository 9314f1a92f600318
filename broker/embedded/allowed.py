"""What an analyst's query may consist of: node kinds, tables, functions, formats, settings.

Lists of what is allowed, never of what is forbidden, so what a later engine adds stays out until
somebody has looked at it. `guard` holds queries against them.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from typing import Final


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


NODES: Final = _words(
    """ArrayJoin Asterisk ColumnsExceptTransformer ColumnsListMatcher ColumnsRegexpMatcher
    ColumnsReplaceTransformer ColumnsReplaceTransformer::Replacement ColumnsTransformerList
    ExpressionList Function Identifier InterpolateElement Literal OrderByElement
    QualifiedAsterisk QualifiedColumnsListMatcher QualifiedColumnsRegexpMatcher SampleRatio
    SelectIntersectExceptQuery SelectQuery SelectWithUnionQuery Subquery TableExpression
    TableIdentifier TableJoin TablesInSelectQuery TablesInSelectQueryElement WindowDefinition
    WindowListElement WithElement"""
)
TABLE_FUNCTIONS: Final = _words(
    "generate_series generateseries numbers numbers_mt values zeros zeros_mt"
)
#: Tables of the engine's own that tell nothing but its dialect, or rows kept to what the analyst
#: may see anyway (by `guard.row_filters`).
SYSTEM_TABLES: Final = _words(
    """system.one system.numbers system.numbers_mt system.zeros system.zeros_mt system.settings
    system.formats system.data_type_families system.time_zones system.columns
    information_schema.tables information_schema.columns information_schema.schemata"""
)
FORMATS: Final = re.compile(
    r"Native|TabSeparated\w*|TSV\w*|CSV\w*|JSON\w*|PrettyJSONEachRow|Pretty\w*|Vertical|Values|XML"
    r"|Markdown|RowBinary\w*|Parquet|Arrow|ArrowStream|ORC|MsgPack|Null|Hash"
)
#: Settings that only change how an answer is written or a value is read. None names a file.
SETTINGS: Final = _words(
    """cancel_http_readonly_queries_on_client_close cast_string_to_dynamic_use_inference
    date_time_input_format date_time_output_format http_headers_progress_interval_ms
    join_use_nulls output_format_arrow_low_cardinality_as_dictionary
    output_format_arrow_string_as_string output_format_json_quote_64bit_integers
    output_format_json_quote_decimals output_format_json_quote_denormals
    output_format_parquet_string_as_string output_format_tsv_crlf_end_of_line
    send_progress_in_http_headers session_timezone"""
)


@cache
def functions() -> frozenset[str]:
    """Names of the functions on the list, in lower case."""
    text = resources.files("broker.embedded").joinpath("analyst_functions.txt").read_text()
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    return frozenset(word.lower() for line in lines for word in line.split())
