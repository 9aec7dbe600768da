"""Sizes of the order-batch model, frozen and hashable; `OrderBatchSpec`, of the images, is `core.order_images`'s."""

import dataclasses

from marsjax.core import limits
from marsjax.core.errors import InputError
from marsjax.core.order_images import CHANNELS, OrderBatchSpec

__all__ = ["BatchModelSpec", "OrderBatchSpec", "TokenizerSpec"]


@dataclasses.dataclass(frozen=True)
class TokenizerSpec:
    """Sizes of a tokenizer.

    Examples:
      >>> spec = TokenizerSpec()
      >>> spec.places, spec.patch
      (16, 48)
    """

    images: OrderBatchSpec = dataclasses.field(default_factory=OrderBatchSpec)
    compress: int = 4
    """Rows, and columns, of the part of an image that a code stands for."""
    codes: int = 256
    """In the book."""
    code_dim: int = 8
    """Numbers of a code's vector, k."""
    width: int = 64
    """w."""
    blocks: int = 2
    """Between an image and its codes, and between codes and their image."""

    def __post_init__(self) -> None:
        for name, high in (("compress", 64), ("codes", 2**15), ("code_dim", 1024), ("width", 4096), ("blocks", 64)):
            limits.check_whole(f"TokenizerSpec.{name}", getattr(self, name), 1, high)
        _, rows, columns = self.images.shape
        if rows % self.compress or columns % self.compress:
            raise InputError(f"TokenizerSpec.compress: expected a divisor of an image's {rows} rows and {columns} "
                             f"columns, got {self.compress}")

    @property
    def places(self) -> int:
        """C, codes of an image: row by row."""
        return self.images.shape[1] * self.images.shape[2] // self.compress**2

    @property
    def patch(self) -> int:
        """Numbers of the part of an image that a code stands for."""
        return CHANNELS * self.compress**2


@dataclasses.dataclass(frozen=True)
class BatchModelSpec:
    """Sizes of a batch model: a Llama decoder over the codes of minutes, one after the other.

    Examples:
      >>> BatchModelSpec(batches=16, places=16).length
      272
    """

    batches: int = 16
    """K, minutes before the next one that it sees at most."""
    places: int = 16
    """C, codes of a minute (`TokenizerSpec.places`)."""
    codes: int = 256
    layers: int = 2
    width: int = 64
    """d."""
    heads: int = 4

    def __post_init__(self) -> None:
        for name, high in (("batches", 1024), ("places", 4096), ("codes", 2**15), ("layers", 64), ("width", 4096),
                           ("heads", 64)):
            limits.check_whole(f"BatchModelSpec.{name}", getattr(self, name), 1, high)
        if self.width % (2 * self.heads):
            raise InputError(f"BatchModelSpec.width: expected a multiple of 2 x heads={self.heads} (rotary halves), "
                             f"got {self.width}")

    @property
    def length(self) -> int:
        """Codes of a whole sequence, the next minute's with them."""
        return (self.batches + 1) * self.places
