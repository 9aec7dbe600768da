"""Bins: tables inside jit equal float64 on the host, the law of the draws is exact, fitting follows its own text."""

import collections
import json
import os
import pathlib
import pickle
import re
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from marsjax.checkpoint import converter_files
from marsjax.core import int64, times
from marsjax.core.records import Time
from marsjax.tokens import bins
from marsjax.tokens.bins import Converter
from tests.helpers import fixture_folder

laws = settings(deadline=None, max_examples=60)
NUM_BINS = 8
INT32 = (-(2**31), 2**31 - 1)
ROOT = pathlib.Path(__file__).parent.parent.parent
lookup = jax.jit(bins.lookup)
lookup_int64 = jax.jit(bins.lookup_int64)
lookup_time = jax.jit(bins.lookup_time)
draw = jax.jit(bins.draw)


def plain(edges: list[float] | np.ndarray) -> Converter:
    """A converter that is only looked up: each bin lists its upper edge."""
    return Converter(np.array(edges), tuple(np.array([x]) for x in edges[1:]), tuple(np.ones(1) for _ in edges[1:]))


def drawing(values: list[list[float]], probabilities: list[list[float]]) -> Converter:
    """A converter that is only drawn from."""
    return Converter(np.arange(len(values) + 1.0), tuple(np.array(x, float) for x in values),
                     tuple(np.array(x, float) for x in probabilities))


def golden(name: str) -> Converter:
    return converter_files.read_zstd(fixture_folder() / "converters" / f"{name}.zstd")


# Whole edges, halves, edges a float64 apart from a whole one, equal ones, and the ends of what fits.
whole_edge = st.one_of(st.integers(-50, 50), st.integers(-(2**31), 2**31 - 2),
                       st.sampled_from([-(2**31), 2**31 - 2, -1, 0, 1])).map(float)
edge = st.one_of(whole_edge, st.floats(-100, 100), whole_edge.map(lambda x: min(x + 0.5, 2**31 - 2)),
                 st.integers(-1000, 1000).map(lambda x: np.nextafter(x, 9e9)),
                 st.integers(-1000, 1000).map(lambda x: np.nextafter(x, -9e9)))
edges = st.lists(edge, min_size=NUM_BINS + 1, max_size=NUM_BINS + 1).map(sorted)


def around(edges: list[float], low: int, high: int, length: int) -> np.ndarray:
    """Integers on, just below and just above every edge, and the ends of the range; always `length` of them."""
    near = {int(np.floor(x)) + step for x in edges for step in (-1, 0, 1, 2)} | {low, high, 0}
    found = np.array(sorted(x for x in near if low <= x <= high), dtype=object)
    return np.resize(found, length)


@laws
@given(edges)
def test_lookup_of_integers_equals_float64(edges: list[float]) -> None:
    converter = plain(edges)
    values = around(edges, *INT32, length=64)
    got = lookup(bins.index_table(converter), values.astype(np.int32))
    assert got.dtype == jnp.int32
    np.testing.assert_array_equal(got, bins.index(converter, values.astype(np.float64)))


@laws
@given(edges)
def test_lookup_of_wide_integers_equals_float64(edges: list[float]) -> None:
    converter = plain(edges)
    beyond = [-(2**53), 2**53, 2**31, -(2**31) - 1, 2**32, 2**32 + 5, -(2**32)]
    values = np.concatenate([around(edges, *INT32, length=64), np.array(beyond, dtype=object)])
    got = lookup_int64(bins.index_table(converter), int64.from_numpy(values.astype(np.int64)))
    np.testing.assert_array_equal(got, bins.index(converter, values.astype(np.float64)))


seconds_edge = st.one_of(st.integers(-100, 10**6).map(lambda x: x / 100), st.floats(-2, 10), st.floats(0, 2**31 - 2),
                         st.integers(0, 10**10).map(lambda x: x / 1e9),
                         st.integers(0, 10**10).map(bins.interval_seconds))


@laws
@given(st.lists(seconds_edge, min_size=NUM_BINS + 1, max_size=NUM_BINS + 1).map(sorted))
def test_lookup_of_times_equals_float64(edges: list[float]) -> None:
    converter = plain(edges)
    near = [int(x * 1e9) + step for x in edges for step in (-1001, -1000, -999, -1, 0, 1, 999, 1000, 1001)]
    table = bins.time_index_table(converter)
    exact = [int(x) + step for x in times.to_ns(table.lowest) for step in (-1, 0, 1)]
    ns = np.resize(np.clip(np.array([*near, *exact, 0, 1], np.int64), 0, 2**31 * 10**9 - 1), 256)
    got = lookup_time(table, times.from_ns(ns))
    assert got.dtype == jnp.int32
    np.testing.assert_array_equal(got, bins.index(converter, [bins.interval_seconds(int(x)) for x in ns]))


def test_seconds_of_an_interval_are_those_of_the_reference() -> None:
    assert bins.interval_seconds(999) == 0.0
    assert bins.interval_seconds(1_999_999_999) == bins.interval_seconds(1_999_999_000) == 1 + 0.999999
    assert bins.interval_seconds(1_140_000_000) == 1 + 0.14 != 1.14
    for us in np.random.default_rng(0).integers(0, 86_400 * 10**6, 2000).tolist():
        assert bins.interval_seconds(us * 1000) == pd.Timedelta(us, "us").total_seconds()


def test_bins_are_open_below_and_closed_above() -> None:
    converter = plain([0, 10, 20, 20, 30])
    values = np.array([-5, 0, 1, 10, 11, 20, 21, 30, 31])
    expected = [0, 0, 0, 0, 1, 1, 3, 3, 3]
    np.testing.assert_array_equal(bins.index(converter, values), expected)
    np.testing.assert_array_equal(bins.lookup(bins.index_table(converter), values), expected)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3), (2, 0), (2, 3, 4)])
def test_any_batch_shape(shape: tuple[int, ...]) -> None:
    price, interval = golden("price-level"), golden("order-interval")
    random = np.random.default_rng(0)
    values = random.integers(-3000, 3000, shape)
    got = lookup(bins.index_table(price), values.astype(np.int32))
    assert got.shape == shape
    np.testing.assert_array_equal(got, bins.index(price, values))
    assert lookup_int64(bins.index_table(price), int64.from_numpy(values)).shape == shape
    ns = random.integers(0, 2 * 10**9, shape)
    got = lookup_time(bins.time_index_table(interval), times.from_ns(ns))
    np.testing.assert_array_equal(got, bins.index(interval, np.vectorize(bins.interval_seconds, otypes=[float])(ns)))
    bits, table = random.integers(0, 2**32, shape).astype(np.uint32), bins.draw_table(price)
    where = random.integers(0, 32, shape).astype(np.int32)
    drawn = draw(table, where, bits)
    assert (drawn.shape, drawn.dtype) == (shape, jnp.int32)
    np.testing.assert_array_equal(bins.index(price, drawn), where)
    time = draw(bins.time_draw_table(interval), where % 16, bits)
    assert time.s.shape == time.ns.shape == shape


def test_vmap_equals_batch() -> None:
    table, random = bins.draw_table(golden("pred-order-volume")), np.random.default_rng(1)
    bits, where = random.integers(0, 2**32, 50).astype(np.uint32), random.integers(0, 32, 50).astype(np.int32)
    np.testing.assert_array_equal(jax.vmap(lambda b, w: bins.draw(table, b, w))(where, bits), draw(table, where, bits))


def law_of(table: bins.DrawTable, i: int, values: np.ndarray) -> dict[int, int]:
    """Value -> how many of the 2**32 random words draw it from bin i."""
    counts: dict[int, int] = collections.Counter()
    below = -1
    for value, highest in zip(values[i].tolist(), table.highest[i].tolist(), strict=True):
        counts[value] += highest - below
        below = highest
    assert below == 2**32 - 1
    return counts


def assert_law(converter: Converter, scale: int, moments: bool) -> None:
    table = (bins.time_draw_table if moments else bins.draw_table)(converter)
    values = times.to_ns(table.values) if moments else table.values
    for i in range(converter.num_bins):
        expected: dict[int, float] = collections.Counter()
        for value, chance in zip(converter.values[i].tolist(), converter.probabilities[i].tolist(), strict=True):
            expected[round(value * scale)] += chance
        got = law_of(table, i, values)
        distance = sum(abs(got[x] / 2**32 - expected[x]) for x in {*got, *expected}) / 2
        assert distance < 3e-8
        assert all(expected[x] > 0 for x in got if got[x] > 0)


@pytest.mark.parametrize("name", ["price-level", "order-volume", "pred-order-volume", "lob-volume", "price"])
def test_law_of_the_draws_is_the_float64_law(name: str) -> None:
    assert_law(golden(name), 1, moments=False)


def test_law_of_the_drawn_intervals_is_the_float64_law() -> None:
    assert_law(golden("order-interval"), 10**9, moments=True)


chance = st.one_of(st.just(0.0), st.floats(0, 1), st.sampled_from([1e-12, 1e-9, 2.0**-33, 2.0**-32, 1.0]))


@laws
@given(st.lists(chance, min_size=1, max_size=100).filter(lambda x: sum(x) > 0))
def test_law_of_any_bin(chances: list[float]) -> None:
    assert_law(drawing([list(range(len(chances)))], [[x / sum(chances) for x in chances]]), 1, moments=False)


@laws
@given(st.lists(chance, min_size=1, max_size=20).filter(lambda x: sum(x) > 0))
def test_draws_change_exactly_at_the_thresholds_and_never_give_what_cannot_be(chances: list[float]) -> None:
    normal = [x / sum(chances) for x in chances] + [0.0] * (20 - len(chances))
    table = bins.draw_table(drawing([list(range(20))], [normal]))
    highest, values = (np.resize(x[0], 20) for x in (table.highest, table.values))
    where = np.zeros(20, np.int32)
    at = np.asarray(draw(table, where, highest))
    np.testing.assert_array_equal(at, values)
    after = np.asarray(draw(table, where, (highest.astype(np.int64) + 1).clip(0, 2**32 - 1).astype(np.uint32)))
    np.testing.assert_array_equal(after[:-1][highest[:-1] < highest[1:]], values[1:][highest[:-1] < highest[1:]])
    drawn = np.concatenate([at, after, draw(table, where, np.resize(np.uint32([0, 2**31, 2**32 - 1]), 20))])
    assert all(normal[x] > 0 for x in drawn)


def test_values_are_rounded_half_to_even() -> None:
    table = bins.draw_table(drawing([[0.5], [1.5], [2.5], [-0.5], [-1.5], [99.7]], [[1]] * 6))
    np.testing.assert_array_equal(bins.first(table, np.arange(6)), [0, 2, 2, 0, -2, 100])
    moments = bins.time_draw_table(drawing([[2.01], [0.5e-9], [1.5e-9], [86399.999999999]], [[1]] * 4))
    np.testing.assert_array_equal(times.to_ns(bins.first(moments, np.arange(4))),
                                  [2_010_000_000, 0, 2, 86_399_999_999_999])


def test_empty_bins_draw_their_upper_edge_and_say_so() -> None:
    converter = Converter(np.array([-1.0, 0, 2.5, 2.5]), (np.array([0.0]), np.array([]), np.array([])),
                          (np.array([1.0]), np.array([]), np.array([])))
    table, moments = bins.draw_table(converter), bins.time_draw_table(converter)
    np.testing.assert_array_equal(table.is_empty, [False, True, True])
    np.testing.assert_array_equal(bins.draw(table, np.arange(3), np.uint32([0, 7, 2**32 - 1])), [0, 2, 2])
    np.testing.assert_array_equal(times.to_ns(bins.first(moments, np.arange(3))), [0, 2_500_000_000, 2_500_000_000])


def test_bins_out_of_range_are_clipped() -> None:
    table = bins.draw_table(drawing([[1], [2], [3]], [[1]] * 3))
    np.testing.assert_array_equal(bins.draw(table, np.int32([-7, -1, 3, 9]), np.zeros(4, np.uint32)), [1, 1, 3, 3])


def test_one_bin() -> None:
    converter = plain([0, 5])
    np.testing.assert_array_equal(bins.lookup(bins.index_table(converter), np.int32([-1, 5, 9])), [0, 0, 0])
    found = bins.lookup_time(bins.time_index_table(converter), Time(np.int32([0, 9]), np.int32([0, 0])))
    np.testing.assert_array_equal(found, [0, 0])


def twin(values: list[float], num_bins: int, most: int) -> tuple[list[float], list[list[float]], list[list[float]]]:
    """Fitting as the reference page tells it, step by step."""
    values = sorted(values)
    frequency = collections.Counter(values)
    own = {x for x in frequency if frequency[x] > len(values) / num_bins}
    edges = [values[0] - 1 if values[0] in own else values[0], *own]
    r = [x for x in values if x not in own]
    m, cur = len(r), 0
    for k in range(num_bins - len(own), 0, -1):
        end = cur + (m - cur) // k
        while end < m - 1 and r[end] == r[cur]:
            end += 1
        edges.append(r[end] if end < m else r[m - 1])
        cur = end
    edges.sort()
    inside: list[list[float]] = [[] for _ in range(num_bins)]
    for x in values:
        inside[min(max(int(np.digitize(x, edges, right=True)) - 1, 0), num_bins - 1)].append(x)
    kept = [collections.Counter(x).most_common(most) for x in inside]
    chances = [[count / sum(c for _, c in items) for _, count in items] for items in kept]
    return edges, [[value for value, _ in items] for items in kept], chances


sample = st.one_of(st.lists(st.integers(-5, 40), min_size=1, max_size=200),
                   st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=100),
                   st.lists(st.sampled_from([0.0, 0.01, 0.02, 5.0]), min_size=1, max_size=60))


@settings(deadline=None, max_examples=300)
@given(sample, st.integers(2, 12), st.sampled_from([100, 3]))
def test_fitting_follows_the_page(values: list[float], num_bins: int, most: int) -> None:
    if all(count > len(values) / num_bins for count in collections.Counter(values).values()):
        with pytest.raises(ValueError, match="distinct values have an edge of their own"):
            bins.fit(np.array(values), num_bins, most)
        return
    got = bins.fit(np.array(values), num_bins, most)
    edges, kept, chances = twin(values, num_bins, most)
    np.testing.assert_array_equal(got.edges, edges)
    for i in range(num_bins):
        np.testing.assert_array_equal(got.values[i], kept[i])
        np.testing.assert_allclose(got.probabilities[i], chances[i], rtol=1e-15)
    again = bins.fit(np.array(values)[::-1], num_bins, most)
    np.testing.assert_array_equal(again.edges, got.edges)
    assert got.edges[0] <= min(values) and max(values) <= got.edges[-1]


@pytest.mark.parametrize(
    ("values", "num_bins", "said"),
    [([1.0, np.nan], 2, "finite numbers, got nan"), ([1.0, np.inf], 2, "finite numbers, got inf"), ([], 2, "none"),
     ([1, 2, 3], 1, "at least 2 bins, got 1"), ([5, 5, 5], 4, "all 1 distinct values"), ([1, 2], 5, "all 2 distinct"),
     ([[1, 2]], 2, "row of numbers"), (["a"], 2, "row of numbers"), ([2**53 + 1, 0, 1], 2, str(2**53 + 1))],
)
def test_what_cannot_be_fitted_is_said(values: list, num_bins: int, said: str) -> None:
    with pytest.raises(ValueError, match=f"^fit: .*{re.escape(said)}"):
        bins.fit(np.array(values), num_bins)


PARTS = {"edges": np.array([0, 1, 2]), "values": (np.array([1]), np.array([2])),
         "probabilities": (np.array([1.0]), np.array([1.0]))}


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [("edges", [0, 2, 1], "rising order"), ("edges", [0], "at least 2 edges"), ("edges", [0, 1, np.nan], "got nan"),
     ("edges", [[0, 1, 2]], r"shape (1, 3)"), ("edges", [0, 1, 2, 3], "of 3 bins, got 2 and 2"),
     ("edges", [0, 1, 2**60], str(2**60)), ("values", ([1],), "of 2 bins, got 1 and 2"),
     ("values", ([1], [np.inf]), "values of bin 1: expected finite numbers, got inf"),
     ("values", ([1], ["x"]), "bin 1"),
     ("values", ([1], [1, 2]), "bin 1 has 2 values and 1 probabilities"),
     ("probabilities", ([1], [0.5]), "got 0.5 in all"),
     ("probabilities", ([1], [1, 0]), "bin 1 has 1 values and 2"), ("probabilities", ([np.nan], [1]), "of bin 0"),
     ("values", ([1], [object()]), "bin 1")],
)
def test_parts_that_do_not_fit_are_refused_by_name(part: str, value: list, said: str) -> None:
    with pytest.raises(ValueError, match=f"^some file: .*{re.escape(said)}"):
        Converter(**{**PARTS, part: value}, where="some file")


def test_negative_probabilities_are_refused() -> None:
    with pytest.raises(ValueError, match=r"bin 0: .* -0.5 at least"):
        drawing([[1, 2]], [[1.5, -0.5]])


def test_a_converter_cannot_be_changed() -> None:
    mine = np.array([0.0, 1, 2])
    converter = plain(mine)
    mine[0] = 7
    assert converter.edges[0] == 0
    with pytest.raises(ValueError, match="read-only"):
        converter.edges[0] = 1


@pytest.mark.parametrize("edge", [2**31 - 1, -(2**31) - 1, 2.0**40])
def test_edges_outside_int32_are_refused(edge: float) -> None:
    with pytest.raises(ValueError, match="inner edges from -2\\*\\*31 to 2\\*\\*31 - 2"):
        bins.index_table(plain(sorted([-(2.0**50), edge, 2.0**50])))


def test_what_no_table_can_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="below 2\\*\\*31 - 1 seconds, got 1e\\+20"):
        bins.time_index_table(plain([0, 1e20, 2e20]))
    with pytest.raises(ValueError, match=r"bin 1: .* got 2147483648.0 to 2147483648.0"):
        bins.draw_table(drawing([[1], [2**31]], [[1], [1]]))
    with pytest.raises(ValueError, match=r"bin 0: .* got -10000000.0 to"):
        bins.time_draw_table(drawing([[-0.01]], [[1]]))


def assert_same(a: Converter, b: Converter) -> None:
    for part in ("edges", "values", "probabilities"):
        chex.assert_trees_all_equal(getattr(a, part), getattr(b, part))


def test_saved_converters_come_back(tmp_path: pathlib.Path) -> None:
    empty = Converter(np.array([0.0, 1, 1]), (np.array([1.0]), np.array([])), (np.array([1.0]), np.array([])))
    for i, converter in enumerate([golden("price-change-ratio"), empty]):
        converter_files.save(tmp_path / f"{i}.npz", converter)
        assert_same(converter_files.load(tmp_path / f"{i}.npz"), converter)


def test_folders_of_either_kind_of_file(tmp_path: pathlib.Path) -> None:
    published = converter_files.read_folder(fixture_folder() / "converters")
    assert tuple(published) == bins.NAMES and len(bins.NAMES) == 13
    for name in bins.NAMES[2:]:
        converter_files.save(tmp_path / f"{name}.npz", published[name])
    with pytest.raises(FileNotFoundError, match=r"converters: price, price-level$"):
        converter_files.read_folder(tmp_path)
    for name in bins.NAMES[:2]:
        (tmp_path / f"{name}.zstd").write_bytes((fixture_folder() / "converters" / f"{name}.zstd").read_bytes())
    for name, converter in converter_files.read_folder(tmp_path).items():
        assert_same(converter, published[name])


def test_broken_saved_files_are_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "x.npz"
    converter_files.save(path, golden("price"))
    whole = path.read_bytes()
    arrays = dict(np.load(path))
    for broken in (b"", b"no zip", whole[:100], whole[:-30], whole[:300] + b"\0" * 50 + whole[350:]):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"x.npz: not a converter saved by marsjax"):
            converter_files.load(path)
    for change in ({"counts": arrays["counts"][:-1]}, {"values": arrays["values"][1:]},
                   {"edges": arrays["edges"][::-1]}, {"counts": -arrays["counts"]}, {"edges": np.array([object()])},
                   {"values": arrays["values"][:, None]}, {"values": np.float64(3)}, {"counts": arrays["counts"][:0]}):
        np.savez(path, **{**arrays, **change})
        with pytest.raises(ValueError, match=r"x.npz: "):
            converter_files.load(path)


class BinConverter:
    """What the pickles of the reference are named after."""


BinConverter.__module__, BinConverter.__qualname__ = converter_files._CLASS


def pickled(fields: dict) -> bytes:
    """A published file, written without the class being there to import."""
    body = pickle.dumps(fields, 4)[2:]
    names = b"".join(b"\x8c" + bytes([len(x)]) + x.encode() for x in converter_files._CLASS)
    header = b"\x80\x04" + names + b"\x93)\x81"
    frame = body[:1] == b"\x95"
    return zstandard.ZstdCompressor().compress(header + (body[9:-1] if frame else body[:-1]) + b"b.")


FIELDS = {"num_bins": 2, "bins": np.array([0, 1, 2]), "bin_values": [np.array([1]), np.array([2])],
          "bin_probs": [np.array([1.0]), np.array([1.0])]}


@pytest.mark.parametrize(
    ("change", "said"),
    [({"num_bins": 3}, "num_bins is 3, not 2"), ({"bins": [0, 1, 2]}, "bins: expected NumPy arrays"),
     ({"bin_values": [[1], [2]]}, "bin_values: expected"), ({"bin_probs": np.ones((2, 1))}, "bin_probs: expected"),
     ({"more": 1}, "expected a BinConverter with bin_probs, bin_values, bins, num_bins"),
     ({"bins": np.array([2, 1, 0])}, "rising order"), ({3: 4}, "expected a BinConverter")],
)
def test_published_files_are_checked(change: dict, said: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "price.zstd"
    path.write_bytes(pickled(FIELDS))
    assert converter_files.read_zstd(path).num_bins == 2
    path.write_bytes(pickled({**FIELDS, **change}))
    with pytest.raises(ValueError, match=rf"price.zstd: .*{re.escape(said)}"):
        converter_files.read_zstd(path)


def test_other_data_than_a_converter_is_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "price.zstd"
    path.write_bytes(zstandard.ZstdCompressor().compress(pickle.dumps([1, 2])))
    with pytest.raises(ValueError, match=r"price.zstd: expected a BinConverter"):
        converter_files.read_zstd(path)


PROGRAM = """
import json, sys
import jax, numpy as np
from marsjax.checkpoint import converter_files
from marsjax.core import int64, times
from marsjax.tokens import bins
interval, volume = (converter_files.read_zstd(f"{sys.argv[1]}/{name}.zstd") for name in (
    "order-interval", "lob-volume"))
random = np.random.default_rng(0)
words, ns = random.integers(0, 2**32, 200), random.integers(0, 3 * 10**9, 200)
out = [bins.lookup(bins.index_table(volume), words // 2**10), bins.lookup(bins.index_table(volume), 1234),
       bins.lookup_int64(bins.index_table(volume), int64.from_numpy(words)),
       bins.lookup_time(bins.time_index_table(interval), times.from_ns(ns)),
       bins.draw(bins.draw_table(volume), words % 32, words.astype(np.uint32)),
       *jax.tree.leaves(bins.draw(bins.time_draw_table(interval), words % 16, words.astype(np.uint32))),
       bins.first(bins.draw_table(volume), np.arange(32))]
print(json.dumps([[str(x.dtype), np.asarray(x).tolist()] for x in out]))
"""


def test_the_64_bit_switch_changes_nothing() -> None:
    outputs = []
    for switch in ("0", "1"):
        environment = {**os.environ, "JAX_ENABLE_X64": switch, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-c", PROGRAM, str(fixture_folder() / "converters")], env=environment,
                              capture_output=True, text=True, timeout=120, check=True)
        outputs.append(json.loads(done.stdout.splitlines()[-1]))
    assert outputs[0] == outputs[1]
    assert {dtype for dtype, _ in outputs[0]} == {"int32"}
