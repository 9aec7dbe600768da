"""The tables of stylized facts are those of the reference, from the same minute bars."""

import functools

import numpy as np
import pandas as pd
import pytest

from marsjax.analysis import bars, panel, stylized_facts
from tests.helpers import golden_folder

FOLDER = golden_folder() / "stylized_facts"
NAMES = ("cont1", "cont2", "cont3", "cont5", "cont6", "cont7", "cont9", "cont10", "cont11")


@functools.cache
def tables() -> dict[str, pd.DataFrame]:
    return stylized_facts.tables(panel.dense(bars.read(FOLDER / "minutes.csv.gz"))[0])


@pytest.mark.parametrize("name", NAMES)
def test_a_table_equals_the_reference(name: str) -> None:
    expected = pd.read_csv(FOLDER / f"{name}.csv.gz", dtype={"symbol": str})
    got = tables()[name]
    assert list(got) == list(expected)
    keys = [column for column in expected if column in ("source", "lag", "delta_t", "symbol")]
    pd.testing.assert_frame_equal(got[keys], expected[keys], check_dtype=False)
    for column in expected.columns.difference(keys):
        # NaN where the reference has NaN: `assert_allclose` takes them for equal, and for different from numbers.
        np.testing.assert_allclose(got[column], expected[column], rtol=1e-9, atol=1e-9)


def test_the_difference_of_fact_11_is_that_of_the_reference_table() -> None:
    expected = pd.read_csv(FOLDER / "cont11.csv.gz", dtype={"symbol": str}).set_index(["source", "lag", "symbol"])
    for source, lag, symbol, difference in tables()["cont11_difference"].itertuples(index=False):
        ahead, behind = (expected.loc[(source, each, symbol), "cf_corr"] for each in (lag, -lag))
        assert abs(difference - (ahead - behind)) < 1e-9
