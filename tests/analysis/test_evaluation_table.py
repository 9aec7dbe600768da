"""The scores of a table of forecasts, counted by hand; starts without a label are in none of them."""

import numpy as np
import pandas as pd
import pytest

from marsjax.analysis import evaluation_table, forecast_plots
from marsjax.core.errors import InputError


def table() -> pd.DataFrame:
    """Six starts, the last two without a realized label and without a forecast."""
    came = ["up", "down", "flat", "up", "", "up"]
    columns = {"market": "A", "threshold": 0.1, "realized": [0.3, -0.2, 0.0, 0.4, np.nan, 0.2], "class": came,
               "with_label": [4, 4, 4, 4, 4, 0], "quantile_0.5": [0.1, -0.2, 0.1, 0.5, 0.0, np.nan]}
    ours = [(0.1, 0.1, 0.8), (0.6, 0.2, 0.2), (0.2, 0.2, 0.6), (0.1, 0.2, 0.7), (0.0, 0.0, 1.0), (0.3, 0.3, 0.4)]
    for name, rows, label in (("order model", ours, 0.1), ("no change", [(0.2, 0.6, 0.2)] * 6, 0.0)):
        columns |= {f"{name}: {move}": [row[i] for row in rows] for i, move in enumerate(("down", "flat", "up"))}
        columns[f"{name}: label"] = label
    return pd.DataFrame(columns)


def test_scores_are_those_of_the_rows_that_have_both_labels() -> None:
    found = evaluation_table.scores(table(), (0.5,), (0.0, 0.5, 1.0), 0)
    assert (found["starts"], found["without_realized_label"], found["without_forecast"]) == (4, 1, 1)
    assert found["classes"] == {"down": 1, "flat": 1, "up": 2}
    ours, theirs = found["methods"]["order model"], found["methods"]["no change"]
    assert (ours["accuracy"]["value"], theirs["accuracy"]["value"]) == (0.75, 0.25)
    logs = np.log([0.8, 0.6, 0.2, 0.7]), np.log([0.2, 0.2, 0.6, 0.2])
    assert ours["log_score"]["value"] == pytest.approx(logs[0].mean())
    less = found["order_model_less"]["no change"]["log_score"]
    assert less["value"] == pytest.approx((logs[0] - logs[1]).mean())
    assert less["standard_error"] == pytest.approx((logs[0] - logs[1]).std(ddof=1) / 2)
    assert ours["rmse"]["value"] == pytest.approx(np.sqrt(np.mean([0.2**2, 0.3**2, 0.1**2, 0.3**2])))
    low, high = found["reliability_of_up"]
    assert (low["count"], high["count"], high["frequency"]) == (1, 3, pytest.approx(2 / 3))
    # Of the labels one is below its quantile, one is on it and counts half, two are above or below as they stand.
    assert found["coverage"][0]["value"] == (0 + 0.5 + 1 + 1) / 4
    assert "order model" in "\n".join(evaluation_table.lines(found))


def test_a_table_without_a_start_to_judge_is_refused() -> None:
    with pytest.raises(InputError, match="no start has both a realized label and one of the trajectories"):
        evaluation_table.scores(table().iloc[4:], (0.5,), (0.0, 1.0), 0)


def test_markets_whose_labels_are_all_equal_are_left_out_by_name() -> None:
    flat = table().iloc[:2].assign(market="B", realized=0.0, **{"class": "flat"})
    alone = table().iloc[:1].assign(market="C")
    found = evaluation_table.scores(pd.concat([table(), flat, alone]), (0.5,), (0.0, 0.5, 1.0), 0)
    assert found["left_out"] == {"B": "constant: all of its 2 realized labels are 0"} and found["starts"] == 5
    assert "B is in no score: constant: all of its 2 realized labels are 0" in evaluation_table.lines(found)
    assert found["classes"] == {"down": 1, "flat": 1, "up": 3}


@pytest.mark.parametrize(("rows", "count"), [(table().iloc[:1], 1), (table().iloc[:3].assign(realized=0.1), 0)])
def test_one_start_and_equal_labels_have_no_scores_but_words(rows: pd.DataFrame, count: int) -> None:
    found = evaluation_table.scores(rows, (0.5,), (0.0, 0.5, 1.0), 0)
    assert found["note"] == f"too few: {count} starts to score, expected 2 at least" and found["methods"] == {}
    assert evaluation_table.lines(found)[-1] == f"no scores: {found['note']}"


def test_the_picture_shows_the_starts_that_are_scored() -> None:
    found = evaluation_table.scores(table(), (0.5,), (0.0, 0.5, 1.0), 0)
    figure = forecast_plots.evaluation(table(), found, 5)
    assert len(figure.axes) == 3 and len(figure.axes[0].collections[0].get_offsets()) == 4
