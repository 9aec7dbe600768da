"""Led futures: what is told is the nearest of candidates made of what happened, and nothing else of a run changes."""

import dataclasses
import functools
import json
import math
import os
import pathlib
import subprocess
import sys
import types
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax import testing
from marsjax.agents.twap import Twap
from marsjax.core import kernels, times
from marsjax.core.errors import InputError
from marsjax.core.order_images import OrderBatchSpec
from marsjax.market import exchange
from marsjax.model import ensemble
from marsjax.model.ensemble import Ensemble, EnsembleSpec
from marsjax.model.order_batch import batch_model, readout, tokenizer
from marsjax.model.order_batch.proposals import OrderBatches
from marsjax.model.order_batch.readout import READ, Readout
from marsjax.model.order_batch.specs import BatchModelSpec, TokenizerSpec
from marsjax.model.order_batch.tokenizer import Tokenizer
from marsjax.observers.features import Features
from marsjax.observers.trace import TraceObserver
from marsjax.sim import rollout
from marsjax.sim import step as sim_step
from marsjax.sim.control import ControlModels, ControlSpec, CurveGuide, controlled, leading, resampling
from marsjax.sim.control import run as control_run
from marsjax.sim.control.leading import Leader
from marsjax.sim.control.lineages import ControlledRollout
from marsjax.sim.initial import Start
from marsjax.sim.rollout import Hooks
from marsjax.sim.simulator import Simulator
from marsjax.sim.specs import RolloutSpec
from marsjax.sim.state import End, SimState
from marsjax.training.order_batch import data

pytestmark = pytest.mark.quick

MARKET, MODEL = testing.tiny_market(), testing.tiny_model()
ROOT = pathlib.Path(__file__).parents[2]
IMAGES = OrderBatchSpec(price_slots=8, volume_edges=(100, 300, 500), every_s=20)
BOOK = TokenizerSpec(IMAGES, codes=16, code_dim=4, width=8, blocks=1)
BATCH, SEED = 8, 3
GUIDE = CurveGuide((-15.0, -30.0, 10.0), scale_bp=4.0)
LED = ControlSpec(every_s=20, way="batch", candidates=6)
BOTH = dataclasses.replace(LED, way="both", island=4, resample_below=1.0)
TWAP = Twap(target=2_000, start_ns=36_000 * 10**9, total_seconds=45)


@functools.cache
def start() -> Start:
    return testing.random_start(MARKET, MODEL)


@functools.cache
def models() -> ControlModels:
    """Of weights that are large enough that what they read matters."""
    book = tokenizer.init(BOOK, jax.random.key(0))
    drawn = jax.tree.map(lambda x: 3 * x, batch_model.init(
        BatchModelSpec(batches=3, places=BOOK.places, codes=BOOK.codes, width=16, heads=2), jax.random.key(1)))
    weight = 0.3 * jax.random.normal(jax.random.key(2), (readout.input_count(IMAGES), len(READ)))
    fresh = ensemble.init(EnsembleSpec.of(4, BOOK, width=4, heads=1, layers=1), jax.random.key(3), book)
    learnt = Ensemble(fresh.spec, {**fresh.weights(), "exit": 3 * jax.random.normal(jax.random.key(4), (4, 4)),
                                   "shift": jax.random.normal(jax.random.key(5), (fresh.spec.inputs, 4))}, book)
    before = np.random.default_rng(0).poisson(1.0, (2, *IMAGES.shape)).astype(np.uint8)
    return ControlModels(OrderBatches(book, drawn, Readout(weight, jnp.zeros(len(READ)))), learnt, before)


def run(control: ControlSpec = LED, of: ControlModels | None = None, agents: tuple[Any, ...] = (),
        hooks: Hooks = rollout.NO_HOOKS, guide: Any = GUIDE, **changes: Any) -> ControlledRollout:
    simulator = Simulator.of(MODEL, MARKET, agents=agents, observers=[TraceObserver(MARKET, room=256)])
    spec = RolloutSpec(**{"trajectories": BATCH, "minutes": 1, "seed": SEED} | changes)
    return controlled(simulator, start(), spec, control, guide, hooks=hooks, models=of or models())


@functools.cache
def led() -> ControlledRollout:
    return run()


@functools.cache
def both() -> ControlledRollout:
    return run(BOTH)


def states(found: rollout.Rollout) -> list[np.ndarray]:
    """All but what is told, and what is observed."""
    state = dataclasses.replace(found.state, observed=(), guide=None)
    return [np.asarray(x) for x in jax.tree.leaves((state, found.bars, found.status, found.before))]


def test_what_is_told_with_no_weight_leaves_futures_alone_to_the_bit() -> None:
    simulator = Simulator.of(MODEL, MARKET, observers=[TraceObserver(MARKET, room=256)])
    plain = rollout.rollout(simulator, start(), RolloutSpec(BATCH, minutes=1, seed=SEED))
    silent = run(dataclasses.replace(LED, told=0.0))
    chex.assert_trees_all_equal(states(silent.rollout), states(plain))
    assert silent.led is not None and silent.rollout.trades().equals(plain.trades())
    assert not all(np.array_equal(x, y) for x, y in zip(states(led().rollout), states(plain), strict=True))


def test_of_what_nothing_is_wanted_nothing_is_told() -> None:
    simulator = Simulator.of(MODEL, MARKET, observers=[TraceObserver(MARKET, room=256)])
    plain = rollout.rollout(simulator, start(), RolloutSpec(BATCH, minutes=1, seed=SEED))
    free = run(dataclasses.replace(LED, candidates=1), guide=CurveGuide((math.nan,) * 3))
    chex.assert_trees_all_equal(states(free.rollout), states(plain))
    assert free.led is not None and all(np.isnan(x).all() for x in free.led.predicted)


def test_led_futures_are_independent_of_one_another() -> None:
    assert (led().ancestors == np.arange(BATCH)).all() and (led().distinct == BATCH).all()
    assert (led().ess == 1).all() and not led().resampled.any() and np.isnan(led().log_evidence).all()
    alone = run(trajectories=3, first=4)
    chex.assert_trees_all_equal(states(alone.rollout), [x[4:7] for x in states(led().rollout)])
    chex.assert_trees_all_equal(alone.led, jax.tree.map(lambda x: x[:, 4:7], led().led))


def image_rows(found: ControlledRollout, number: int) -> np.ndarray:
    """Images of the first two intervals of a trajectory, made of its trace as those of recorded orders are."""
    parts = []
    for who, log in found.rollout.trace.chunks:
        (row,) = np.flatnonzero(who == number)
        parts.append(data.of_event(jax.tree.map(lambda x, row=row, log=log: x[row, : log.count[row]], log.events)))
    seen = data.SeenOrders(*(np.concatenate(x) for x in zip(*parts, strict=True)))
    begin = int(times.to_ns(start().time))
    return data.minutes(IMAGES, seen, MARKET.tick, (begin, begin + 40 * 10**9), "").images


def test_candidates_are_of_what_happened_and_the_nearest_is_kept() -> None:
    assert led().led is not None
    batches, before = models().batches, np.asarray(models().before)
    mids = np.asarray(led().rollout.mid_twice_start) / 2
    propose = jax.jit(batches.propose, static_argnums=3)
    for number in range(0, BATCH, 3):
        past, mid = np.concatenate([before, image_rows(led(), number)]), float(mids[number])
        for interval in range(3):
            known = past[: 2 + interval][-3:]
            padded = np.concatenate([np.zeros((3 - len(known), *IMAGES.shape), np.uint8), known])
            key = leading.keys_of(jnp.uint32(SEED), jnp.int32(interval), jnp.array([number]))
            found = propose(padded[None], jnp.array([len(known)]), key, 6)
            return_bp = led().features.return_bp[interval - 1, number] if interval else 0.0
            now = mid * (1 + return_bp / 1e4)
            moves = np.asarray(found.read)[0, :, 0] * MARKET.tick
            reached = 1e4 * ((now + moves) / mid - 1)
            kept = int(np.argmin(np.abs(reached - GUIDE.return_bp[interval])))
            assert np.ptp(reached) > 0
            np.testing.assert_array_equal(led().led.codes[interval, number], found.codes[0, kept])
            predicted = Features(*(float(x[interval, number]) for x in led().led.predicted))
            assert predicted.return_bp == pytest.approx(reached[kept], rel=1e-3, abs=1e-2)
            assert predicted.move_bp == pytest.approx(1e4 * moves[kept] / now, rel=1e-3, abs=1e-2)
            assert predicted.orders == pytest.approx(float(found.read[0, kept, READ.index("orders")]), rel=1e-4)


def test_what_is_read_in_ticks_is_features_in_basis_points() -> None:
    read = np.array([[[2, 3, 400, -0.5, 4, 900, 70]]], np.float32)
    found = leading.features_of(read, np.array([2 * 1_000_000]), 100)
    assert [float(x[0, 0]) for x in found[1:]] == pytest.approx([2, 3, 400, -0.5, 4, 900, 70])
    none = leading.features_of(read, np.array([0]), 100)
    assert float(none.move_bp[0, 0]) == 0 and np.isfinite(np.asarray(none[1:])).all()


def test_no_key_of_a_candidate_is_one_of_anything_else() -> None:
    seed, numbers = jnp.uint32(7), jnp.arange(5)

    def bits(keys: jax.Array) -> np.ndarray:
        return np.asarray(jax.random.key_data(keys)).reshape(-1, 2)

    own = [bits(leading.keys_of(seed, jnp.int32(interval), numbers)) for interval in range(6)]
    others = [bits(jax.vmap(functools.partial(sim_step.key_of, seed))(numbers))]
    for epoch in range(4):
        keys = control_run.keys_of(seed, numbers, jnp.full(5, epoch))
        others += [bits(keys), *(bits(jax.vmap(jax.random.fold_in, (0, None))(keys, step)) for step in range(6))]
    of_resampling = jax.random.fold_in(jax.random.key(seed), jnp.uint32(resampling._FIRST_KEY))
    others += [bits(jax.vmap(functools.partial(jax.random.fold_in, jax.random.fold_in(of_resampling, interval)))(
        numbers)) for interval in range(6)]
    rows = np.concatenate(own + others)
    assert len(np.unique(rows, axis=0)) == len(rows) - 5, "epoch 0 has the keys of a plain rollout, and no other two"


def test_what_has_ended_is_told_nothing_that_counts_and_does_no_harm() -> None:
    inner = Simulator.of(MODEL, MARKET, observers=[
        models().observer(MARKET.tick), control_run.FeatureObserver(MARKET.tick)])
    leader = Leader.of(GUIDE, LED, dataclasses.replace(inner, ensemble=models().ensemble))
    until = jax.tree.map(lambda x: jnp.broadcast_to(x, 3), times.of_ns(times.to_ns(start().time) + 60 * 10**9))
    state: SimState = jax.jit(sim_step.begin)(inner, start(), jnp.arange(3), (), until)
    lead = jax.jit(leader.lead)
    plain, ended = (lead(models(), dataclasses.replace(state, end=jnp.array(ends, jnp.int32)), jnp.uint32(SEED),
                         jnp.int32(0)) for ends in ([End.RUNNING] * 3, [End.RUNNING, End.NO_MID, End.RUNNING]))
    kept = np.array([0, 2])
    chex.assert_trees_all_equal(*(jax.tree.map(lambda x: np.asarray(x)[kept], each) for each in (plain, ended)))
    assert all(np.isnan(x[1]) for x in ended[1].predicted)


@pytest.mark.parametrize(("rows", "batch", "expected"), [(None, 3, 3), (None, 3000, 2730), (16, 3, 16)])
def test_no_more_rows_are_computed_than_there_are_but_where_blocks_fix_the_bits(
        rows: int | None, batch: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = Simulator.of(MODEL, MARKET, observers=[
        models().observer(MARKET.tick), control_run.FeatureObserver(MARKET.tick)])
    inner = dataclasses.replace(inner, ensemble=models().ensemble)
    ways = dataclasses.replace(kernels.chosen(inner.spec.cache.kernels), rows=rows)
    leader = Leader.of(GUIDE, LED, inner.replace(cache=dataclasses.replace(inner.spec.cache, kernels=ways)))
    until = jax.tree.map(lambda x: jnp.broadcast_to(x, batch), times.of_ns(times.to_ns(start().time) + 60 * 10**9))
    state = jax.eval_shape(sim_step.begin, inner, start(), jnp.arange(batch), (), until)
    seen: list[int] = []
    propose = OrderBatches.propose

    def watched(self: OrderBatches, images: jax.Array, *rest: Any) -> Any:
        seen.append(images.shape[0])
        return propose(self, images, *rest)

    monkeypatch.setattr(OrderBatches, "propose", watched)
    jax.eval_shape(leader.lead, models(), state, jnp.uint32(SEED), jnp.int32(0))
    assert set(seen) == {expected}


def other_ensemble(hidden: int, codes: int) -> Ensemble:
    book = tokenizer.init(dataclasses.replace(BOOK, codes=codes), jax.random.key(0))
    return ensemble.init(EnsembleSpec.of(hidden, book.spec, width=4, heads=1), jax.random.key(0), book)


@pytest.mark.parametrize(("changes", "match"), [
    (lambda: {"ensemble": other_ensemble(4, 15)},
     r"ControlModels\.ensemble: expected one for the order-batch model's 4 places and 16 codes, got 4 and 15"),
    (lambda: {"ensemble": other_ensemble(5, BOOK.codes)}, "expected one for hidden states of 4"),
    (lambda: {"before": np.zeros((4, *IMAGES.shape), np.uint8)}, r"ControlModels\.before: expected up to 3 images"),
    (lambda: {"before": np.zeros((7, 2, *IMAGES.shape), np.uint8)}, "of 8 trajectories, got an array of shape"),
])
def test_models_that_do_not_fit_are_refused_at_the_door(changes: Any, match: str) -> None:
    with pytest.raises(InputError, match=match):
        run(of=dataclasses.replace(models(), **changes()))


def test_intervals_that_the_model_does_not_know_are_refused() -> None:
    with pytest.raises(InputError, match=r"ControlSpec\.every_s: expected 20, the interval that the order-batch model"):
        run(dataclasses.replace(LED, every_s=30), guide=CurveGuide((0.0, 0.0)))


def test_a_way_without_its_models_is_refused() -> None:
    simulator, spec = Simulator.of(MODEL, MARKET), RolloutSpec(BATCH, minutes=1)
    with pytest.raises(InputError, match=r"ControlSpec\.way: .* got 'batch' without them"):
        controlled(simulator, start(), spec, LED, GUIDE)


@pytest.mark.slow
def test_both_without_weight_is_resampling_alone_to_the_bit() -> None:
    silent, plain = run(dataclasses.replace(BOTH, told=0.0)), run(dataclasses.replace(BOTH, way="resample"))
    chex.assert_trees_all_equal(states(silent.rollout), states(plain.rollout))
    assert plain.led is None and plain.resampled.all()
    assert (silent.ancestors == plain.ancestors).all() and (silent.log_evidence == plain.log_evidence).all()


@pytest.mark.slow
@pytest.mark.parametrize("agents", [(), (TWAP,)])
def test_both_ways_conserve_what_there_is_and_what_is_told_is_copied_with_its_trajectory(agents: Any) -> None:
    found = run(BOTH, agents=agents) if agents else both()
    assert found.led is not None and found.resampled.all() and (found.ancestors[-1] != np.arange(BATCH)).any()
    lost = jax.vmap(exchange.conservation)(found.rollout.state.market)
    assert not any(np.asarray(x).any() for x in jax.tree.leaves(lost))
    told = jax.jit(models().ensemble.prepared)(found.led.codes[-1])
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), found.rollout.state.guide, told)


@pytest.mark.slow
def test_led_futures_are_those_of_the_seed_in_any_chunks_and_alone() -> None:
    again, alone = run(BOTH, chunk_steps=7), run(BOTH, trajectories=4, first=4)
    for other, rows in ((again, slice(None)), (alone, slice(4, None))):
        chex.assert_trees_all_equal(states(other.rollout), [x[rows] for x in states(both().rollout)])
        chex.assert_trees_all_equal(other.led, jax.tree.map(lambda x, rows=rows: x[:, rows], both().led))
    assert not np.array_equal(run(BOTH, seed=SEED + 1).led.codes, both().led.codes)


@pytest.mark.slow
def test_one_candidate_and_no_images_before_the_start_work_and_a_trace_is_that_of_the_tables() -> None:
    volumes = np.zeros(BATCH)

    def on_trace(who: np.ndarray, log: Any) -> None:
        for place, number in enumerate(who):
            events = jax.tree.map(lambda x, place=place: x[place, : log.count[place]], log.events)
            volumes[number] += np.asarray(events.trades.volume.lo)[events.order.kind != 2].sum()

    bare = dataclasses.replace(models(), before=None)
    found = run(dataclasses.replace(LED, candidates=1), bare, hooks=Hooks(on_trace=on_trace))
    assert found.led is not None and np.isfinite(found.led.predicted.move_bp).all()
    assert volumes.tolist() == np.asarray(found.rollout.bars.volume.lo)[:, 0].tolist()
    each = dataclasses.replace(models(), before=np.repeat(np.asarray(models().before)[None], BATCH, axis=0))
    chex.assert_trees_all_equal(run(of=each).led, led().led)


@pytest.mark.slow
@pytest.mark.parametrize("chunk_steps", [7, 256])
def test_a_future_that_sends_orders_without_end_is_given_up(chunk_steps: int) -> None:
    assert int(np.asarray(led().rollout.state.step).max()) > 3 * 10
    with pytest.raises(InputError, match=r"^ControlSpec\.most_decisions: a led future made more than 10 decisions"):
        run(dataclasses.replace(LED, most_decisions=10), chunk_steps=chunk_steps)


def test_what_is_told_nothing_is_not_to_be_told_less() -> None:
    control = dataclasses.replace(LED, most_decisions=10, told=2.0)
    control_run._check_decisions(control, 10)
    with pytest.raises(InputError, match=r"interval of 20 s: tell it less loudly \(ControlSpec\.told, 2\), or allow m"):
        control_run._check_decisions(control, 11)
    with pytest.raises(InputError, match="interval of 20 s: allow more"):
        control_run._check_decisions(dataclasses.replace(control, told=0.0), 11)


def test_futures_that_are_led_alone_need_no_islands() -> None:
    def check(control: ControlSpec, count: int, devices: int, first: Any = 0) -> None:
        given = types.SimpleNamespace(agent_starts=(), is_one=False, starts=np.array([first, *[0] * (count - 1)]))
        control_run._check_islands(types.SimpleNamespace(
            count=count, devices=types.SimpleNamespace(count=devices), given=given), control)

    check(LED, 8, 2)
    check(dataclasses.replace(LED, island=3), 8, 1, first=1)
    with pytest.raises(InputError, match="expected trajectories that 2 devices share evenly, got 7"):
        check(LED, 7, 2)
    with pytest.raises(InputError, match="to make whole islands that 2 devices share evenly"):
        check(dataclasses.replace(BOTH, island=0), 8, 2)
    with pytest.raises(InputError, match="expected the same start"):
        check(BOTH, 8, 1, first=1)


def test_led_futures_of_no_whole_intervals_are_refused() -> None:
    with pytest.raises(InputError, match=r"RolloutSpec\.minutes: expected whole intervals of 50 .*, got futures of 12"):
        run(dataclasses.replace(LED, every_s=50), dataclasses.replace(models(), batches=of_interval(50)), minutes=2)


def of_interval(every_s: int) -> OrderBatches:
    """The models of images, as if they were of other intervals."""
    book = dataclasses.replace(BOOK, images=dataclasses.replace(IMAGES, every_s=every_s))
    return dataclasses.replace(models().batches, tokenizer=Tokenizer(book, models().batches.tokenizer.weights()))


PROGRAM = """
import hashlib, json
import jax, numpy as np
from tests import quick_compilation
from tests.sim import test_leading as led
quick_compilation.switch(True)
found = []
for devices in (1, 2):
    of_devices = []
    for way in (led.BOTH, led.LED):
        run = led.run(way, devices=devices)
        leaves = jax.tree.leaves((led.states(run.rollout), run.features, run.ancestors, run.ess, run.led))
        of_devices += [hashlib.sha256(b"".join(np.asarray(x).tobytes() for x in leaves)).hexdigest(), run.decisions]
    found.append(of_devices)
print(json.dumps(found))
"""


@pytest.mark.slow
def test_two_devices_lead_as_one_does() -> None:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT),
                   "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    ran = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, cwd=ROOT, capture_output=True, text=True,
                         timeout=600, check=False)
    assert ran.returncode == 0, ran.stderr
    one, two = json.loads(ran.stdout.splitlines()[-1])
    assert one == two
