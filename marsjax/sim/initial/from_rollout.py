"""Where a trajectory of a rollout can be gone on from."""

from typing import TYPE_CHECKING

import jax
import numpy as np

from marsjax.core.errors import InputError
from marsjax.sim.initial.state import Start
from marsjax.tokens import encoding
from marsjax.tokens.encoding import Encoded

if TYPE_CHECKING:
    from marsjax.sim.result import Rollout


def after_rollout(run: "Rollout", start: Start, trajectory: int) -> Start:
    """The state of a trajectory at its end, as a start: market, last tokens, time.

    Args:
      run: with every event (`TraceObserver`).
      start: that this trajectory began from; of its tokens those that the newer ones leave room for are kept.
      trajectory: from 0 on.

    InputError without a trace, or for a number that it does not have.
    """
    count = len(run.mid_twice_start)
    if not 0 <= trajectory < count:
        raise InputError(f"after_rollout: expected a trajectory of 0 to {count - 1}, got {trajectory}")
    run.trace.start_of(trajectory)  # tells what is missing where nothing was kept
    length, before = start.window.kind.shape[-1], int(start.count)
    ones = np.ones(before, bool)
    parts = [Encoded(jax.tree.map(lambda x: np.asarray(x)[:before], start.window), ones, ~ones)]
    parts += [event.encoded for event in run.trace.events_of(trajectory)]
    window, _ = encoding.collect(jax.tree.map(lambda *x: np.concatenate([np.asarray(each) for each in x]), *parts))
    window = jax.tree.map(lambda x: x[-length:], window)
    kept = len(window.kind)
    padded = jax.tree.map(lambda x: np.pad(x, [(0, length - kept)] + [(0, 0)] * (x.ndim - 1)), window)
    market, token_state, until = jax.tree.map(lambda x: np.asarray(x)[trajectory],
                                              (run.state.market, run.state.token_state, run.state.until))
    return Start(market, token_state, padded, np.array(kept, np.int32), until)
