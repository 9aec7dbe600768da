"""Splits of days by time, and the windows that they are evaluated on."""

import numpy as np
import pytest

from marsjax.core.times import SECOND_NS
from marsjax.training.days import DayTokens
from marsjax.training.split import Span, split, windows


def day(count: int, name: str = "600000_20230101") -> DayTokens:
    """One order a second from 0:00:00, its number in column 0."""
    features = np.zeros((count, 15), np.int32)
    features[:, 0] = np.arange(count)
    return DayTokens(name, features, np.arange(count, dtype=np.int64) * SECOND_NS)


def test_parts_of_a_day_follow_each_other() -> None:
    found = split([day(100)], [day(30, "b")], 60 * SECOND_NS, 80 * SECOND_NS, length=16)
    assert [x[-1, 0] for x in found.training] == [59]
    assert [x[-1, 0] for x in found.refit] == [79]
    assert [(x.first, x.last) for x in found.validation + found.held_out] == [(60, 80), (80, 100)]
    assert [(x.name, x.first, x.last, x.count) for x in found.held_out_symbols] == [("b", 1, 30, 29)]


@pytest.mark.parametrize(
    ("count", "validation", "held", "length", "expected"),
    [(100, 60, 80, 60, r"600000_20230101: 60 orders before 00:01:00 are too few to train on; .* a window's 60"),
     (75, 60, 80, 16, "600000_20230101: no orders in the held-out part, which begins at 00:01:20"),
     (100, 99.2, 99.8, 16, "600000_20230101: no orders in the validation part, which begins at 00:01:39"),
     (100, 80, 60, 16, "validation to begin before the held-out part, got 00:01:20 and 00:01:00")],
)
def test_a_part_without_orders_is_named(count: int, validation: float, held: float, length: int, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        split([day(count)], [], int(validation * SECOND_NS), int(held * SECOND_NS), length)


@pytest.mark.parametrize(("first", "last", "stride"), [(40, 100, 8), (1, 30, 16), (3, 4, 1), (90, 97, 5)])
def test_windows_score_every_order_once_with_its_own_past(first: int, last: int, stride: int) -> None:
    whole = day(100)
    found = windows([Span("a", whole.features, first, last), Span("b", whole.features, 50, 60)], 16, stride)
    given, label = found.features[:, :-1, 0], found.features[:, 1:, 0]
    assert label[found.scored].tolist() == [*range(first, last), *range(50, 60)]
    assert (given[found.scored] == label[found.scored] - 1).all()
    context = np.broadcast_to(np.arange(16), found.scored.shape)[found.scored] + 1
    assert (context >= np.minimum(label[found.scored], 16 - stride)).all()


def test_a_stride_longer_than_a_window_would_leave_orders_out() -> None:
    with pytest.raises(ValueError, match="a stride of 1 to length=16, got 17"):
        windows([Span("a", day(100).features, 1, 99)], 16, 17)
