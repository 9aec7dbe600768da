"""The benchmark of books: every way to run it does the same to them."""

import dataclasses

import pytest

from marsjax import testing
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


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(InputError, match=r"Kernels\.book: expected xla or kernel or interpreted, got 'fast'"):
        benchmark_book.ways_of("fast")
