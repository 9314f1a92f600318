"""The live-tunable numbers of the latency estimator."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from bidding.estimators.bounds import number


class LatencyParams(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How latency is learned. Logs are natural logs of milliseconds."""

    slow_half_life_s: Annotated[
        float, number(60, 2_592_000, "s", "memory of an offer's usual latency")
    ] = 172_800.0
    fast_half_life_s: Annotated[
        float, number(1, 86_400, "s", "memory of an offer's latency just now")
    ] = 20.0
    drift_log_sd: Annotated[
        float,
        number(0.01, 3, "log", "how far now may lie from usual before evidence"),
    ] = 0.3
    noise_log_sd: Annotated[
        float, number(0.01, 3, "log", "spread of one offer's calls, a priori")
    ] = 0.4
    noise_n: Annotated[
        float, number(0.5, 1000, "calls", "how strongly that spread is believed")
    ] = 3.0
    group_log_sd: Annotated[
        float, number(0.01, 3, "log", "spread of offers' means within a group")
    ] = 0.5
    market_log_sd: Annotated[
        float, number(0.01, 5, "log", "spread of groups' means in the market")
    ] = 1.0
    prior_ttft_ms: Annotated[
        float, number(1, 60_000, "ms", "TTFT of an offer in an unseen market")
    ] = 450.0
    prior_tpot_ms: Annotated[
        float, number(0.1, 5_000, "ms", "time per token in an unseen market")
    ] = 25.0
    input_slope: Annotated[
        float,
        number(-1, 2, "log/log", "log TTFT per log(input tokens + 300), a priori"),
    ] = 0.3
    output_slope: Annotated[
        float,
        number(-1, 1, "log/log", "log TPOT per log(output tokens + 20), a priori"),
    ] = 0.0
    inflight_slope: Annotated[
        float,
        number(-1, 2, "log/log", "log latency per log(1 + calls in flight), a priori"),
    ] = 0.05
    slope_sd: Annotated[
        float, number(0.001, 1, "log per log", "how far an offer's slopes may vary")
    ] = 0.1
    alarm_slack_sd: Annotated[
        float, number(0, 3, "sd", "shift that the change detector overlooks")
    ] = 0.75
    alarm_level_sd: Annotated[
        float, number(2, 100, "sd", "sum of shifts that raises the alarm")
    ] = 8.0
    alarm_clip_sd: Annotated[
        float, number(1.5, 20, "sd", "most that one call can add to that sum")
    ] = 4.0
    alarm_after_n: Annotated[
        float, number(1, 100, "calls", "evidence before an offer's changes are watched")
    ] = 3.0
    keep_n: Annotated[float, number(1, 10_000, "calls", "memory of the usual kept at an alarm")] = (
        20.0
    )
    row_cap_n: Annotated[
        float, number(1, 10_000, "calls", "most one offer weighs in what is pooled")
    ] = 50.0
    calibration_n: Annotated[
        float, number(1, 100_000, "calls", "weight of the normal law in calibration")
    ] = 30.0
    level_step: Annotated[
        float,
        number(0, 0.1, "share/call", "how far a missed promise moves the levels of all offers"),
    ] = 0.01
    level_gain: Annotated[
        float, number(0, 2, "share/share", "most that the levels move per mean miss; swings at 2")
    ] = 1.5
    level_window_n: Annotated[
        float, number(1, 1e6, "calls", "promises over which the levels are levelled out")
    ] = 500.0
    shift_step: Annotated[
        float, number(0, 1, "sd/call", "how far a miss of the median moves a group's mean")
    ] = 0.1
    scale_step: Annotated[
        float, number(0, 1, "log/call", "how far a miss of the tail widens a group's spread")
    ] = 0.05
    offer_window_n: Annotated[
        float, number(1, 1e5, "calls", "promises over which a group's shifts are levelled out")
    ] = 40.0
