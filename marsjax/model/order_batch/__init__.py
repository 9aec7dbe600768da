"""Order batches (paper, order-batch model): a minute's orders as an image, as codes, and the law of the next minute.

  `specs`: sizes of the parts.
  `tokenizer`: an image <-> some codes out of a book.
  `batch_model`: codes of the minutes before -> draws of the next minute's codes.
  `readout`: what a minute did, read off its image by a linear map.
  `proposals`: all of them together: images of the minutes before -> candidates for the next one. Start here.
  `fresh`: weights before training.
The images themselves are `core.order_images`; `observers.order_images` makes them while a market runs.
"""

from marsjax.model.order_batch import batch_model, fresh, proposals, readout, specs, tokenizer

__all__ = ["batch_model", "fresh", "proposals", "readout", "specs", "tokenizer"]
