"""What followed each change of the params: the report `params_followed`, by version, and in words.

A version in force is told against the one before it, before and after; a canary against the
requests outside it, by lot (docs/decisions/0037). What is told is at most seconds old.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from analytics import reports
from analytics.store import Store, StoreSettings
from feeds.clock import Clock
from feeds.live_params import CANARY

IN_FORCE: Final = "in force"
_SINCE: Final = "90d"
_FRESH_US: Final = 5_000_000
_WORDS: Final = {
    "spend_usd_per_1k": "spend",
    "quality": "good",
    "on_time_share": "on time",
    "failed_share": "failed",
}
_OF_MEASURE: Final = (
    *("n_against", "n", "compared_share", "value_against", "value"),
    *("difference", "low", "high", "told"),
)
Followed = Mapping[tuple[str, int], dict[str, Any]]
"""By kind (`in force`, `canary`) and version."""


class FollowedReader:
    """Asks the store, at most every few seconds however often it is asked.

    Parameters
    ----------
    settings : the store, as an analyst may see it
    """

    def __init__(self, settings: StoreSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._known: Followed = {}
        self._known_at_us = -_FRESH_US

    async def every(self) -> Followed:
        """Every change of the last 90 days (raw rows are kept for no longer).

        Raises
        ------
        StoreUnavailable, StoreRejected
        """
        now_us = self._clock.now_us()
        if now_us - self._known_at_us >= _FRESH_US:
            async with await Store.open(self._settings) as store:
                given = {"since": _SINCE}
                found = await reports.run(store, "params_followed", given, clock=self._clock)
            self._known, self._known_at_us = told_of(found.records()), now_us
        return self._known


def told_of(rows: list[dict[str, Any]]) -> Followed:
    """The report's rows, one change each."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for row in rows:
        told = found.setdefault(
            (row["kind"], row["version"]),
            {
                "kind": row["kind"],
                "compared": "by lot" if row["kind"] == CANARY else "before and after",
                "against_version": row["against_version"],
                "hours_a_side": row["hours_a_side"],
                "measures": {},
            },
        )
        told["measures"][row["measure"]] = {name: row[name] for name in _OF_MEASURE}
    for told in found.values():
        all_of_them = told["measures"]["failed_share"]
        told["requests_against"], told["requests"] = all_of_them["n_against"], all_of_them["n"]
        told["words"] = in_words(told)
    return found


def in_words(told: Mapping[str, Any]) -> str:
    """One line: how many requests on either side, and each difference with its 95 % interval."""
    where = "outside it" if told["kind"] == CANARY else "before"
    said = (
        f"{told['requests']:,} requests against {told['requests_against']:,} {where}"
        f" (version {told['against_version']})"
    )
    parts = [
        _difference(word, one)
        for measure, word in _WORDS.items()
        if (one := told["measures"][measure])["difference"] is not None
    ]
    return f"{said}: {', '.join(parts)}" if parts else f"{said}: nothing to compare yet"


def _difference(word: str, one: Mapping[str, Any]) -> str:
    numbers = [one["difference"], one["low"], one["high"]]
    if word == "spend":
        if not one["value_against"]:
            return f"spend {numbers[0]:+.4g} USD per 1k [{numbers[1]:+.4g}, {numbers[2]:+.4g}]"
        shown, unit = [100 * x / one["value_against"] for x in numbers], "%"
    else:
        shown, unit = [100 * x for x in numbers], "points"
    least, most = f"{shown[1]:+.1f}", f"{shown[2]:+.1f}"
    scores = f" (n {one['n_against']:,} and {one['n']:,})" if word == "good" else ""
    return f"{word} {shown[0]:+.1f} {unit} [{least}, {most}]{scores}"
