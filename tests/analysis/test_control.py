"""What pictures of controlled futures show, and what the table of their realism says."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from marsjax.analysis import control_fit, control_plots, control_realism
from marsjax.analysis.control_plots import Control, Fan, Quantity
from marsjax.core.errors import InputError


def fan(name: str, drift: float, count: int = 64, seed: int = 0) -> Fan:
    steps = np.random.default_rng(seed).normal(drift, 3, (count, 5))
    return Fan(name, np.pad(np.cumsum(steps, axis=1), [(0, 0), (1, 0)]))


def control(*fans: Fan, others: tuple[Quantity, ...] = ()) -> Control:
    target = np.array([-6.0, np.nan, -18, -24, -30])
    return Control(np.linspace(-8, 0, 30), np.zeros(30), fans, np.arange(1.0, 6), target, np.linspace(0.5, 0.9, 5),
                   np.linspace(0.5, 0.1, 5), others)


def lines(figure: Figure, axes: int, style: str = "--") -> list[np.ndarray]:
    return [np.array(line.get_xydata()) for line in figure.axes[axes].lines if line.get_linestyle() == style]


def test_the_target_and_its_end_stand_in_every_panel_of_one_scale() -> None:
    free, held = fan("uncontrolled", 0), fan("controlled", -6)
    figure = control_plots.fans(control(free, held), "a drop")
    for number, shown in enumerate((free, held)):
        (target,) = lines(figure, number)
        np.testing.assert_array_equal(target, [[0, 0], [1, -6], [3, -18], [4, -24], [5, -30]])
        assert {each.get_text() for each in figure.axes[number].texts} == {"median", "target"}
        medians = [line for line in lines(figure, number, "-") if len(line) == 6]
        assert any(np.allclose(line[:, 1], np.median(shown.return_bp, axis=0)) for line in medians)
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim() and figure.axes[0].get_ylim()[0] < -30
    left = lines(figure, 2, "-")
    assert [line[:, 1].tolist()[0] for line in left] == [100, 100] and np.allclose(left[0][1:, 1], 100 * np.linspace(
        0.5, 0.1, 5))


def test_lost_futures_are_in_no_band_and_are_not_counted() -> None:
    shown = fan("controlled", -6)
    shown.return_bp[3, 2:] = np.nan
    figure = control_plots.fans(control(shown), "a drop")
    assert "63 futures" in figure.axes[0].get_title(loc="left")


def test_other_targets_have_a_row_of_their_own() -> None:
    values = np.random.default_rng(1).gamma(4, 100, (5, 64))
    volume = Quantity("shares traded", (values, 2 * values), np.full(5, 800.0))
    figure = control_plots.fans(control(fan("uncontrolled", 0), fan("controlled", -6), others=(volume,)), "a burst")
    axes = figure.axes[-1]
    assert axes.get_title(loc="left").startswith("shares traded") and len(figure.axes) == 4
    np.testing.assert_allclose(np.array(axes.lines[1].get_ydata()), 2 * np.array(axes.lines[0].get_ydata()))
    with pytest.raises(InputError, match="one kind at least"):
        control_plots.fans(control(), "nothing")


def values(shift: float = 0.0, seed: int = 0) -> dict[str, list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    return {"spread": [rng.normal(shift, 1, 200) for _ in range(24)], "one": [np.ones(3)] * 24,
            "none": [np.full(3, np.nan)] * 24}


def test_futures_are_as_alike_as_themselves_and_less_where_they_differ() -> None:
    same, other, moved = (control_realism.table(values(), each).set_index("quantity")
                          for each in (values(), values(seed=1), values(shift=1.0, seed=1)))
    assert same["similarity"]["spread"] == 1
    assert abs(other["less"]["spread"]) < 0.05 < 0.3 < moved["less"]["spread"]
    assert (other["ceiling_low"] <= other["ceiling"])["spread"] and "constant" in other["said"]["one"]
    assert "no values" in other["said"]["none"] and np.isnan(other["similarity"]["none"])
    (line,) = control_realism.lines(moved.reset_index())
    assert line.split()[0] == "spread" and "ceiling" in line


def test_the_fit_of_intervals_is_that_of_the_paths_up_to_them() -> None:
    rng = np.random.default_rng(3)
    found, wanted = np.cumsum(rng.normal(-5, 4, (4, 20)), axis=0), np.array([-5.0, -10.0, np.nan, -20.0])
    found[:, 7] = 0.0  # moves nowhere: it has no correlation
    table = control_fit.table(found, wanted)
    assert tuple(table) == control_fit.COLUMNS and table["interval"].tolist() == [1, 2, 3, 4]
    paths, curve = np.vstack([np.zeros(20), found[[0, 1, 3]]]), np.array([0.0, -5.0, -10.0, -20.0])
    each = [np.corrcoef(path, curve)[0, 1] for path in np.delete(paths, 7, axis=1).T]
    assert table["correlation"].iloc[-1] == pytest.approx(np.mean(each))
    off = np.abs(found[3] + 20)
    assert table["near"].iloc[-1] == (off <= 5).mean() and table["error_bp"].iloc[-1] == pytest.approx(off.mean())
    assert table["rmse_bp"].iloc[-1] == pytest.approx(np.sqrt((off**2).mean()))
    assert np.isnan(table["near"][2]) and table["mean_bp"][2] == pytest.approx(found[2].mean())
    assert control_fit.table(found[:, :0], wanted)["mean_bp"].isna().all()
    with pytest.raises(InputError, match="a target"):
        control_fit.table(found, wanted[:2])
