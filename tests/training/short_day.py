"""A few minutes of noise to train on, small enough for every test that replays."""

import gzip
import pathlib

from marsjax.core.sessions import continuous_session
from marsjax.core.specs import MarketSpec, TokenSpec
from marsjax.core.times import SECOND_NS
from tests.helpers import fixture_folder

ROWS = 1200
"""Orders, from 9:30:00 to 9:34:30."""
TOKENS = TokenSpec(8, 6, 4)
MARKET = MarketSpec(capacity=256, trade_width=1, accounts=16, session=continuous_session(0, 86_399 * SECOND_NS))
"""As configs/train.py has it for a CSV: one compiled replay serves all tests."""


def write(folder: pathlib.Path) -> pathlib.Path:
    """A CSV of orders in a folder; its name is the day's."""
    lines = gzip.decompress((fixture_folder() / "book_noise_orders.csv.gz").read_bytes()).splitlines(keepends=True)
    path = folder / "noise_1.csv"
    path.write_bytes(b"".join(lines[: ROWS + 1]))
    return path
