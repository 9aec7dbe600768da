"""Figures of runs that have not ended: where a fan ends, which executions are shown; labels and facts."""

import dataclasses

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection

from marsjax.analysis import fact_plots, forecast_plots, impact_so_far, label_plots
from marsjax.analysis.forecast_plots import Futures, Reached
from marsjax.analysis.impact import Runs
from marsjax.analysis.verdicts import RULES, Conclusion, Verdict


def futures(mids: np.ndarray) -> Futures:
    return Futures(np.array([-1.0, 0.0]), np.array([1e5, 1e5]), mids, None, np.full(len(mids), 1e-4), np.nan, 2e-4)


def band_ends(axes: Axes) -> list[float]:
    return [float(band.get_datalim(axes.transData).x1) for band in axes.collections if isinstance(band, PolyCollection)]


def test_a_fan_that_fills_has_bands_as_far_as_half_of_the_futures_have_come() -> None:
    """Four futures of five minutes: three have passed two minutes, two three, one four; dots stand where they are."""
    at = np.array([2.2, 3.5, 4.9, 0.4])
    mids = 1e5 + 100.0 * np.arange(6) * np.array([[1], [2], [3], [4]])
    known = np.where(np.arange(6) <= at[:, None], mids, np.nan)
    axes, side = forecast_plots.fan(futures(known), "", reached=Reached(at, mids[:, 5])).axes
    assert band_ends(axes) == [3.0, 3.0]
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(dots[0].get_xdata(), at)
    assert "4 futures, 0.4 to 4.9 minutes so far" in axes.get_title(loc="left")
    assert side.get_title(loc="left").startswith("change of the mean mid, so far")
    assert "1 leave the picture, +" in axes.get_title(loc="left") and "nan" not in axes.get_title(loc="left")
    assert not [text.get_text() for text in axes.texts], "percentiles are named where they end"
    whole, side = forecast_plots.fan(futures(mids), "").axes
    assert band_ends(whole) == [5.0, 5.0] and {text.get_text() for text in whole.texts} >= {"median", "95%"}
    assert "so far" not in whole.get_title(loc="left") + side.get_title(loc="left")


def test_a_fan_of_nothing_yet_is_drawn() -> None:
    nothing = np.full((3, 4), np.nan)
    nothing[:, 0] = 1e5
    axes, _ = forecast_plots.fan(futures(nothing), "", reached=Reached(np.zeros(3), np.full(3, 1e5))).axes
    assert band_ends(axes) == [0.0, 0.0]


def runs(ratio: list[float], minutes: int = 4) -> Runs:
    count = len(ratio)
    whole = np.tile(np.arange(minutes), (count, 1))
    return Runs(np.arange(count), np.zeros(count, int), np.ones(count, int), np.array(ratio), np.full(count, 100),
                np.tile(1e5 + np.arange(minutes + 1.0), (count, 1)), whole, whole, -whole, np.zeros(count, bool))


def test_executions_so_far_are_those_that_half_of_their_size_keep_up_with() -> None:
    """Of ratio 0.1 half have come 3 minutes, of 0.3 two of three have come 2, of 0.5 one of three has come a minute."""
    baselines = runs([0.0] * 16)
    executed = runs([0.1, 0.1, 0.1, 0.3, 0.3, 0.3, 0.5, 0.5, 0.5])
    passed = np.array([3.1, 3.0, 0.5, 2.9, 2.0, 1.9, 1.5, 0.1, 0.0])
    found = impact_so_far.so_far(baselines, executed, passed, end=3)
    assert found is not None
    common, there, end = found
    assert end == 2 and common.mids.shape == (16, 3) and there.volume.shape == (4, 2)
    assert there.ratio.tolist() == [0.1, 0.1, 0.3, 0.3] and there.number.tolist() == [0, 1, 3, 4]
    np.testing.assert_array_equal(there.mids, executed.mids[[0, 1, 3, 4], :3])
    assert impact_so_far.so_far(baselines, executed, np.full(9, 0.9), end=3) is None
    every = impact_so_far.so_far(baselines, executed, np.full(9, 4.0), end=3)
    assert every is not None and every[2] == 3
    for field in dataclasses.fields(Runs):
        np.testing.assert_array_equal(getattr(every[1], field.name), getattr(executed, field.name))


def test_labels_are_coloured_and_counted_by_class() -> None:
    labels = np.array([-3.0, -2.0, 0.0, 0.5, 2.5, np.nan]) * 1e-4
    (axes,) = label_plots.distribution(labels, 1e-4, came=1e-4).axes
    assert [text.get_text().strip() for text in axes.texts] == ["down 40%", "flat 40%", "up 20%", "what came"]
    heights = [sum(bar.get_height() for bar in part) for part in axes.containers]  # type: ignore[attr-defined]
    assert heights == [2, 2, 1]
    low, high = axes.get_xlim()
    assert low == -high
    (empty,) = label_plots.distribution(np.full(2, np.nan), 1e-4).axes
    assert [text.get_text() for text in empty.texts] == ["down -", "flat -", "up -"]


def verdict(fact: int, answer: Conclusion, rest: float) -> Verdict:
    rule = RULES[fact - 1]
    return Verdict(fact, rule.name, "Simulation", answer, rest * rule.margin, 0.0, (rest - 1) * rule.margin,
                   (rest + 1) * rule.margin, rule.margin, 3, 0, 60, rule.tests, rule.in_paper)


@pytest.mark.parametrize("fact", [2, 3])
def test_effects_are_drawn_over_the_smallest_that_counts_whatever_their_sign(fact: int) -> None:
    """Fact 3 is negative skewness: an effect of twice its negative margin stands at 2 as well; 40 ends in an arrow."""
    drawn = [verdict(fact, Conclusion.PRESENT, 2.0), verdict(9, Conclusion.PRESENT, 40.0),
             dataclasses.replace(verdict(5, Conclusion.CANNOT_TELL, np.nan), symbols=0)]
    (axes,) = fact_plots.effects(drawn).axes
    dots = {line.get_marker(): line.get_xdata()[0] for line in axes.lines if line.get_marker() in ("o", ">", "<")}
    assert dots["o"] == pytest.approx(2.0) and dots[">"] == 6.0
    assert [text.get_text() for text in axes.texts] == ["present", "present", "cannot tell"]
