"""Whole financial markets as arrays: order books, agents and an order model in one jitted step."""

__version__ = "0.1.0"
