"""Studies of many states (symbols x times) as independent jobs: on Ray's workers, as plain processes, or one by one.

A state is a day of a feed and a time of it. What is made of one depends on the state alone: its draws are keyed by its
number, so no result depends on the process, the batch or the order in which it was made. Each state is one Parquet
file, written whole; a state whose file is there is done, however the fleet that made it ended. The public names are
modules, each imported when it is first used.
What there is to do:
  `states`: states by day and time, their numbers, the parts of several processes, and jobs of some states.
  `work`: what is made of states, by the import path of a function.
  `ledger`: the folder of results: what is done, and of what it is.
Who does it:
  `alone`: this process.
  `actors`: workers of a Ray cluster, one for each GPU or for some processor cores.
  `tally`: what came of it so far, with a bar of progress.
What is made of a state:
  `reached`: the states of a job, in one pass over their day.
  `forecasting`: futures, and what really came.
  `executing`: the same futures with and without an execution.
  `comparing`: the orders of futures beside those of the real minutes.
And afterwards:
  `results`: all states as one table that is read when it is needed, and summaries.
"""

import importlib
from types import ModuleType

__all__ = ["actors", "alone", "comparing", "executing", "forecasting", "ledger", "reached", "results",
           "states", "tally", "work"]


def __getattr__(name: str) -> ModuleType:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
