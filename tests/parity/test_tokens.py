"""Tokens of the golden order streams: every feature equal, and the number of tokens after every order."""

import functools
from pathlib import Path

import jax
import numpy as np
import pytest

from marsjax import bins, book, exchange, tokens
from marsjax.specs import DAY_NS, MarketSpec, TokenSpec, continuous_session
from marsjax.types import Market, Order, Report, Status
from tests.helpers import golden_folder, read_columns, read_orders

MARKET = MarketSpec(capacity=2048, trade_width=64, owners=16, session=continuous_session(0, DAY_NS - 1))
STREAMS = sorted(golden_folder().glob("features_*_orders.csv.gz"))


def test_the_golden_folder_has_token_streams() -> None:
    assert STREAMS, f"no features_*_orders.csv.gz in {golden_folder()}"


@functools.partial(jax.jit, static_argnums=0)
def run(spec: MarketSpec, table: tokens.TokenTables, stream: Order) -> tuple[Report, tokens.Encoded]:
    def one(carry: tuple[Market, tokens.TokenState], order: Order
            ) -> tuple[tuple[Market, tokens.TokenState], tuple[Report, tokens.Encoded]]:
        market, state = carry
        before = book.view(spec, market.book)
        market, report = exchange.submit(spec, market, order)
        after = book.view(spec, market.book)
        state, encoded = tokens.encode(spec, table, state, order, report.trades, before, after,
                                       report.status == Status.ACCEPTED)
        return (market, state), (report, encoded)

    return jax.lax.scan(one, (exchange.open_market(spec), tokens.start()), stream)[1]


@pytest.mark.parametrize("path", STREAMS, ids=[path.name.split("_orders")[0] for path in STREAMS])
def test_every_token_equals_the_reference(path: Path) -> None:
    folder = golden_folder() / ("converters_small" if "small" in path.name else "converters")
    converters = bins.read_folder(folder)
    spec = TokenSpec(*(converters[name].num_bins for name in ("price-level", "order-volume", "order-interval")))
    report, encoded = run(MARKET, tokens.tables(spec, converters), read_orders(path))
    assert (np.asarray(report.status) == Status.ACCEPTED).all()
    made, after = tokens.collect(encoded)
    np.testing.assert_array_equal(after, read_columns(path)["num_tokens_after"])
    expected = np.load(path.with_name(path.name.replace("_orders.csv.gz", "_expected.npy")))
    np.testing.assert_array_equal(tokens.to_array(spec, made), expected)
