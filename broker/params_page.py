"""docs/params.md: every live-tunable number, written from `bidding.params`.

    python -m broker.params_page > docs/params.md

A default is *measured* where a page of docs/decisions shows the replay it was picked by, *reasoned*
where a page says why and measures nothing of it, and otherwise not yet measured.
"""

from __future__ import annotations

import sys
from typing import Final

from bidding.params import ParamDoc, describe

MEASURED: Final = {
    "latency.level_gain": "0032-latency-a-day-ahead.md",
    "choice.optimism_sd": "0012-optimism.md",
    "choice.found_task_prompts": "0034-found-tasks.md",
    "pacing.quality_step": "0010-choice-rule.md",
    "pacing.label_scaling": "0010-choice-rule.md",
    "trust.source_cap": "0023-pushed-telemetry.md",
    "trust.mute_after": "0023-pushed-telemetry.md",
    "reliability.status_belief": "0022-status-feeds.md",
}
"""Numbers picked, or shown to act as meant, by a replay, and the page that shows it."""

REASONED: Final = {
    "choice.latency_optimism_sd": "0041-doubt-of-a-first-token.md",
    "exploration.": "0013-exploration.md",
    "switching.": "0016-sessions.md",
    "trust.": "0023-pushed-telemetry.md",
}
"""Groups whose meaning is decided on a page that does not measure the number."""

_HEAD: Final = """\
# Params

Written by `python -m broker.params_page > docs/params.md`; a test holds it to the code.

Change them with `broker params set PATH=VALUE` or `PATCH /admin/params`: version-checked, held to
their bounds, on the log before acknowledged. Gateways follow `control.params` and decide by the
newest version, which every decision names; the estimators' process follows it too: sums keep what
they hold and forget at the new rate, class prices move by the new steps from then on. An estimator
that starts reads the params in force before the first fact.

Look first: `broker params preview PATH=VALUE --since 24h` drives recorded decisions through the
change and says what would have been bought and delivered, with 95 % intervals, what the log cannot
bear a claim about, and every promise that would be broken or put at risk (it then exits with 1).
`broker whatif --params FILE` does the same from a file, and the market page does it before a
number is put in force. Numbers of `latency`, `reliability` and `tokens` act in the estimators and
are named as not covered (docs/decisions/0020).

## Tried beside those in force

`broker params shadow WHAT --why …` (`POST /admin/params/shadow`; `shadow stop` ends it) computes
for a `--share` of requests what the other numbers would have bought on the very view that was
read, and buys nothing: `broker report shadow_diff` compares. It runs once the answer is out and
may take `gateway.shadow_time_share` of a worker's time. `WHAT` is a file of numbers or
`path=value`.

`broker params canary start WHAT --why … [--share 0.1] [--tenant T] [--hours 1]` buys under the
other numbers for a share of all requests, or of one tenant's; a session stays where it is. `canary
status` tells what its guard sees, `canary promote` puts it in force for all, `canary abort` ends
it. Over the log, so on every worker and machine; the params in force cannot be changed meanwhile
but by a rollback, which ends it. The guard ends it by itself when it surely fails more, costs
more, or keeps its promises worse *and* falls short of them now, each SLA class by itself beside
all together (docs/decisions/0026, with what was measured). A canary whose operators' process is
down goes on unwatched until its hours are over. `broker params history` and `GET
/admin/params/history` tell who did what, when and why, and for a trial's end what it was based on;
`broker params rollback N` puts any version's numbers in force again.

## What followed

`broker params history` says it in a line under every version and canary; `broker params followed
N`, `GET /admin/params/N/followed` and `broker report params_followed version=N` in full: requests,
spend, scores, deadlines kept, failures, each against what it replaced, as long on both sides (an
hour to a day), SLA class by SLA class so that a change of mix is no effect, with the difference's
95 % interval. **A version in force is told before and after: whatever else changed at that time is
in it, and it proves no cause.** A canary is told against the requests outside it, drawn by lot
(docs/decisions/0037).

## What the guard sees

The guard's evidence is what was seen: a lower quality margin does no harm while a class is given
more than it was promised, and is let be for so long. `exploration.share` draws only among bids
that keep the promises and cost little more, so 0.5 of it did no harm that could be seen on the
paper market (3 to 11 % of requests were bought otherwise, and it was not rolled back);
`exploration.burn_in_share` draws among offers of which little is known, and is rolled back at 0.5.
"""


def page() -> str:
    """The page, whole."""
    lines = [_HEAD]
    group = ""
    for doc in describe():
        here = doc.path.rpartition(".")[0]
        if here != group:
            group = here
            lines += [
                f"## {group}\n",
                "| number | default | bounds | unit | meaning | default is |",
                "|---|---|---|---|---|---|",
            ]
        following = f"| `{doc.path.rpartition('.')[2]}` | {doc.default:g} | {_bounds(doc)} |"
        lines.append(f"{following} {doc.unit} | {doc.meaning} | {_reason(doc.path)} |")
    text = "\n".join(lines)
    return text.replace(" |\n## ", " |\n\n## ") + "\n"


def _bounds(doc: ParamDoc) -> str:
    low = "" if doc.ge is None else f"{doc.ge:g}"
    high = "" if doc.le is None else f"{doc.le:g}"
    return f"{low} … {high}"


def _reason(path: str) -> str:
    if path in MEASURED:
        return _link("measured", MEASURED[path])
    for prefix, name in REASONED.items():
        if path.startswith(prefix):
            return _link("reasoned, not yet measured", name)
    return "not yet measured"


def _link(word: str, name: str) -> str:
    return f"[{word}](decisions/{name})"


if __name__ == "__main__":
    sys.stdout.write(page())
