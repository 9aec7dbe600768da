"""What figures show: bands and what lies outside them, names that can be read, times of day, laws that were fitted."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from marsjax.analysis import figure_style, forecast_plots, impact_plots, impact_report, plots
from marsjax.analysis.forecast_plots import Futures
from marsjax.analysis.impact import PowerLaw
from marsjax.analysis.intervals import Interval

NOTHING = np.nan


def futures(count: int = 200, realized: bool = True) -> Futures:
    rng = np.random.default_rng(4)
    mids = 100_000 + np.pad(np.cumsum(10 * rng.standard_normal((count, 5)), axis=1), [(0, 0), (1, 0)])
    labels = mids[:, 1:].mean(axis=1) / 1e5 - 1
    return Futures(np.array([-2.0, -1.0, 0.0]), np.array([NOTHING, 99_990.0, 1e5]), mids,
                   mids[0] if realized else None, labels, float(labels[0]) if realized else NOTHING, 1e-4)


def texts(figure: Figure, axes: int = 0) -> list[str]:
    return [each.get_text() for each in figure.axes[axes].texts]


def test_a_fan_names_its_bands_and_holds_them_whole() -> None:
    shown = futures()
    figure = forecast_plots.fan(shown, "fan")
    axes = figure.axes[0]
    assert set(texts(figure)) == {"5%", "25%", "median", "75%", "95%", "what came"}
    low, high = (x * 1e4 for x in axes.get_ylim())
    bands = np.quantile(shown.mids, (0.05, 0.95), axis=0)
    assert low < bands.min() and high > bands.max() and low < shown.mids[0].min() and high > shown.mids[0].max()
    # No name lies on another: 11 points apart.
    places = sorted(axes.transData.transform((0, each.xy[1]))[1] for each in axes.texts)
    assert np.diff(places).min() > 10 * figure.dpi / 72
    assert "what came" not in texts(forecast_plots.fan(futures(realized=False), "fan"))


def test_futures_far_outside_are_counted_and_leave_the_axes_as_they_are() -> None:
    plain, wild = futures(realized=False), futures(realized=False)
    wild.mids[7, 3:], wild.mids[9, 5] = 130_000, 50_000
    before, after = (forecast_plots.fan(each, "fan") for each in (plain, wild))
    assert after.axes[0].get_title(loc="left") == (
        "200 futures: bands of 50% and 90%; 2 leave the picture, -5000 to +3000 bp".replace(
            "2 leave", f"{_leaving(wild, after)} leave"))
    assert np.ptp(after.axes[0].get_ylim()) < 1.2 * np.ptp(before.axes[0].get_ylim())


def _leaving(shown: Futures, figure: Figure) -> int:
    low, high = (x * 1e4 for x in figure.axes[0].get_ylim())
    return int(((shown.mids < low) | (shown.mids > high)).any(axis=1).sum())


def test_labels_stand_beside_the_fan_with_the_share_of_each_class() -> None:
    shown = futures()
    title = forecast_plots.fan(shown, "fan").axes[1].get_title(loc="left")
    down, up = ((x > 1e-4).mean() for x in (-shown.labels, shown.labels))
    assert title.splitlines()[1] == f"down {down:.0%}, flat {1 - down - up:.0%}, up {up:.0%}"


def test_a_fan_of_one_price_or_of_nothing_is_drawn() -> None:
    still = futures()._replace(mids=np.full((8, 6), 1e5), realized=None, labels=np.zeros(8))
    figure = forecast_plots.fan(still, "fan")
    assert texts(figure) == ["5% to 95%"] and np.ptp(figure.axes[0].get_ylim()) >= 0.0199
    lost = still._replace(mids=np.full((2, 6), NOTHING), past_mids=np.full(3, NOTHING), labels=np.full(2, NOTHING))
    assert forecast_plots.fan(lost, "fan").axes[0].get_title(loc="left").startswith("0 futures")


@pytest.mark.parametrize("seed", range(20))
def test_places_are_moved_apart_by_as_little_as_it_takes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    places = np.sort(rng.normal(size=6))
    found = figure_style.apart(places, 0.5)
    assert (np.diff(found) >= 0.5 - 1e-9).all() and len(found) == 6
    # No small change of them keeps them apart and lies nearer.
    best = ((found - places) ** 2).sum()
    for _ in range(200):
        other = found + 0.05 * rng.normal(size=6)
        if (np.diff(other) >= 0.5).all():
            assert ((other - places) ** 2).sum() > best - 1e-9
    np.testing.assert_array_equal(figure_style.apart(np.array([0.0, 1.0]), 0.5), [0, 1])
    assert len(figure_style.apart(np.zeros(0), 0.5)) == 0


def day() -> pd.DataFrame:
    minutes = np.r_[9 * 60 + 15:11 * 60 + 31, 13 * 60:15 * 60 + 1]
    columns = {name: np.arange(len(minutes)) + 1.0 for name in ("mid", "spread", "bid_depth", "ask_depth", "volume")}
    return pd.DataFrame(columns, index=minutes)


def test_a_day_has_ticks_at_round_times_and_a_marked_break() -> None:
    figure = plots.day(day(), "a day")
    below = figure.axes[-1]
    ticks = [each.get_text() for each in below.get_xticklabels()]
    assert ticks == ["09:30", "10:00", "10:30", "11:00", "11:30", "13:00", "13:30", "14:00", "14:30", "15:00"]
    assert "break" in texts(figure)
    # The break takes the room of a few minutes, and a tick lies where its minute is drawn.
    at = below.get_xticks()
    assert 0 < at[5] - at[4] < 15 and (np.diff(np.delete(at, 5)[:5]) == 30).all()
    bars = below.containers[0].patches
    assert at[0] - (bars[0].get_x() + 0.5) == 15 and at[5] == bars[136].get_x() + 0.5
    assert "break" not in texts(plots.day(day().iloc[:7], "a start"))


@pytest.mark.parametrize(("begin", "end", "first", "step"), [
    ("09:30:00.000", "15:00:00.000", "10:00:00", 3600), ("09:31:12.500", "09:59:00.000", "09:35:00", 300),
    ("10:00:00.250", "10:00:07.000", "10:00:01", 1), ("10:00:00.001", "10:00:00.006", "10:00:00.001", 0.001)])
def test_times_of_an_axis_are_round(begin: str, end: str, first: str, step: float) -> None:
    low, high = (round(pd.Timedelta(each).value) for each in (begin, end))
    found = figure_style.round_times(low, high)
    assert found[0] == pd.Timedelta(first).value
    assert (np.diff(found) == round(step * 1e9)).all() and 2 <= len(found) <= 10
    assert low <= found[0] and found[-1] <= high


def law(exponent: float = 0.6, root: float = 30.0) -> PowerLaw:
    return PowerLaw(20.0, exponent, 0.4, 0.8, 0.0, root)


def minutes() -> pd.DataFrame:
    return pd.DataFrame({"minute": [0, 1], "impact_bp": [0.0, 5.0], "impact_low": [0.0, 1.0],
                         "impact_high": [0.0, 9.0]})


def test_the_square_root_law_is_named_once_and_a_missing_law_is_said() -> None:
    groups = {"buy": [(0.1, Interval(5, 3, 7)), (0.3, Interval(9, 5, 13))],
              "sell": [(0.1, Interval(4, 3, 7)), (np.nan, Interval(np.nan, np.nan, np.nan))]}
    figure = impact_plots.impacts(groups, {"buy": law(), "sell": law(NOTHING)}, {"buy 0.1": minutes()}, 1)
    names = figure.axes[0].get_legend_handles_labels()[1]
    assert sorted(names) == ["buy, size^0.60", "sell, no law fitted", "square root of the size"]
    none = PowerLaw(*[NOTHING] * 6)
    figure = impact_plots.impacts({"buy": groups["buy"][:1]}, {"buy": none}, {"buy 0.1": minutes()}, 1)
    assert figure.axes[0].get_legend_handles_labels()[1] == ["buy, no law fitted"]


@pytest.mark.parametrize(("found", "expected"), [
    (law(), "impact = 20 bp x size^0.6 [0.4, 0.8]; square root: 30 bp x size^0.5"),
    (law()._replace(undefined=0.25), "impact = 20 bp x size^0.6 [0.4, 0.8], undefined in 25% of the resamples; "
                                     "square root: 30 bp x size^0.5"),
    (PowerLaw(*[NOTHING] * 6), "no exponent fitted: a law needs two sizes, of two rollouts each that traded"),
    (PowerLaw(NOTHING, NOTHING, NOTHING, NOTHING, 0.5, -3.0),
     "no exponent fitted: the mean impact of a size is not above 0: more rollouts or larger sizes are needed; "
     "square root: -3 bp x size^0.5"),
])
def test_a_law_that_could_not_be_fitted_is_said_in_words(found: PowerLaw, expected: str) -> None:
    row = {"group": "buy 0.1", "target": 100, "lost": 0, "variance_saved": 1.0,
           **{name: Interval(1.0, 0.0, 2.0)._asdict() for name in (
               "fulfilled", "slippage_bp", "shortfall_bp", "participation", "impact_bp", "impact_independent_bp")}}
    assert impact_report.lines([row], {"buy": found})[-1] == f"buy: {expected}"
