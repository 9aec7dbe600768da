"""Tokens of the golden order streams: every feature equal, and the number of tokens after every order."""

import functools
from pathlib import Path

import jax
import numpy as np
import pytest

from marsjax.checkpoint import converter_files
from marsjax.core.records import Market, Order, Report, Status
from marsjax.core.sessions import continuous_session
from marsjax.core.specs import MarketSpec, TokenSpec
from marsjax.core.times import DAY_NS
from marsjax.market import book, exchange
from marsjax.tokens import encoding
from tests.helpers import golden_folder, read_columns, read_orders

MARKET = MarketSpec(capacity=2048, trade_width=64, accounts=16, session=continuous_session(0, DAY_NS - 1))
STREAMS = sorted(golden_folder().glob("features_*_orders.csv.gz"))


def test_the_golden_folder_has_token_streams() -> None:
    assert STREAMS, f"no features_*_orders.csv.gz in {golden_folder()}"


@functools.partial(jax.jit, static_argnums=0)
def run(spec: MarketSpec, table: encoding.TokenTables, stream: Order) -> tuple[Report, encoding.Encoded]:
    def one(carry: tuple[Market, encoding.TokenState], order: Order
            ) -> tuple[tuple[Market, encoding.TokenState], tuple[Report, encoding.Encoded]]:
        market, state = carry
        before = book.view(spec, market.book)
        market, report = exchange.submit(spec, market, order)
        after = book.view(spec, market.book)
        state, encoded = encoding.encode(spec, table, state, order, report.trades, before, after,
                                       report.status == Status.ACCEPTED)
        return (market, state), (report, encoded)

    return jax.lax.scan(one, (exchange.open_market(spec), encoding.start()), stream)[1]


@pytest.mark.parametrize("path", STREAMS, ids=[path.name.split("_orders")[0] for path in STREAMS])
def test_every_token_equals_the_reference(path: Path) -> None:
    folder = golden_folder() / ("converters_small" if "small" in path.name else "converters")
    converters = converter_files.read_folder(folder)
    spec = TokenSpec(*(converters[name].num_bins for name in ("price-level", "order-volume", "order-interval")))
    report, encoded = run(MARKET, encoding.tables(spec, converters), read_orders(path))
    assert (np.asarray(report.status) == Status.ACCEPTED).all()
    made, after = encoding.collect(encoded)
    np.testing.assert_array_equal(after, read_columns(path)["num_tokens_after"])
    expected = np.load(path.with_name(path.name.replace("_orders.csv.gz", "_expected.npy")))
    np.testing.assert_array_equal(encoding.to_array(spec, made), expected)
