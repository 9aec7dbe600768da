"""From replayed days to an order model: days -> token windows -> loss -> optimizer."""
