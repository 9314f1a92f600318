"""docs/replay.json as docs/replay.md. Pure: the same findings are always the same page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

Line = dict[str, Any]

HEAD = """# Replays: what the market's brain is worth on real data

Written by `make replay` (`python -m analytics.replay.document`); do not edit. What is replayed is
the real engine, `bidding/`, on real prices, answers, latencies and arrivals; see
`broker replay --help` for one run of your own.

- Data: prompts and outcomes of ZeroEval (Apache-2.0; GSM8K and MATH: MIT) and RouteLLM's labels of
  MMLU (Apache-2.0; MMLU: MIT), prices of litellm's catalogue (MIT), latencies of thefastest.ai
  (MIT) and llmperf-leaderboard (Apache-2.0), arrivals of Azure's LLM inference traces (CC BY 4.0;
  Patel et al., "Splitwise", ISCA 2024). Sets whose licence forbids it are not shown.
- Prompts are split by a hash: settings were picked on the learning half alone, everything here is
  of the other (docs/decisions/0010 and 0012 say how). Offline, nine more splits are averaged with
  that one; a part of what these score was in the learning half when the method was picked.
- *× hindsight* is cost as a multiple of the best fixed mixture of offers, chosen in hindsight on
  the very same requests, at the quality that was attained. *Gap closed* is the area between a
  policy's cost–quality curve and that mixture's, as a share of what an oracle would add.

What was wanted and is not seen here: the mix within a point of its promise with 20 and 5 % judged,
and within 1.1 times hindsight with 100 % (1.31 with 20 %, for 1.3); gsm within a point with 5 %
judged; the mix's gap surely above 0 (its interval ends there); half of MMLU's gap for 28 % of the
calls; after 500 requests on a new set, quality at the mixture and ECE of 0.05 (0.085 and 0.050);
good and on time within half a point of the best fixed offer (0.900 for 68 % of its cost, for 0.925
and 75 %; docs/decisions/0041 says what was tried); latency promises made a day ahead.
*Beside others* is of before beliefs were born otherwise (docs/decisions/0035).
"""


def page(found: dict[str, Any]) -> str:
    """The whole page; sections not run yet are left out."""
    parts = [HEAD]
    for name, section in SECTIONS.items():
        if name in found:
            parts.append(section(found[name]))
    return "\n".join(parts)


def _offline(runs: Sequence[Line]) -> str:
    text = [
        "## Everything learnt first",
        "",
        "Means over ten splits by prompt, 95 % bootstrap intervals over prompts. λ is chosen while",
        "learning, for 98 % of the best fixed offer's quality. Where a set has no prices, dollars",
        "are calls of the better of two models (RouteLLM published 35.4 and 70.3 % of calls for",
        "half and 80 % of the gap, on other labels).",
    ]
    for run in runs:
        text += ["", f"**{run['set']}**, {run['n_prompts']} prompts, {run['n_offers']} offers", ""]
        text += _table(
            (
                "policy",
                "$/1k",
                "of best quality",
                "of its cost",
                "× hindsight",
                "gap closed",
                "ECE",
            ),
            [
                (
                    line["policy"],
                    _span(line, "usd_per_1k"),
                    _span(line, "quality_share"),
                    _span(line, "cost_share"),
                    _one(line, "usd_vs_hull", "{:.2f}"),
                    _span(line, "gap_closed") if line["policy"] == "broker" else "",
                    _one(line, "ece"),
                )
                for line in run["policies"]
            ],
        )
        ours = run["policies"][0]
        text += [
            "",
            "Half of the gap between cheapest and best for"
            f" {_span(ours, 'cost_share_for_half_gap')} of the cost between them, 80 % for"
            f" {_span(ours, 'cost_share_for_80_gap')}.",
        ]
        for row in run["unseen"]:
            numbers = ", ".join(
                f"{key.replace('_', ' ')} {value:.3f}"
                for key, value in row.items()
                if isinstance(value, float)
            )
            text.append(f"Never seen: {row['learnt']} → {row['unseen']}: {numbers}.")
    return "\n".join([*text, ""])


def _online(runs: Sequence[Line]) -> str:
    rows = [
        (
            run["set"],
            f"{run['target']:g}",
            f"{100 * run['feedback']:g} %",
            _span(line, "quality"),
            _span(line, "usd_vs_hull", "{:.2f}"),
            _one(line, "short_windows", "{:.1%}"),
            _one(line, "ece"),
            "yes" if run["reserve_binding"] else "no",
        )
        for run in runs
        for line in run["policies"]
    ]
    return "\n".join(
        [
            "## Learning from what it bought itself",
            "",
            f"{_of(runs, 'requests'):,} requests a stream, {_of(runs, 'seeds')} seeds, means with",
            "95 % intervals. *Short* are windows of 1,000 requests more than two points below the",
            "promise.",
            "",
            *_table(
                (
                    "set",
                    "promised",
                    "judged",
                    "delivered",
                    "× hindsight",
                    "short",
                    "ECE",
                    "reserve binds",
                ),
                rows,
            ),
            "",
            "![Cost over hindsight by the share of answers judged](figures/replay-hindsight.svg)",
            "",
        ]
    )


def _rivals(runs: Sequence[Line]) -> str:
    text = ["## Beside others", "", f"One answer in five judged, {_of(runs, 'seeds')} seeds."]
    for run in runs:
        text += ["", f"**{run['set']}, promised {run['target']:g}**", ""]
        text += _table(
            ("policy", "$/1k", "delivered", "× hindsight", "short"),
            [
                (
                    line["policy"],
                    _span(line, "usd_per_1k"),
                    _span(line, "quality"),
                    _one(line, "usd_vs_hull", "{:.2f}"),
                    _one(line, "short_windows", "{:.0%}"),
                )
                for line in run["policies"]
            ],
        )
    shown = "![Quality against cost of all policies](figures/replay-policies.svg)"
    return "\n".join([*text, "", shown, ""])


def _shocks(runs: Sequence[Line]) -> str:
    rows = [
        (
            run["shock"],
            run["market"],
            _span(line, "quality"),
            _span(line, "recovery_requests", "{:.0f}"),
            _one(line, "worst_short", "{:.3f}"),
            _span(line, "lost_attempts", "{:.1f}"),
            _span(line, "tries_aside", "{:.1f}"),
        )
        for run in runs
        for line in run["policies"]
    ]
    return "\n".join(
        [
            "## Shocks",
            "",
            "gsm, promised 0.9, one answer in five judged; the shock falls in mid-stream.",
            "*Recovery* is requests until the mean of all seeds is back within a point of the",
            "promise (newcomer: until cost is within a tenth of where it settles); *worst* the",
            "largest shortfall of 200 requests in a row over the next 1,000.",
            "",
            "*Lost* are failed attempts of requests; *tries* the tiny ones of our own that go to a",
            "broken seller beside them (docs/decisions/0028). The outage lasts to the end, 500 s.",
            "",
            *_table(("shock", "market", "delivered", "recovery", "worst", "lost", "tries"), rows),
            "",
        ]
    )


def _deadline(runs: Sequence[Line]) -> str:
    text = ["## Good and on time", "", "First token within a second, spring2024, gsm."]
    for run in runs:
        text += ["", f"Promised {run['target']:g} good, and 0.95 on time:", ""]
        text += _table(
            ("policy", "$/1k", "good and on time", "on time"),
            [
                (
                    line["policy"],
                    _span(line, "usd_per_1k"),
                    _span(line, "good_and_on_time"),
                    _span(line, "on_time"),
                )
                for line in run["policies"]
            ],
        )
    return "\n".join([*text, ""])


_LEVELS: Final = ("0.5", "0.9", "0.95", "0.99")


def _latency(found: Line) -> str:
    text = [
        "## Latency promises",
        "",
        "Each call is promised from what was known before it; settings are from the days before",
        "(15 to 21 April 2024), figures from 22 to 25 April. Next day: all of a day is promised at",
        "its midnight. Intervals: bootstrap over days and regions. Whole answer: time to the last",
        "token, given how many there were. Made by",
        "`broker replay --data ../shared/data --mode latency --json`, which ends 1 where a bound",
        "in `analytics/latency_bounds.py` is missed; `--half learning` scores the days before,",
        "`--test-data DIR` those of DIR, learning from both as time passes.",
        "",
    ]
    rows = []
    for name in ("thefastest", "thefastest_next_day", "llmperf"):
        one = found[name]
        rows.append(
            (
                name.replace("_", " "),
                *(_interval(one["attained"][q]) for q in _LEVELS),
                f"{one['pinball_log_s']['mean']:.4f}",
                f"{one['ece']:.3f}",
                ", ".join(f"{100 * one['per_offer_gap'][q]:.1f}" for q in _LEVELS),
            )
        )
    heads = ("data", "50 %", "90 %", "95 %", "99 %", "pinball", "ECE at deadlines")
    text += _table((*heads, "points off per offer"), rows)
    text += ["", "Of the day ahead, by day; and of time per token and whole answers:", ""]
    lines = [
        (day, one["n"], *(f"{one[q]:.3f}" for q in _LEVELS))
        for day, one in found["thefastest_next_day"]["by_day"].items()
    ]
    lines += [
        (
            f"{name.replace('_', ' ')}, {part.replace('_', ' ')}",
            found[name][part]["n"],
            *(f"{found[name][part]['attained'][q]:.3f}" for q in _LEVELS),
        )
        for name in ("thefastest", "llmperf")
        for part in ("per_token", "whole_answer")
    ]
    text += _table(("", "calls", "50 %", "90 %", "95 %", "99 %"), [[*map(str, r)] for r in lines])
    missed = [
        f"{line['of'].replace('_', ' ')} {line['what']} ({line['off']:.3f} for {line['bound']:g})"
        for line in found["wanted"]
        if not line["holds"]
    ]
    text += ["", "Bounds missed: " + ("; ".join(missed) or "none") + ". See docs/decisions/0032."]
    return "\n".join([*text, ""])


def _budget(found: Line) -> str:
    rows = [
        (
            line["trace"],
            f"{line['level']:g}",
            _interval(line["spend_share"]),
            f"{line['spend_share_least']:.3f} … {line['spend_share_most']:.3f}",
            _interval(line["quality_share"]),
            f"{line['n_days_in_bounds']} of {line['n_days']}",
        )
        for line in found["lines"]
    ]
    heads = (
        "trace",
        "level",
        "spend ÷ budget",
        "least … most",
        "quality ÷ best λ",
        "days in bounds",
    )
    return "\n".join(["## Budgets", "", "See docs/decisions/0014.", "", *_table(heads, rows), ""])


SECTIONS: dict[str, Callable[[Any], str]] = {
    "offline": _offline,
    "online": _online,
    "rivals": _rivals,
    "shocks": _shocks,
    "deadline": _deadline,
    "latency": _latency,
    "budget": _budget,
}


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [heads, ["---"] * len(heads), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _one(line: Line, name: str, form: str = "{:.3f}") -> str:
    value = line.get(name)
    return "" if value is None else form.format(value)


def _span(line: Line, name: str, form: str = "{:.3f}") -> str:
    """A mean with its interval."""
    value = line.get(name)
    if value is None:
        return ""
    low, high = line[f"{name}_ci95"]
    return f"{form.format(value)} [{form.format(low)}, {form.format(high)}]"


def _interval(found: Line) -> str:
    return f"{found['mean']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def _of(runs: Sequence[Line], name: str) -> Any:
    return runs[0][name]
