"""The order model: tokens of orders -> the law of the next token, and a draw from it.

  `llama`: the model, a Flax NNX module; fresh weights; names and shapes of its weights. Start here.
  `layers`: its parts: embedding, decoder layer, norm, head, attention.
  `kv_cache`: the cached step of many trajectories: append new tokens, predict from the newest.
  `cached_attention`, `attention_kernel`: how its keys and values are kept and read.
  `prefix`, `prefix_kernel`: slots that many contexts have in common, read once for all of them.
  `linear_attention`, `memory`: attention with a memory of one size, and its step.
  `blocks`, `token_ring`: trajectories computed a block at a time; their last tokens.
  `sampling`: the exact draw of a token by two random words.
  `row_head`: a head of few rows, whose sums are those of the classes, and its draw.
  `order_batch`: a minute of orders as codes, and the law of the next minute.
  `head_kernel`: head and draw of a GPU, in kernels that keep the logits on chip.
  `ensemble`: hidden states changed by what the orders of an interval are to be.
  `OrderModel`: the model of given sizes and weights.
  `init`: a model with fresh weights.
"""

from marsjax.model import ensemble, head_kernel, kv_cache, layers, llama, order_batch, prefix, row_head, sampling
from marsjax.model.llama import OrderModel, init

__all__ = ["OrderModel", "ensemble", "head_kernel", "init", "kv_cache", "layers", "llama", "order_batch", "prefix",
           "row_head", "sampling"]
