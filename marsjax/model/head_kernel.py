"""The head and the draw as kernels for a GPU (Pallas, by its Triton way): logits are made on chip and stay there.

`prepared` makes of the head what the kernels read; a program with many steps does so once, before them. Then there are
three kernels, one after the other. `block_masses` makes the logits tile by tile and writes of each block of BLOCK
classes its highest logit and the sum of exponentials relative to it. `_draw_blocks` draws a block of each row, and
`_draw_classes` makes the logits of that block again and draws inside it. The integers are those of
`marsjax.model.sampling`, so the law is the same; logits differ from `layers.dense` by float32 rounding.

**Precision.** The matrix units take bfloat16 and add up in float32. What is given in float32 is split into a sum of
bfloat16 numbers of 8 bits each, and the products of their parts are added up, smallest first, but for those below the
bits that are asked for: `_Split`. By `ComputeSpec`:

- bfloat16: one part, one product: as the plain way.
- float32, `highest`: three parts, 24 bits, so the split is exact; the six products above 2^-24. Float32 precision.
- float32, `default`: two parts, 16 bits; three products. The plain way has TensorFloat-32 there, 11 bits.

Drawn blocks are multiplied out in plain float32. A hidden state that is NaN or infinite leaves no law, and in float32
such a weight neither; in bfloat16 an infinite weight may give logits of -inf alone, which are never drawn.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from marsjax.core import int64
from marsjax.core.records import Array
from marsjax.core.specs import ComputeSpec
from marsjax.model.sampling import BLOCK, BLOCK_SCALE, CLASS_SCALE

try:
    from jax.experimental import pallas
    from jax.experimental.pallas import triton
except ImportError:  # a JAX without them: `core.kernels.for_platform` does not choose this way there
    pallas = triton = None  # type: ignore[assignment]

_LOG2_E = 1.4426950408889634
_INTEGERS = 2.0**23
"""From here on float32 numbers are whole."""
_MOST_OF_A_DRAW = 2**14
"""Blocks that a program of `_draw_blocks` holds at most."""


@dataclasses.dataclass(frozen=True)
class Tiles:
    """Sizes of the programs of the kernels: powers of two, but for `blocks`."""

    rows: int = 128
    """Of a tile of logits."""
    blocks: int = 8
    """Tiles that a program makes one after the other, at most."""
    width: int = 64
    """Of a hidden state that is multiplied at a time, at most."""
    warps: int = 8
    stages: int = 1
    least_programs: int = 1024
    """Below so many, programs make fewer tiles each."""


@dataclasses.dataclass(frozen=True)
class Products:
    """How numbers are split for the matrix units."""

    parts: int
    pairs: tuple[tuple[int, int], ...]
    """Parts of the hidden states and of the head whose products are added up, in this order."""
    dtype: str = "bfloat16"
    precision: Any = None
    """Of each product, as JAX names it."""


_PRODUCTS = {
    ("bfloat16", "highest"): Products(1, ((0, 0),)), ("bfloat16", "default"): Products(1, ((0, 0),)),
    ("float32", "highest"): Products(3, ((2, 0), (0, 2), (1, 1), (1, 0), (0, 1), (0, 0))),
    ("float32", "default"): Products(2, ((1, 0), (0, 1), (0, 0)))}


_FEW_ROWS = 512
"""Up to here smaller tiles are faster, or more warps for one of them."""
_WIDTH = 64
"""A multiple of it, or a smaller power of two, is what numbers of a hidden state are filled up to."""


def products_of(compute: ComputeSpec) -> Products:
    """How `block_masses` splits numbers, by the precision of the model."""
    return _PRODUCTS[compute.dtype, compute.precision]


def tiles_of(rows: int, width: int, split: Products) -> Tiles:
    """Sizes for hidden states [rows, width]."""
    if split.parts == 1:
        return Tiles(blocks=4, warps=8 if rows <= _FEW_ROWS else 4, stages=3)
    return Tiles(64, warps=4, stages=2) if rows <= _FEW_ROWS or width <= 16 else Tiles()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Weights:
    """A head [d, N] as the kernels read it, with zeros up to whole blocks and tiles."""

    parts: Array
    """[p, d', N'], the head's sum of p numbers each: of `block_masses`."""
    whole: Array
    """[d', N'], in the dtype of the model: of `draw_classes`."""
    count: int = dataclasses.field(metadata={"static": True})
    """Classes, N."""


def prepared(head: Array, compute: ComputeSpec, split: Products | None = None) -> Weights:
    """What the kernels read of a head [d, N]: the same for every draw from it. `split` is by `compute` unless given."""
    head = jnp.asarray(head)
    width, count = head.shape
    head = _padded(_padded(head, 1, BLOCK), 0, min(_WIDTH, max(16, pallas.next_power_of_2(width))))
    return Weights(_parts(head, split or products_of(compute)), head.astype(compute.dtype), count)


def sample(hidden: Array, head: Weights, words: Array, temperature: float, compute: ComputeSpec, interpret: bool = False
           ) -> tuple[jax.Array, jax.Array]:
    """As `sampling.sample_head`: classes int32 [B] and whether a row has a law, bool [B].

    Args:
      hidden: [B, d].
      head: what `prepared` makes of [d, N].
      words: uint32 [B, 2].
      temperature: above 0.
      compute: dtype and precision of the products.
      interpret: whether JAX's own operations stand in for the GPU's, as in tests.
    """
    hidden, words = jnp.asarray(hidden), jnp.asarray(words, jnp.uint32)
    highest, mass = block_masses(hidden, head, temperature, products_of(compute), interpret=interpret)
    block, law = draw_blocks(highest, mass, words[:, 0], interpret=interpret)
    hidden = hidden.astype(compute.dtype)
    return draw_classes(hidden, head, block, words[:, 1], temperature, interpret=interpret), law


def block_masses(hidden: jax.Array, head: Weights, temperature: Array | float, split: Products,
                 tiles: Tiles | None = None, interpret: bool = False) -> tuple[jax.Array, jax.Array]:
    """Highest logits of blocks and their sums of exp(logit - highest), both float32 [blocks, B].

    Logits are hidden [B, d] @ head [d, N] / temperature; those that pad the last block are -inf. `split` is what the
    head was prepared with; `tiles` are `tiles_of` the hidden states unless given.
    """
    rows, width = hidden.shape
    tiles = tiles or tiles_of(rows, width, split)
    blocks = pallas.cdiv(head.count, BLOCK)
    each = max(1, min(tiles.blocks, pallas.cdiv(rows, tiles.rows) * blocks // tiles.least_programs))
    b = jnp.asarray(head.parts)
    part = math.gcd(tiles.width, b.shape[1])
    a = _parts(_padded(_padded(hidden, 0, tiles.rows), 1, b.shape[1]), split)
    kernel = functools.partial(_block_masses, _Sizes(head.count, blocks, each, part, tiles.rows), split)
    shape = jax.ShapeDtypeStruct((blocks, a.shape[1]), jnp.float32)
    highest, mass = pallas.pallas_call(
        kernel, out_shape=(shape, shape), grid=(a.shape[1] // tiles.rows, pallas.cdiv(blocks, each)),
        compiler_params=triton.CompilerParams(num_warps=tiles.warps, num_stages=tiles.stages), interpret=interpret,
        name="block_masses")(a, b, jnp.full(1, temperature, jnp.float32))
    return highest[:, :rows], mass[:, :rows]


@dataclasses.dataclass(frozen=True)
class _Sizes:
    count: int
    """Of classes."""
    blocks: int
    """Of classes, in all."""
    each: int
    """Blocks of a program."""
    part: int
    """Of a hidden state that is multiplied at a time."""
    tile: int
    """Rows of a program."""


def _block_masses(sizes: _Sizes, split: Products, a: Any, b: Any, temperature: Any, highest: Any, mass: Any) -> None:
    """One program: some rows, and some blocks of them in turn."""
    count, blocks, each, part, tile = dataclasses.astuple(sizes)
    rows = pallas.ds(pallas.program_id(0) * tile, tile)
    first, parts = pallas.program_id(1) * each, a.shape[2] // part
    scale = _LOG2_E / temperature[0]

    def hidden(i: Any) -> list[jax.Array]:
        return [a[j, rows, pallas.ds(i * part, part)] for j in range(split.parts)]

    # Where a row of hidden states is multiplied at once it is read once.
    whole = hidden(0) if parts == 1 else None

    def of_part(i: Any, block: jax.Array) -> jax.Array:
        """What `part` numbers of the hidden states give to the logits of a block."""
        left = whole or hidden(i)
        right = [b[j, pallas.ds(i * part, part), pallas.ds(block * BLOCK, BLOCK)] for j in range(split.parts)]
        products = [jnp.dot(left[j], right[k], precision=split.precision, preferred_element_type=jnp.float32)
                    for j, k in split.pairs]
        return functools.reduce(jnp.add, products)

    def one_block(i: Any, _: None) -> None:
        # The last program may have fewer blocks: it makes its last one several times.
        block = jnp.minimum(first + i, blocks - 1)
        logits = of_part(0, block) if parts == 1 else jax.lax.fori_loop(
            0, parts, lambda p, x: x + of_part(p, block), jnp.zeros((tile, BLOCK), jnp.float32))
        if count % BLOCK:
            number = block * BLOCK + jax.lax.broadcasted_iota(jnp.int32, (tile, BLOCK), 1)
            logits = jnp.where(number < count, logits, -jnp.inf)
        top = jnp.max(logits, axis=1)
        within = jnp.exp2((logits - jnp.where(jnp.abs(top) < jnp.inf, top, 0.0)[:, None]) * scale)
        highest[block, rows] = top / temperature[0]
        mass[block, rows] = jnp.sum(within, axis=1)

    jax.lax.fori_loop(0, each, one_block, None)


def draw_blocks(highest: jax.Array, mass: jax.Array, word: jax.Array, tile: int = 8, interpret: bool = False
                ) -> tuple[jax.Array, jax.Array]:
    """The block that a random word uint32 [B] draws, int32 [B], and whether there is a law, bool [B].

    `highest` and `mass`, [blocks, B], are those of `block_masses`.
    """
    blocks, rows = mass.shape
    size = pallas.next_power_of_2(blocks)
    tile = max(1, min(tile, _MOST_OF_A_DRAW // size))
    padded = -(-rows // tile) * tile
    highest, mass = (_padded(x, 1, tile) for x in (highest, mass))
    kernel = functools.partial(_draw_blocks, blocks=blocks, size=size, tile=tile)
    shapes = (jax.ShapeDtypeStruct((padded,), jnp.int32), jax.ShapeDtypeStruct((padded,), jnp.float32))
    block, total = pallas.pallas_call(
        kernel, out_shape=shapes, grid=(padded // tile,), interpret=interpret, name="draw_blocks",
        compiler_params=triton.CompilerParams(num_warps=4, num_stages=1))(highest, mass, _padded(word, 0, tile))
    return block[:rows], jnp.isfinite(total[:rows])


def _draw_blocks(highest: Any, mass: Any, word: Any, block: Any, total: Any, *, blocks: int, size: int, tile: int
                 ) -> None:
    """One program: the blocks of `tile` rows."""
    rows = pallas.ds(pallas.program_id(0) * tile, tile)
    number = jax.lax.broadcasted_iota(jnp.int32, (size, tile), 0)
    # Indices beyond the last block read the last again, which is then taken out.
    column = pallas.program_id(0) * tile + jax.lax.broadcasted_iota(jnp.int32, (size, tile), 1)
    at = jnp.minimum(number, blocks - 1)
    tops = jnp.where(number < blocks, highest[at, column], -jnp.inf)
    masses = jnp.where(number < blocks, mass[at, column], 0.0)
    top = jnp.max(tops, axis=0)
    masses = masses * jnp.exp(tops - top[None])
    masses = jnp.where(number < blocks, masses, 0.0)
    sums = jnp.sum(masses, axis=0)
    total[rows] = sums
    weights = _whole(masses / sums[None] * BLOCK_SCALE)
    block[rows] = jnp.minimum(_drawn(weights, word[rows]), blocks - 1)


def draw_classes(hidden: jax.Array, head: Weights, block: jax.Array, word: jax.Array, temperature: Array | float,
                 warps: int = 2, interpret: bool = False) -> jax.Array:
    """The class that a random word uint32 [B] draws within a block [B] of classes, int32 [B].

    Logits are hidden [B, d] @ head [d, N] / temperature, in float32.
    """
    rows, whole = hidden.shape[0], jnp.asarray(head.whole)
    kernel = functools.partial(_draw_classes, count=head.count, part=math.gcd(_WIDTH, whole.shape[0]))
    return pallas.pallas_call(
        kernel, out_shape=jax.ShapeDtypeStruct((rows,), jnp.int32), grid=(rows,), interpret=interpret,
        compiler_params=triton.CompilerParams(num_warps=warps, num_stages=2), name="draw_classes",
    )(_padded(hidden, 1, whole.shape[0]), whole, block, word, jnp.full(1, temperature, jnp.float32))


def _draw_classes(hidden: Any, head: Any, block: Any, word: Any, temperature: Any, drawn: Any, *, count: int, part: int
                  ) -> None:
    """One program: the class of one row."""
    row = pallas.program_id(0)
    first = block[row] * BLOCK

    def add(i: Any, logits: jax.Array) -> jax.Array:
        width = pallas.ds(i * part, part)
        weights = head[width, pallas.ds(first, BLOCK)].astype(jnp.float32)
        return logits + jnp.sum(hidden[row, width].astype(jnp.float32)[:, None] * weights, axis=0)

    parts = hidden.shape[1] // part
    logits = jnp.zeros(BLOCK, jnp.float32)
    logits = (add(0, logits) if parts == 1 else jax.lax.fori_loop(0, parts, add, logits)) / temperature[0]
    if count % BLOCK:
        logits = jnp.where(first + jax.lax.broadcasted_iota(jnp.int32, (BLOCK,), 0) < count, logits, -jnp.inf)
    within = jnp.exp(logits - jnp.max(logits, axis=0))
    inside = _drawn(_whole(within * CLASS_SCALE), word[row])
    drawn[row] = first + jnp.minimum(inside, BLOCK - 1)


def _drawn(weights: jax.Array, word: jax.Array) -> jax.Array:
    """As `sampling._draw`, along the first axis."""
    reached = jax.lax.cumsum(weights, axis=0)
    point = int64.multiply_high(word, jnp.sum(weights, axis=0, dtype=jnp.uint32))
    return jnp.sum((reached <= point[None]).astype(jnp.int32), axis=0)


def _whole(x: jax.Array) -> jax.Array:
    """Numbers of at least 0, rounded half to even, as uint32."""
    return jnp.where(x < _INTEGERS, (x + _INTEGERS) - _INTEGERS, x).astype(jnp.uint32)


def _padded(x: jax.Array, axis: int, multiple: int) -> jax.Array:
    """With zeros up to a multiple of a length."""
    rest = -x.shape[axis] % multiple
    return jnp.pad(x, [(0, rest if i == axis else 0) for i in range(x.ndim)]) if rest else x


def _parts(x: jax.Array, split: Products) -> jax.Array:
    """Numbers of 8 bits each whose sum along a new first axis is x, the largest first."""
    if split.parts == 1:
        return x.astype(split.dtype)[None]
    parts, rest = [], x.astype(jnp.float32)
    for _ in range(split.parts):
        # Not by a conversion there and back, which XLA takes out.
        parts.append(jax.lax.reduce_precision(rest, exponent_bits=8, mantissa_bits=7))
        rest = rest - parts[-1]
    return jnp.stack(parts).astype(split.dtype)
