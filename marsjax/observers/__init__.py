"""What is kept of a rollout while it runs: pure functions fed with every order and what it did.

  `Observer`: the members that an observer must have: `begin`, `update`, `end`. Start here for one of your own.
  `Bars`, `MinuteBarObserver`: minute bars, added up on the device; every rollout keeps them.
  `Log`, `TraceObserver`: every order of a stretch of steps, until the host takes it.
  `trace_tables`: a trace as tables of orders and trades.
"""

from marsjax.observers import trace_tables
from marsjax.observers.bars import Bars, MinuteBarObserver
from marsjax.observers.base import Observer
from marsjax.observers.trace import Log, TraceObserver

__all__ = ["Bars", "Log", "MinuteBarObserver", "Observer", "TraceObserver", "trace_tables"]
