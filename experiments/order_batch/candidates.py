r"""Candidates for held-out minutes beside these minutes: how far they reach, and whether the nearest one is near.

    python experiments/order_batch/candidates.py runs/train_control/checkpoint \
        --config=configs/train_control.py:sse,folder=data/sse
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np
from measure import real

from marsjax.checkpoint import order_batch
from marsjax.experiments import config as configs
from marsjax.model.order_batch.proposals import OrderBatches
from marsjax.model.order_batch.readout import READ
from marsjax.training.order_batch.data import Minutes

COUNT = 32
SHOWN = ("move_ticks", "volatility_ticks", "volume", "imbalance", "orders")


def compared(whole: OrderBatches, held: tuple[Minutes, ...]) -> dict[str, dict[str, list[float]]]:
    """By day: mean and standard deviation of what minutes did, of what their codes tell, and of candidates for them.

    Candidates are drawn from the minutes before, of the part held out; `nearest` is the root mean square of how far
    the minute's own move is from that of the nearest of `COUNT` candidates, and from 0, ticks.
    """
    found: dict[str, dict[str, list[float]]] = {}
    keep = whole.model.spec.batches
    propose = jax.jit(lambda images, known, key: whole.propose(images, known, key, COUNT).read)
    for run in held:
        padded = np.concatenate([np.zeros((keep, *run.images.shape[1:]), np.uint8), run.images])
        history = np.stack([padded[i : i + keep] for i in range(len(run.images))])
        keys = jax.random.split(jax.random.key(0), len(history))
        drawn = np.asarray(propose(history, np.minimum(np.arange(len(history)), keep), keys))
        told = np.asarray(whole.readout(whole.tokenizer.decode(whole.tokenizer.encode(run.images))))
        rows: dict[str, list[float]] = {}
        for name in SHOWN:
            at = READ.index(name)
            rows[name] = [float(f(x[..., at])) for x in (run.read, told, drawn) for f in (np.nanmean, np.nanstd)]
        move = run.read[:, 0]
        away = np.abs(drawn[..., 0] - move[:, None]).min(axis=1)
        rows["nearest"] = [float(np.sqrt(np.nanmean(x**2))) for x in (away, move)]
        found[run.source] = {name: [round(value, 2) for value in row] for name, row in rows.items()}
    return found


def main() -> None:
    """Reads the command line."""
    whole, _ = order_batch.load(sys.argv[1])
    path, _, argument = sys.argv[2].removeprefix("--config=").partition(":")
    print(json.dumps(compared(whole, real(configs.load(Path(path), argument)).held_out), indent=2))


if __name__ == "__main__":
    main()
