"""An image of a minute's orders <-> codes out of a book (vector quantization; paper, order-batch model).

The image is cut into parts of `compress` x `compress` pixels of all channels. Each part becomes a vector, parts
exchange what they know, and each is replaced by the nearest vector of the code book. The way back gives the rate of
every pixel, the mean of a Poisson law of its count. Parts are not treated alike, as a convolution would: it matters
whether they lie near the touch or far from it.
"""

import operator
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from marsjax.core.order_images import CHANNELS
from marsjax.core.records import Array
from marsjax.model.layers import RmsNorm, Weight
from marsjax.model.order_batch import fresh
from marsjax.model.order_batch.fresh import FreshWeight
from marsjax.model.order_batch.specs import TokenizerSpec

LEAST_LOG_RATE, MOST_LOG_RATE = -10.0, 6.0
"""Of a pixel's rate: exp(6) is above the largest count."""


class PartMixer(nnx.Module):
    """N blocks, each weight with a leading axis [N]: parts of an image learn of one another, then each by itself."""

    places_norm: RmsNorm
    """[w]."""
    places: Weight
    """[C, C], what each part hears of the others."""
    width_norm: RmsNorm
    """[w]."""
    up: Weight
    """[w, 2 w]."""
    down: Weight
    """[2 w, w]."""

    def __init__(self, weights: Mapping[str, Array]) -> None:
        self.places_norm, self.width_norm = RmsNorm(weights["places_norm"]), RmsNorm(weights["width_norm"])
        self.places, self.up = nnx.Param(weights["places"]), nnx.Param(weights["up"])
        self.down = nnx.Param(weights["down"])

    def __call__(self, x: jax.Array) -> jax.Array:
        """Parts [..., C, w] after all blocks."""
        def run(x: jax.Array, block: "PartMixer") -> tuple[jax.Array, None]:
            x = x + jnp.einsum("ij,...jw->...iw", block.places[...], block.places_norm(x))
            inner = jnp.matmul(block.width_norm(x), block.up[...])
            return x + jnp.matmul(jax.nn.silu(inner), block.down[...]), None

        return jax.lax.scan(run, x, self)[0]


class Tokenizer(nnx.Module):
    """The tokenizer of given sizes and weights; p is `TokenizerSpec.patch`.

    Examples:
      >>> import jax
      >>> from marsjax.model.order_batch.specs import TokenizerSpec
      >>> found = init(TokenizerSpec(codes=4), jax.random.key(0))
      >>> codes = found.encode(jnp.zeros((2, 3, 16, 16), jnp.uint8))
      >>> codes.shape, found.decode(codes).shape
      ((2, 16), (2, 3, 16, 16))
    """

    patch: Weight
    """[p, w]."""
    place: Weight
    """[C, w]."""
    mixer: PartMixer
    to_code: Weight
    """[w, k]."""
    codebook: Weight
    """[codes, k]."""
    from_code: Weight
    """[k, w]."""
    back_place: Weight
    """[C, w]."""
    back_mixer: PartMixer
    to_patch: Weight
    """[w, p]."""
    rate: Weight
    """[C, p], logarithms of the rates of an image that nothing is known of."""

    def __init__(self, spec: TokenizerSpec, weights: Mapping[str, Array]) -> None:
        """Takes every array of `weights`, by the names and in the shapes of `shapes(spec)`."""
        self.spec = spec
        self.mixer, self.back_mixer = (
            PartMixer({name.removeprefix(f"{part}."): x for name, x in weights.items() if name.startswith(f"{part}.")})
            for part in ("mixer", "back_mixer"))
        self.patch, self.place = nnx.Param(weights["patch"]), nnx.Param(weights["place"])
        self.to_code, self.codebook = nnx.Param(weights["to_code"]), nnx.Param(weights["codebook"])
        self.from_code, self.back_place = nnx.Param(weights["from_code"]), nnx.Param(weights["back_place"])
        self.to_patch, self.rate = nnx.Param(weights["to_patch"]), nnx.Param(weights["rate"])

    def weights(self) -> dict[str, Array]:
        """Every weight by its name: the names and the order of `shapes`."""
        found: dict[str, Array] = {}
        for name in _plan(self.spec):
            part = operator.attrgetter(name)(self)
            found[name] = (part if isinstance(part, nnx.Param) else part.weight)[...]
        return found

    def vectors(self, images: Array) -> jax.Array:
        """Vectors [..., C, k] of images, counts [..., 3, 2 V, P], before the nearest codes take their place."""
        seen = jnp.log1p(self.parts(images).astype(jnp.float32))
        x = self.mixer(jnp.matmul(seen, self.patch[...]) + self.place[...])
        return jnp.matmul(_normed(x), self.to_code[...])

    def nearest(self, vectors: jax.Array) -> jax.Array:
        """The code nearest to each of vectors [..., k], int32 [...]."""
        book = jnp.asarray(self.codebook[...])
        away = jnp.sum(book * book, axis=-1) - 2 * jnp.matmul(vectors, book.T, precision=jax.lax.Precision.HIGHEST)
        return jnp.argmin(away, axis=-1).astype(jnp.int32)

    def encode(self, images: Array) -> jax.Array:
        """Codes int32 [..., C] of images, counts [..., 3, 2 V, P]."""
        return self.nearest(self.vectors(images))

    def log_rates(self, vectors: jax.Array) -> jax.Array:
        """Logarithms of the rates [..., C, p] of the parts that vectors [..., C, k] stand for."""
        x = self.back_mixer(jnp.matmul(vectors, self.from_code[...]) + self.back_place[...])
        found = jnp.matmul(_normed(x), self.to_patch[...]) + self.rate[...]
        return jnp.clip(found, LEAST_LOG_RATE, MOST_LOG_RATE)

    def decode(self, codes: Array) -> jax.Array:
        """Images of codes int32 [..., C]: the mean count of each pixel, float32 [..., 3, 2 V, P]."""
        return self.images(jnp.exp(self.log_rates(jnp.asarray(self.codebook[...])[codes])))

    def parts(self, images: Array) -> jax.Array:
        """Images [..., 3, 2 V, P] cut into parts [..., C, p]."""
        size, (_, rows, columns) = self.spec.compress, self.spec.images.shape
        x = jnp.asarray(images)
        x = x.reshape(*x.shape[:-3], CHANNELS, rows // size, size, columns // size, size)
        x = jnp.moveaxis(x, (-5, -3), (-3, -2))  # [..., rows / size, columns / size, 3, size, size]
        return x.reshape(*x.shape[:-5], self.spec.places, self.spec.patch)

    def images(self, parts: jax.Array) -> jax.Array:
        """Images [..., 3, 2 V, P] of parts [..., C, p]."""
        size, (_, rows, columns) = self.spec.compress, self.spec.images.shape
        x = parts.reshape(*parts.shape[:-2], rows // size, columns // size, CHANNELS, size, size)
        x = jnp.moveaxis(x, (-3, -2), (-5, -3))
        return x.reshape(*x.shape[:-5], CHANNELS, rows, columns)


def _normed(x: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6)


def _plan(spec: TokenizerSpec) -> dict[str, FreshWeight]:
    """How every weight starts, by its name."""
    c, p, w, k, n = spec.places, spec.patch, spec.width, spec.code_dim, spec.blocks
    found = {"patch": FreshWeight((p, w), p**-0.5), "place": FreshWeight((c, w), 0.3)}
    for part in ("mixer", "back_mixer"):
        found |= {f"{part}.places_norm": FreshWeight((n, w), fill=1), f"{part}.places": FreshWeight((n, c, c), 0.3 / c),
                  f"{part}.width_norm": FreshWeight((n, w), fill=1), f"{part}.up": FreshWeight((n, w, 2 * w), w**-0.5),
                  f"{part}.down": FreshWeight((n, 2 * w, w), 0.3 * (2 * w) ** -0.5)}
    return found | {
        "to_code": FreshWeight((w, k), w**-0.5), "codebook": FreshWeight((spec.codes, k), 1),
        "from_code": FreshWeight((k, w), k**-0.5), "back_place": FreshWeight((c, w), 0.3),
        "to_patch": FreshWeight((w, p), 0.1 * w**-0.5), "rate": FreshWeight((c, p), fill=-3)}


def shapes(spec: TokenizerSpec) -> dict[str, tuple[int, ...]]:
    """The shape of every weight, by its name."""
    return {name: one.shape for name, one in _plan(spec).items()}


def init(spec: TokenizerSpec, key: jax.Array) -> Tokenizer:
    """A tokenizer with fresh weights."""
    return Tokenizer(spec, fresh.drawn(_plan(spec), key))
