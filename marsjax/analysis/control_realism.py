"""What control costs in realism: how alike controlled and uncontrolled futures of one start are, by quantity.

Similarity is 1 - total variation over bins of the uncontrolled futures' own quantiles (`analysis.realism`). It is to be
read beside its ceiling, what as many futures drawn from the uncontrolled ones would get: few futures make any two
samples differ. Those that are drawn are independent of one another, where controlled futures share ancestors, and so
have fewer different minutes than their number says: a part of what they fall short of the ceiling is that alone. A
target is a difference that was asked for: its own quantity is left out of no table, but it says nothing of the cost.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from marsjax.analysis import realism
from marsjax.analysis.realism import Sample

RESAMPLES = 200
Values = Mapping[str, Sequence[np.ndarray]]
"""Of each quantity the values of each future, float [n] each; NaN ones are none."""


def table(uncontrolled: Values, controlled: Values, seed: int = 0, resamples: int = RESAMPLES) -> pd.DataFrame:
    """A row a quantity that both have: similarity, ceiling with its low and high end, and `less`, by how much it falls.

    The ceiling is of independent futures; controlled ones that share ancestors are below it for that alone.

    Args:
      uncontrolled: of some futures.
      controlled: of others, of the same start.
      seed: of the draws for the ceiling.
      resamples: such draws.

    A quantity without values in one of them, or with one value alone, has NaN and the reason in `said`.

    Examples:
      >>> rng = np.random.default_rng(0)
      >>> one = {"spread": [rng.normal(size=50) for _ in range(20)]}
      >>> table(one, one)["similarity"].tolist()
      [1.0]
    """
    rows = [{"quantity": name} | _row(uncontrolled[name], controlled[name], seed, resamples)
            for name in uncontrolled if name in controlled]
    columns = ["quantity", "similarity", "ceiling", "ceiling_low", "ceiling_high", "less", "said"]
    return pd.DataFrame(rows, columns=columns)


def _row(first: Sequence[np.ndarray], second: Sequence[np.ndarray], seed: int, resamples: int) -> dict[str, Any]:
    own, other = _sample(first), _sample(second)
    said = realism.too_few("uncontrolled", own) or ("" if other else "too few: controlled has no values")
    if own is None or other is None or said:
        return dict.fromkeys(("similarity", "ceiling", "ceiling_low", "ceiling_high", "less"), np.nan) | {"said": said}
    edges = realism.quantile_edges(own.values)
    found = realism.similarity(other, own, edges)
    most = realism.similarity_ceiling(own, edges, (other.blocks, own.blocks), seed, resamples)
    return {"similarity": found, "ceiling": most.value, "ceiling_low": most.low, "ceiling_high": most.high,
            "less": most.value - found, "said": ""}


def _sample(parts: Sequence[np.ndarray]) -> Sample | None:
    """None where there is no value."""
    return realism.sample(parts) if any(np.isfinite(part).any() for part in parts) else None


def lines(rows: pd.DataFrame) -> list[str]:
    """The table as text, with the largest fall first."""
    known = rows.dropna(subset=["similarity"]).sort_values("less", ascending=False)
    return [f"  {row.quantity:<14} {row.similarity:.3f}  (ceiling {row.ceiling:.3f} [{row.ceiling_low:.3f}, "
            f"{row.ceiling_high:.3f}])" for row in known.itertuples()]
