"""Hour-of-week multipliers: what is there is found, what is not is left alone."""

import numpy as np
import pytest

from bidding.estimators.seasons import HOURS, error_season, hour_of_week, latency_season

TUESDAY_15_TO_17 = np.array([39, 40])


def weeks_of_calls(
    rng: np.random.Generator, n_weeks: int, per_hour: int, factor: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts, mean log residuals and weeks of an offer `factor` × slower on Tuesdays 15-17."""
    truth = np.zeros(HOURS)
    truth[TUESDAY_15_TO_17] = np.log(factor)
    by_week = truth + rng.normal(0, 0.15, (n_weeks, HOURS))
    calls = by_week[:, :, None] + rng.normal(0, 0.5, (n_weeks, HOURS, per_hour))
    mean = calls.mean(axis=(0, 2))
    n = np.full(HOURS, float(n_weeks * per_hour))
    return n, mean - np.average(mean, weights=n), np.full(HOURS, float(n_weeks))


@pytest.mark.parametrize("seed", range(5))
def test_three_times_slower_on_tuesdays_is_seen_within_three_weeks(seed: int) -> None:
    n, mean, weeks = weeks_of_calls(np.random.default_rng(seed), 3, 10, 3.0)
    season = latency_season(n, mean, weeks)
    others = np.delete(season.multiplier, TUESDAY_15_TO_17)
    assert (season.multiplier[TUESDAY_15_TO_17] > 2.0).all()
    assert (season.multiplier[TUESDAY_15_TO_17] < 4.0).all()
    assert np.abs(np.log(others)).max() < np.log(1.6)
    assert np.median(np.abs(np.log(others))) < np.log(1.12)
    assert season.multiplier.argmax() in TUESDAY_15_TO_17


def test_an_even_week_stays_even() -> None:
    n, mean, weeks = weeks_of_calls(np.random.default_rng(7), 3, 10, 1.0)
    season = latency_season(n, mean, weeks)
    assert np.abs(np.log(season.multiplier)).max() < np.log(1.25)


def test_shrinks_to_one_with_little_evidence_and_without_any() -> None:
    n = np.zeros(HOURS)
    mean = np.full(HOURS, np.nan)
    assert latency_season(n, mean, n).multiplier.tolist() == [1.0] * HOURS
    n[39], mean[39] = 1.0, np.log(3.0)
    assert latency_season(n, mean, np.ones(HOURS)).multiplier[39] < 2.0


def test_an_hour_without_calls_borrows_from_its_neighbours() -> None:
    n = np.full(HOURS, 60.0)
    mean = np.zeros(HOURS)
    mean[38:42] = np.log(3.0)
    n[40] = 0.0
    mean[40] = np.nan
    season = latency_season(n, mean, np.full(HOURS, 6.0))
    assert season.multiplier[40] > 1.5
    assert season.log_sd[40] > season.log_sd[39]


def test_sunday_night_borders_on_monday_morning() -> None:
    n = np.full(HOURS, 60.0)
    mean = np.zeros(HOURS)
    mean[[166, 167, 1]] = np.log(3.0)
    n[0] = 0.0
    assert latency_season(n, mean, np.full(HOURS, 6.0)).multiplier[0] > 1.5


def test_error_odds_peak_is_found_and_an_even_week_left_alone() -> None:
    rng = np.random.default_rng(1)
    tried = np.full(HOURS, 300.0)
    share = np.full(HOURS, 0.02)
    share[TUESDAY_15_TO_17] = 0.15
    season = error_season(rng.binomial(300, share).astype(float), tried)
    assert (season.multiplier[TUESDAY_15_TO_17] > 3.0).all()
    even = error_season(rng.binomial(300, 0.02, HOURS).astype(float), tried)
    assert even.multiplier.max() < 2.0


def test_bad_cells_count_as_unknown() -> None:
    n = np.full(HOURS, 10.0)
    mean = np.zeros(HOURS)
    n[3], mean[4], n[5] = -1.0, np.inf, np.nan
    assert np.isfinite(latency_season(n, mean, n).multiplier).all()
    assert np.isfinite(error_season(n * 2, n).multiplier).all()


def test_refuses_another_shape() -> None:
    with pytest.raises(ValueError, match="168 hours"):
        latency_season(np.zeros(24), np.zeros(24), np.zeros(24))


def test_hour_of_week_is_monday_first_and_goes_round() -> None:
    monday = 1_713_139_200.0  # 15 April 2024
    assert hour_of_week(
        np.array([monday, monday + 167 * 3600, monday + HOURS * 3600])
    ).tolist() == [
        0,
        167,
        0,
    ]
    assert int(hour_of_week(np.array(-3600.0))) == 71
