"""What images of minutes tell, by the mids that the prices of orders are counted from.

    python experiments/order_batch/measure.py --config=configs/train_control.py:sse,folder=data/sse
"""

import json
import sys
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from marsjax.experiments import config as configs
from marsjax.experiments import markets, train_control
from marsjax.model.order_batch import readout
from marsjax.model.order_batch.readout import READ
from marsjax.studies import order_batch_data
from marsjax.studies.futures import ACCOUNT
from marsjax.training.order_batch import data, reading
from marsjax.training.order_batch.data import BatchData, Minutes


def real(config: ConfigDict) -> BatchData:
    """The minutes of the days that a config names."""
    training = train_control.training_of(config)
    feeds = markets.open_feeds(config)
    parts, _ = order_batch_data.day_parts(markets.one_market(config, feeds, ACCOUNT + 1), feeds)
    early = [data.until(part.seen, training.held_from_ns) for part in parts]
    images = training.sizes.images(data.fitted_edges(early, training.sizes.volume_slots))
    return data.split(images, parts, training.validation_from_ns, training.held_from_ns, training.phases)


def halves(found: BatchData) -> dict[str, dict[str, float]]:
    """Shares of variance explained in the minutes held out, by halves of the rows of whole images."""
    rows = found.training[0].images.shape[2] // 2
    of = {"mid before each order": slice(0, rows), "mid at the beginning": slice(rows, None), "both": slice(None)}
    return {name: explained(found, part) for name, part in of.items()}


def explained(found: BatchData, rows: slice) -> dict[str, float]:
    """Of a ridge regression on some rows, each value with the ridge that suits the validation part."""
    (x, y), (x_v, y_v), (x_h, y_h) = (table(runs, rows) for runs in found)
    mean, scale, centre, spread = x.mean(axis=0), x.std(axis=0) + 1e-3, y.mean(axis=0), y.std(axis=0)
    unit, target = (x - mean) / scale, (y - centre) / spread
    gram, product = unit.T @ unit / len(x), unit.T @ target / len(x)
    maps = np.stack([np.linalg.solve(gram + ridge * np.eye(len(gram)), product) for ridge in reading.RIDGES])
    best = ((((x_v - mean) / scale) @ maps - (y_v - centre) / spread) ** 2).mean(axis=1).argmin(axis=0)
    told = ((x_h - mean) / scale) @ maps[best, :, np.arange(len(READ))].T * spread + centre
    share = 1 - ((told - y_h) ** 2).sum(axis=0) / ((y_h - y_h.mean(axis=0)) ** 2).sum(axis=0)
    return dict(zip(READ, share.round(3).tolist(), strict=True))


def table(runs: tuple[Minutes, ...], rows: slice) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and outputs of minutes with orders."""
    read = np.concatenate([run.read for run in runs])
    known = np.isfinite(read).all(axis=1)
    inputs = readout.inputs(data.images(runs)[known][:, :, rows])
    return np.asarray(inputs, np.float64), np.asarray(readout.to_linear(read[known]), np.float64)


def main() -> None:
    """Reads the command line."""
    path, _, argument = sys.argv[1].removeprefix("--config=").partition(":")
    print(json.dumps(halves(real(configs.load(Path(path), argument))), indent=2))


if __name__ == "__main__":
    main()
