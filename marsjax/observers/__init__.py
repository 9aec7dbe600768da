"""What is kept of a rollout while it runs: pure functions fed with every order and what it did.

  `Observer`: the members that an observer must have: `begin`, `update`, `end`. Start here for one of your own.
  `Bars`, `MinuteBarObserver`: minute bars, added up on the device; every rollout keeps them.
  `Features`, `FeatureObserver`: what an interval of a trajectory did, in eight numbers (`features`).
  `Log`, `TraceObserver`: every order of a stretch of steps, until the host takes it.
  `OrderImages`, `OrderImageObserver`: the orders of each interval as an image of counts.
  `market_tables`: orders and what came of them as tables of one form; `trace_tables`: those of a trace.
"""

from marsjax.observers import market_tables, trace_tables
from marsjax.observers.bars import Bars, MinuteBarObserver
from marsjax.observers.base import Observer
from marsjax.observers.features import FeatureObserver, Features
from marsjax.observers.order_images import OrderImageObserver, OrderImages
from marsjax.observers.trace import Log, TraceObserver

__all__ = ["Bars", "FeatureObserver", "Features", "Log", "MinuteBarObserver", "Observer", "OrderImageObserver",
           "OrderImages", "TraceObserver",
           "market_tables", "trace_tables"]
