"""Orders and what they did <-> the tokens that the order model reads, and the bins of their quantities.

  `bins`: fit bins, find a value's bin, draw a value from a bin.
  `encoding`: an order and the views around it -> its token; a sampled token -> the order that it stands for.
  `Converter`: the bins of one quantity, on the host.
  `TokenTables`, `tables`: what to encode with, made from converters.
  `DrawTables`, `draw_tables`: what to draw a sampled token's values from.
  `TokenState`: what the token of the next order depends on.
  `Encoded`: the token of one order.
  `SampledOrder`: an order that a sampled token stands for.
"""

from marsjax.tokens import bins, encoding
from marsjax.tokens.bins import Converter
from marsjax.tokens.encoding import (
    DrawTables,
    Encoded,
    SampledOrder,
    TokenState,
    TokenTables,
    draw_tables,
    tables,
)

__all__ = [
    "Converter", "DrawTables", "Encoded", "SampledOrder", "TokenState", "TokenTables", "bins", "draw_tables",
    "encoding", "tables",
]  # fmt: skip
