"""From what a market did to tables and figures."""
