"""Led trajectories, the paper's way of control: each is told, interval by interval, what its next orders are to be.

When an interval begins, the order-batch model proposes candidates for it, from the images of what really happened in
the intervals before. The one that fits the guide best is kept, and the ensemble changes the order model's law under it
until the next interval begins. Trajectories know nothing of one another. Where the guide wants nothing of an interval,
nothing is told of it.

What is told is no more than told: how much of it is done is what `Led.predicted` beside `ControlledRollout.features`
shows. Draws of candidates are keyed by (seed, interval, number of the trajectory), apart from all draws of decisions,
agents and resampling.
"""

import dataclasses
import functools
import operator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.core import kernels
from marsjax.core.errors import InputError
from marsjax.core.order_images import OrderBatchSpec
from marsjax.core.records import Array
from marsjax.model.blocks import Part, in_blocks
from marsjax.model.ensemble import Ensemble, ReadBatch
from marsjax.model.order_batch.proposals import OrderBatches
from marsjax.model.order_batch.readout import READ
from marsjax.observers.features import BASIS_POINTS, FeatureObserver, Features
from marsjax.observers.order_images import OrderImageObserver
from marsjax.sim.control import guides
from marsjax.sim.control.guides import Guide
from marsjax.sim.control.spec import ControlSpec
from marsjax.sim.devices import Devices
from marsjax.sim.simulator import Simulator
from marsjax.sim.state import End, SimState

_FIRST_KEY = 2**32 - 2
"""Draws of candidates are keyed by it: trajectories have smaller numbers, and resampling has the larger one."""

_CANDIDATES = 2**14
"""That are drawn together at most, for the room that they take."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ControlModels:
    """The models that lead trajectories, and what they see of the time before the start. A pytree."""

    batches: OrderBatches
    ensemble: Ensemble
    """Trained with the order model, and with the codes of `batches`."""
    before: Array | None = None
    """uint8 [N, 3, 2 V, P], images of the last whole intervals before the start, oldest first, or [B, N, ...] of each
    trajectory's. None: nothing is known of that time, and the first candidates are drawn without a past."""

    def observer(self, tick: int) -> OrderImageObserver:
        """What keeps the images of a market with this tick."""
        return OrderImageObserver(self._images, tick, keep=self.batches.model.spec.batches)

    def check(self, every_s: int, trajectories: int) -> None:
        """InputError where the models do not fit one another, intervals of `every_s`, or so many trajectories."""
        self.batches.check()
        images, mine, theirs = self._images, self.batches.tokenizer.spec, self.ensemble.spec
        if (mine.places, mine.codes) != (theirs.places, theirs.codes):
            raise InputError(f"ControlModels.ensemble: expected one for the order-batch model's {mine.places} places "
                             f"and {mine.codes} codes, got {theirs.places} and {theirs.codes}")
        if every_s != images.every_s:
            raise InputError(f"ControlSpec.every_s: expected {images.every_s}, the interval that the order-batch model "
                             f"knows, where futures are led (way), got {every_s}")
        if self.before is None:
            return
        *lead, count = np.shape(self.before)[:-3] or (-1,)
        keep = self.batches.model.spec.batches
        if np.shape(self.before)[-3:] != images.shape or lead not in ([], [trajectories]) or not 0 <= count <= keep:
            raise InputError(f"ControlModels.before: expected up to {keep} images of {images.shape}, or so many of "
                             f"each of {trajectories} trajectories, got an array of shape {np.shape(self.before)}")

    @property
    def _images(self) -> OrderBatchSpec:
        return self.batches.tokenizer.spec.images


class Led(NamedTuple):
    """The candidates that were kept for an interval, [B, ...]; [I, B, ...] in results."""

    codes: Array
    """int32 [B, C]."""
    predicted: Features
    """float32 [B], what an interval of such orders would do, as the order-batch model's readout tells, with the return
    that this would make from where the trajectory stood. NaN of one that had ended, and where the guide wanted nothing:
    then nothing was told."""


@dataclasses.dataclass(frozen=True)
class Leader:
    """What is wanted, and how it is told; hashable, a static argument of compiled calls.

    A state's last observers are those of the order images and of the features.
    """

    guide: Guide
    control: ControlSpec
    images: OrderImageObserver
    features: FeatureObserver
    rows: int | None
    """Trajectories that are led together, which fixes the bits on a CPU; None: all of a device, up to as many as
    _CANDIDATES have room for."""

    @classmethod
    def of(cls, guide: Guide, control: ControlSpec, inner: Simulator) -> "Leader":
        """For a simulator with both observers."""
        images, features = inner.spec.observers[-2:]
        if not isinstance(images, OrderImageObserver) or not isinstance(features, FeatureObserver):
            raise InputError(f"leading: expected observers of order images and features as the last two, got {images} "
                             f"and {features}")
        rows = kernels.chosen(inner.spec.cache.kernels).rows
        return cls(guide, control, images, features, rows and min(rows, _most(control)))

    def lead(self, models: ControlModels, state: SimState, seed: Array, interval: Array) -> tuple[SimState, Led]:
        """Trajectories at the beginning of an interval, int32 [], with what each is told of it."""
        seen = self.features.of(state.observed[-1])
        codes, read = self._proposed(models.batches, state, seed, interval)
        predicted = features_of(read, jnp.asarray(state.observed[-1].mid_twice), self.images.tick)
        which = guides.nearest(self.guide, interval, seen, predicted)
        reached = guides.reached_bp(jnp.asarray(seen.return_bp)[:, None], predicted.move_bp)
        kept, kept_codes = jax.tree.map(lambda x: jax.vmap(operator.getitem)(x, which),
                                        (predicted._replace(return_bp=reached), codes))
        is_told = (state.end == End.RUNNING) & guides.prefers(self.guide, interval, seen, predicted)
        kept = jax.tree.map(lambda x: jnp.where(is_told, x, jnp.nan), kept)
        told = self._told(models.ensemble, kept_codes, jnp.where(is_told, jnp.float32(self.control.told), 0.0))
        return dataclasses.replace(state, guide=told), Led(kept_codes, kept)

    def _proposed(self, batches: OrderBatches, state: SimState, seed: Array, interval: Array
                  ) -> tuple[jax.Array, jax.Array]:
        """Candidates, codes [B, N, C] and what is read of them; a block of trajectories at a time."""
        last = jax.vmap(self.images.last, (0, None))(state.observed[-2], interval)
        keys = jax.random.key_data(keys_of(seed, interval, state.trajectory))

        def block(part: Part) -> tuple[Array, Array]:
            found = batches.propose(part(last.images), part(last.known), part(keys), self.control.candidates)
            return found.codes, found.read

        found: tuple[jax.Array, jax.Array] = in_blocks(block, self._together(keys.shape[0]), keys.shape[0])
        return found

    def _told(self, ensemble: Ensemble, codes: jax.Array, strength: jax.Array) -> ReadBatch:
        """What the order model is told of batches, int32 [B, C], each with a strength [B]."""
        found: ReadBatch = in_blocks(lambda part: ensemble.prepared(part(codes), part(strength)),
                                     self._together(codes.shape[0]), codes.shape[0])
        return found

    def _together(self, batch: int) -> int:
        """Rows of a block, where a device has so many trajectories."""
        return self.rows or min(batch, _most(self.control))


def _most(control: ControlSpec) -> int:
    """Trajectories whose candidates are drawn together at most."""
    return max(_CANDIDATES // control.candidates, 1)


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=3)
def lead(leader: Leader, devices: Devices, models: ControlModels, state: SimState, seed: jax.Array, interval: jax.Array
         ) -> tuple[SimState, Led]:
    """`Leader.lead` of the trajectories of each device."""
    found: tuple[SimState, Led] = devices.on_its_own(leader.lead, (True, False, True, True))(models, state, seed,
                                                                                            interval)
    return found


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def seeded(observer: OrderImageObserver, devices: Devices, state: SimState, before: Array) -> SimState:
    """States at their starts, whose last observer but one has the images before it (`ControlModels.before`)."""
    is_one = jnp.ndim(before) == 4

    def of_device(state: SimState, before: jax.Array) -> SimState:
        images = jax.vmap(observer.seeded, (0, None if is_one else 0))(state.observed[-2], before)
        return dataclasses.replace(state, observed=(*state.observed[:-2], images, state.observed[-1]))

    found: SimState = devices.on_its_own(of_device, (False, is_one))(state, before)
    return found


def keys_of(seed: Array, interval: Array, trajectory: Array) -> jax.Array:
    """Typed keys [B] of the candidates of an interval, by the trajectories' numbers, int32 [B]."""
    of_all = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), jnp.uint32(_FIRST_KEY))
    of_interval = jax.random.fold_in(of_all, interval)
    return jax.vmap(lambda number: jax.random.fold_in(of_interval, number))(jnp.asarray(trajectory))


def features_of(read: Array, mid_twice: Array, tick: int) -> Features:
    """What was read of candidates, [B, N, len(READ)], as features [B, N]; ticks become basis points of the mids [B].

    `return_bp` is NaN: it depends on where a trajectory stands.
    """
    mid_twice = jnp.asarray(mid_twice)[:, None]
    per_tick = jnp.where(mid_twice > 0, BASIS_POINTS * 2 * tick / jnp.maximum(mid_twice, 1).astype(jnp.float32), 0.0)
    of = dict(zip(READ, jnp.moveaxis(jnp.asarray(read, jnp.float32), -1, 0), strict=True))
    move = of["move_ticks"] * per_tick
    return Features(jnp.full_like(move, jnp.nan), move, of["volatility_ticks"] * per_tick, of["volume"],
                    of["imbalance"], of["spread_ticks"], of["depth"], of["orders"])
