"""The heat map of a book: what stands in each cell, by hand."""

import numpy as np
import pandas as pd
import pytest

from marsjax.analysis import depth_plots

SECOND = 10**9
ROWS = [(0, 0, "ask", 10.02, 300), (0, 0, "bid", 10.00, 100), (1, 30, "ask", 10.02, 300), (1, 30, "bid", 10.00, 400),
        (2, 48, "ask", 10.03, 50), (2, 48, "bid", 10.00, 400), (3, 60, "ask", 10.03, 20), (3, 60, "bid", 10.00, 400)]


def depth() -> pd.DataFrame:
    table = pd.DataFrame(ROWS, columns=["i", "time_ns", "side", "price", "volume"])
    return table.assign(time_ns=(34_200 + table["time_ns"]) * SECOND, price_unit="1 CNY")


def test_each_cell_holds_what_stood_after_the_last_order_of_its_time() -> None:
    figure = depth_plots.heat_map(depth(), "a book")
    axes, mesh = figure.axes[0], figure.axes[0].collections[0]
    cells = mesh.get_array()
    assert cells.shape == (4, 600) and axes.get_ylabel() == "price (CNY)" and axes.get_title() == "a book"
    # Rows are 10.00, 10.01, 10.02, 10.03; the second order comes halfway, the third after 48 of 60 seconds.
    assert cells[0, :299].tolist() == [100] * 299 and cells[0, 300:].tolist() == [400] * 300
    assert cells[1].mask.all() and cells[2, :479].tolist() == [300] * 479 and cells[2].mask[480:].all()
    assert cells[3, 480:].tolist() == [50] * 119 + [20] and cells[3].mask[:479].all()
    assert [text.get_text() for text in axes.get_xticklabels()][::6] == ["09:30:00", "09:31:00"]
    lines = {line.get_label(): line.get_ydata() for line in axes.get_lines()}
    assert np.unique(lines["best ask"]).tolist() == [10.02, 10.03] and set(lines["best bid"]) == {10.0}


def test_one_market_and_something_to_show_are_asked_for() -> None:
    with pytest.raises(ValueError, match="expected levels to show, got none"):
        depth_plots.heat_map(depth().iloc[:0], "")
    with pytest.raises(ValueError, match="expected one trajectory, got 2: choose one"):
        depth_plots.heat_map(depth().assign(trajectory=[0] * 7 + [1]), "")
