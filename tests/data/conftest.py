"""Where the real data and the golden files are, and one way to lay chunks end to end."""

import os
from pathlib import Path

import jax
import numpy as np
import pytest

from marsjax.data.feed import FeedChunk

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def data_folder() -> Path:
    folder = ROOT / os.environ.get("MARSJAX_DATA", "../shared/data")
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder} (set MARSJAX_DATA)")
    return folder


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    return ROOT / os.environ.get("MARSJAX_GOLDEN", "tests/fixtures/golden")


@pytest.fixture(scope="session")
def end_to_end():
    def join(chunks: list[FeedChunk]) -> dict[str, np.ndarray]:
        """All columns of a feed, whole: orders, fills and sequence."""
        def columns(chunk: FeedChunk) -> dict[str, np.ndarray]:
            order = chunk.orders
            names = ("kind", "price", "volume", "order_id", "cancel_side", "cancel_id", "account")
            return {"time.s": order.time.s, "time.ns": order.time.ns, "sequence": chunk.sequence,
                    **{name: getattr(order, name) for name in names},
                    **{f"fills.{name}": column for name, column in vars(chunk.fills).items()}}

        return jax.tree.map(lambda *parts: np.concatenate(parts), *(columns(chunk) for chunk in chunks))

    return join
