"""Periods of days for an order-batch model: all minutes of continuous trading, the last one included."""

from pathlib import Path

import pytest

from marsjax.core import times
from marsjax.core.order_images import OrderBatchSpec
from marsjax.data import sources
from marsjax.studies import order_batch_data
from marsjax.training.order_batch import data
from tests.experiments.synthetic_day import write_day

pytestmark = pytest.mark.quick


def test_the_last_minute_before_the_closing_auction_is_held_out_too(tmp_path: Path) -> None:
    """Continuous trading ends a nanosecond before 14:57 in Shanghai, and that nanosecond is in it."""
    write_day(tmp_path, begin_s=14 * 3600 + 50 * 60)
    feeds = sources.open_days("sse", tmp_path)
    market = feeds[0].venue.market(capacity=256, trade_width=1)
    parts, _ = order_batch_data.day_parts(market, feeds)
    assert [str(times.clock(part.end_ns, digits=0)) for part in parts] == ["11:30:00", "14:57:00"]
    found = data.split(OrderBatchSpec(8, volume_edges=(100, 300)), parts, times.of_clock("14:52:00"),
                       times.of_clock("14:54:00"))
    (held,) = found.held_out
    assert len(held.images) == 3 and held.images[-1].any()
