"""The rows that a rollout has ready after each of its chunks: each row of a table once, whole when it comes."""

import numpy as np

from marsjax.core.specs import MarketSpec
from marsjax.observers import market_tables, trace_tables
from marsjax.observers.market_tables import INTEGER, Table
from marsjax.observers.trace import Log
from marsjax.sim.result import SoFar
from marsjax.sim.state import End
from marsjax.studies import forecasts
from marsjax.studies.session_times import MINUTE_NS

_UNSETTLED = "status"
"""Of a minute: why its trajectory ended, which is not known yet."""


class ReadyRows:
    """Rows of B trajectories from one start; `rows` says of which table, one of `wanted.ROWS`.

    `labels`: `forecasts.label_table`, a row when its trajectory has ended. `minutes`: `forecasts.minute_table` without
    the status, a row when its minute is over. `orders`: `Rollout.orders`, as they come (`add_log`). Prices and volumes
    are integers, whose units are in columns.
    """

    def __init__(self, rows: str, market: MarketSpec, start_ns: int, trajectories: int, minutes: int) -> None:
        self._rows, self._market, self._start_ns = rows, market, start_ns
        self._sent = np.zeros((trajectories, minutes if rows == "minutes" else 1), bool)
        self._logs: list[Table] = []

    def add_log(self, numbers: np.ndarray, log: Log) -> None:
        """The events of a chunk, `sim.rollout.Hooks.on_trace`."""
        table = trace_tables.shown(trace_tables.orders(log, numbers))
        self._logs.append(market_tables.presented(self._market, table, INTEGER))

    def ready(self, found: SoFar) -> Table:
        """The rows that were not ready before; may be none."""
        if self._rows == "orders":
            logs, self._logs = self._logs, []
            return {name: np.ma.concatenate([log[name] for log in logs]) for name in logs[0]} if logs else {}
        if self._rows == "labels":
            labels = forecasts.labels_so_far(found)
            table = forecasts.label_table(found, labels, self._market, self._start_ns)
            is_ready = found.end != End.RUNNING
            at = table["trajectory"].to_numpy(), np.zeros(len(table), np.int64)
        else:
            table = forecasts.minute_table(found, self._market, self._start_ns, INTEGER).drop(columns=_UNSETTLED)
            at = table["trajectory"].to_numpy(), table["minute"].to_numpy() - 1
            # What comes at a minute's very end is still of that minute.
            is_ready = (found.end[at[0]] != End.RUNNING) | ((at[1] + 1) * MINUTE_NS < found.passed_ns[at[0]])
        fresh = is_ready & ~self._sent[at]
        self._sent[at[0][fresh], at[1][fresh]] = True
        columns = table[fresh]
        return {str(name): columns[name].to_numpy() for name in columns} if fresh.any() else {}
