"""Images of the minutes before -> candidates for the next minute."""

import dataclasses
from typing import NamedTuple

import jax

from marsjax.core.errors import InputError
from marsjax.core.records import Array
from marsjax.model.order_batch.batch_model import BatchModel
from marsjax.model.order_batch.readout import Readout
from marsjax.model.order_batch.tokenizer import Tokenizer


class Proposed(NamedTuple):
    """N candidates for the next minute of each of B trajectories."""

    codes: Array
    """int32 [B, N, C]."""
    images: Array
    """float32 [B, N, 3, 2 V, P], the mean counts that the codes stand for."""
    read: Array
    """float32 [B, N, len(READ)], what such a minute would do (`readout.READ`)."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class OrderBatches:
    """The parts of an order-batch model, which fit one another. A pytree."""

    tokenizer: Tokenizer
    model: BatchModel
    readout: Readout

    def check(self) -> None:
        """InputError where one part's codes are not those of the other."""
        mine, theirs = self.tokenizer.spec, self.model.spec
        if (mine.places, mine.codes) != (theirs.places, theirs.codes):
            raise InputError(f"order batches: expected a batch model of the tokenizer's {mine.places} places and "
                             f"{mine.codes} codes, got {theirs.places} and {theirs.codes}")

    def propose(self, images: Array, known: Array, key: Array, count: int, temperature: float = 1.0) -> Proposed:
        """Candidates.

        Args:
          images: of the K minutes before, uint8 [B, K, 3, 2 V, P], oldest first (`OrderImageObserver.last`).
          known: int32 [B], how many of them are known, the last ones.
          key: a typed key for each trajectory, [B].
          count: N.
          temperature: of the draws.
        """
        codes = self.model.sample(self.tokenizer.encode(images), known, key, count, temperature)
        decoded = self.tokenizer.decode(codes)
        return Proposed(codes, decoded, self.readout(decoded))
