"""The benchmark of books: every way to run it does the same to them."""

import dataclasses

import pytest

from marsjax import testing
from marsjax.core import kernels
from marsjax.core.errors import InputError
from marsjax.studies import benchmark_book
from marsjax.studies.benchmark_book import BookBenchmark

TIMES = ("orders_per_s", "us_per_step", "spread", "compile_s")


@pytest.mark.parametrize("changed", [{"together": True}, {"exchange": "interpreted", "together": True}, {"unroll": 2}],
                         ids=["together", "kernel", "unrolled"])
def test_facts_do_not_depend_on_the_way(changed: dict[str, object]) -> None:
    stream = testing.random_orders(10**12, 40)
    stream = dataclasses.replace(stream, order_id=(stream.order_id * 0 + range(40)).astype("int32"))
    plain, other = (benchmark_book.measure(stream, 2, 32, spec) for spec in (
        BookBenchmark(repeats=1), dataclasses.replace(BookBenchmark(repeats=1), **changed)))  # type: ignore[arg-type]
    assert plain["books_agree"] and plain["accepted"] == 40 and plain["fills_and_cancels"] > 3
    assert {k: v for k, v in plain.items() if k not in TIMES} == {k: v for k, v in other.items() if k not in TIMES}


def test_a_way_that_is_unknown_or_needs_another_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "has_triton", lambda: False)
    with pytest.raises(InputError, match="expected another way than kernel, which this device cannot run"):
        benchmark_book.ways_of("kernel")
    with pytest.raises(InputError, match=r"Kernels\.book: expected xla or kernel or interpreted, got 'fast'"):
        benchmark_book.ways_of("fast")
