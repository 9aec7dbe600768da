"""How good the parts of an order-batch model are, beside what needs no model."""

from collections.abc import Sequence

import numpy as np

from marsjax.model.order_batch.batch_model import BatchModel
from marsjax.model.order_batch.tokenizer import Tokenizer
from marsjax.training.order_batch import batches, codebook, data, reading
from marsjax.training.order_batch.batches import BatchWindows
from marsjax.training.order_batch.data import Minutes

CHANNEL_NAMES = ("sells", "buys", "cancels")
_SHARES = np.concatenate([[0.0], np.geomspace(1e-3, 0.9, 60)])
"""Chances of a code to be that of the minute before; codes repeat seldom, so small ones lie close together."""


def of_tokenizer(model: Tokenizer, training: Sequence[Minutes], held: Sequence[Minutes]) -> dict[str, float]:
    """Use of the code book on minutes that were held out, and what their images lose.

    `codes_used` is a share, `perplexity` a number of codes. `nats_*` is half the Poisson deviance of an image by
    channel, `mean_image_nats_*` that of the mean image of the training part; `error_*` is the mean squared error of
    log(1 + count) of a pixel, beside that of an image of zeros and of the mean image.
    """
    images, learnt = data.images(held), data.images(training)
    mean, log_mean = learnt.mean(axis=0, dtype=np.float64), _log(learnt).mean(axis=0)
    codes = np.concatenate(batches.encoded(model, held))
    share = np.bincount(codes.reshape(-1), minlength=model.spec.codes) / codes.size
    found = {"codes_used": float((share > 0).mean()),
             "perplexity": float(np.exp(-np.sum(share * np.log(np.maximum(share, 1e-12)))))}
    costs = codebook.nats(model, images)
    flat = np.asarray(codebook.poisson(images, np.log(mean + 1e-6)), np.float64).sum(axis=(2, 3)).mean(axis=0)
    exact, told = _log(images), _log(reading.decoded(model, images))
    for place, name in enumerate(CHANNEL_NAMES):
        found |= {f"nats_{name}": float(costs[place]), f"mean_image_nats_{name}": float(flat[place])}
        for kind, other in (("error", told), ("mean_image_error", log_mean[None]), ("zero_error", np.zeros(1))):
            wrong = (exact[:, place] - (other[:, place] if other.ndim > 1 else 0)) ** 2
            found[f"{kind}_{name}"] = float(wrong.mean())
    return found


def of_batches(model: BatchModel, training: BatchWindows, validation: BatchWindows, held: BatchWindows
               ) -> dict[str, float]:
    """Nats a code of the minutes held out: of the model, and of what needs none.

    `by_place`: frequencies of codes by their place, in the training part. `last_repeated`: with some chance the code
    that the minute before has in this place, else by place; the chance is that which suits the validation part.
    """
    size = model.spec.codes
    own = np.full((model.spec.places, size), 0.5)
    last = training.codes[np.arange(len(training.codes)), training.lengths - 1]
    for place in range(model.spec.places):
        own[place] += np.bincount(last[:, place], minlength=size)
    own /= own.sum(axis=1, keepdims=True)

    def by_place(of: BatchWindows) -> np.ndarray:
        return own[np.arange(model.spec.places), of.codes[np.arange(len(of.codes)), of.lengths - 1]]

    def repeated(of: BatchWindows, share: float) -> float:
        rows = np.arange(len(of.codes))
        is_same = of.codes[rows, of.lengths - 1] == of.codes[rows, np.maximum(of.lengths - 2, 0)]
        mixed = np.where((of.lengths > 1)[:, None], share * is_same + (1 - share) * by_place(of), by_place(of))
        return float(-np.log(mixed).mean())

    chosen = min(_SHARES, key=lambda share: repeated(validation, share))
    return {"model": float(batches.nats(model, held).mean()), "by_place": float(-np.log(by_place(held)).mean()),
            "last_repeated": repeated(held, chosen), "even": float(np.log(size)), "share_repeated": float(chosen)}


def _log(counts: np.ndarray) -> np.ndarray:
    """log(1 + count), float32: of counts in bytes NumPy's own choice would be float16."""
    return np.log1p(counts, dtype=np.float32)
