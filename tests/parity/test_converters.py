"""Reading, fitting and looking up bins gives the reference's numbers, on both golden sets of converters."""

import functools
import gzip
import pathlib

import jax
import numpy as np
import pytest

from marsjax.checkpoint import converter_files
from marsjax.core import times
from marsjax.tokens import bins
from tests.helpers import golden_folder

SETS = ("converters", "converters_small")
SUFFIX = ".values.npy"
FITTED = ("order-interval", "pred-order-volume", "price-level")
EACH = pytest.mark.parametrize(("which", "name"), [(which, name) for which in SETS for name in bins.NAMES])
WHOLE = ("price", "price-level", "order-volume", "lob-volume", "pred-order-volume", "lob-spread")
"""The quantities that are whole numbers wherever marsjax looks them up on a device."""


@functools.cache
def converters(which: str) -> dict[str, bins.Converter]:
    return converter_files.read_folder(golden_folder() / which)


@functools.cache
def table(which: str, file: str) -> dict[str, np.ndarray]:
    with np.load(golden_folder() / which / file, allow_pickle=False) as opened:
        return {key: opened[key] for key in opened.files}


def fitted_values(path: pathlib.Path) -> np.ndarray:
    """The values behind a converter, packed or not."""
    if path.exists():
        return np.load(path, allow_pickle=False)
    with gzip.open(f"{path}.gz") as file:
        return np.load(file, allow_pickle=False)


def assert_expected(converter: bins.Converter, which: str, name: str) -> None:
    expected = table(which, "expected.npz")
    np.testing.assert_array_equal(converter.edges, expected[f"{name}/bins"])
    for i in range(converter.num_bins):
        np.testing.assert_array_equal(converter.values[i], expected[f"{name}/values/{i}"], f"bin {i}")
        np.testing.assert_array_equal(converter.probabilities[i], expected[f"{name}/probs/{i}"], f"bin {i}")


@EACH
def test_published_files_are_read_whole(which: str, name: str) -> None:
    assert_expected(converters(which)[name], which, name)


@EACH
def test_indices_equal_the_reference(which: str, name: str) -> None:
    expected = table(which, "bin_index.npz")
    got = bins.index(converters(which)[name], expected[f"{name}/query"])
    np.testing.assert_array_equal(got, expected[f"{name}/index"])


@pytest.mark.parametrize("which", SETS)
@pytest.mark.parametrize("name", FITTED)
@pytest.mark.parametrize("shuffled", [False, True])
def test_fitting_equals_the_reference(which: str, name: str, shuffled: bool) -> None:
    values = fitted_values(golden_folder() / which / f"{name}{SUFFIX}")
    if shuffled:
        values = np.random.default_rng(1).permutation(values)
    assert_expected(bins.fit(values, converters(which)[name].num_bins), which, name)


@pytest.mark.parametrize("which", SETS)
@pytest.mark.parametrize("name", WHOLE)
def test_lookup_in_jit_equals_the_reference(which: str, name: str) -> None:
    expected = table(which, "bin_index.npz")
    query = expected[f"{name}/query"]
    whole = query == np.floor(query)
    assert whole.sum() > 8
    got = jax.jit(bins.lookup)(bins.index_table(converters(which)[name]), query[whole].astype(np.int32))
    np.testing.assert_array_equal(got, expected[f"{name}/index"][whole])


@pytest.mark.parametrize("which", SETS)
def test_lookup_of_intervals_in_jit_equals_the_reference(which: str) -> None:
    expected = table(which, "bin_index.npz")
    query = expected["order-interval/query"]
    # Those that are durations of whole microseconds: the edges, and halves between them.
    ns = np.rint(np.clip(query, 0, None) * 1e9).astype(np.int64)
    exact = np.array([bins.interval_seconds(int(x)) for x in ns]) == query
    assert exact.sum() > 4
    got = jax.jit(bins.lookup_time)(bins.time_index_table(converters(which)["order-interval"]),
                                    times.from_ns(ns[exact]))
    np.testing.assert_array_equal(got, expected["order-interval/index"][exact])


@pytest.mark.parametrize("which", SETS)
def test_the_first_draw_is_the_first_listed_value(which: str) -> None:
    found = converters(which)
    for name in ("price-level", "pred-order-volume"):
        got = bins.first(bins.draw_table(found[name]), np.arange(found[name].num_bins))
        np.testing.assert_array_equal(got, [round(float(values[0])) for values in found[name].values])
    interval = found["order-interval"]
    got = times.to_ns(bins.first(bins.time_draw_table(interval), np.arange(interval.num_bins)))
    np.testing.assert_array_equal(got, [round(float(values[0]) * 1e9) for values in interval.values])
