"""Laws of controlled rollouts: they are futures of the model, chosen; nothing is lost, made or drawn twice."""

import dataclasses
import functools
import json
import math
import os
import pathlib
import subprocess
import sys
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax import testing
from marsjax.agents.twap import Twap
from marsjax.core import int64, times
from marsjax.core.errors import InputError
from marsjax.core.kernels import CPU, Kernels
from marsjax.core.records import Status
from marsjax.core.specs import CacheSpec
from marsjax.market import exchange
from marsjax.observers.features import FeatureObserver, Features
from marsjax.observers.trace import TraceObserver
from marsjax.sim import rollout
from marsjax.sim import step as sim_step
from marsjax.sim.control import ControlSpec, CurveGuide, controlled, lineages
from marsjax.sim.control import run as control_run
from marsjax.sim.control.guides import Target, TargetGuide
from marsjax.sim.control.lineages import ControlledRollout
from marsjax.sim.initial import Start, resize
from marsjax.sim.rollout import Hooks
from marsjax.sim.simulator import Simulator
from marsjax.sim.specs import RolloutSpec
from marsjax.sim.state import End

pytestmark = pytest.mark.quick

MARKET, MODEL = testing.tiny_market(), testing.tiny_model()
ROOT = pathlib.Path(__file__).parents[2]
TWAP = Twap(target=2_000, start_ns=36_000 * 10**9, total_seconds=45)
BATCH, ISLAND = 32, 16
CURVE = CurveGuide((-15.0, -30.0, 10.0), scale_bp=4.0)
CONTROL = ControlSpec(every_s=20, island=ISLAND, resample_below=1.0)


@functools.cache
def start() -> Start:
    return testing.random_start(MARKET, MODEL)


@functools.cache
def simulator(has_agent: bool = False, ways: Kernels = CPU) -> Simulator:
    made = Simulator.of(MODEL, MARKET, agents=[TWAP] if has_agent else [], observers=[TraceObserver(MARKET, room=256)])
    return made.replace(cache=dataclasses.replace(made.spec.cache, kernels=ways))


def run(guide: Any = CURVE, control: ControlSpec = CONTROL, has_agent: bool = False, hooks: Hooks = rollout.NO_HOOKS,
        **changes: Any) -> ControlledRollout:
    spec = RolloutSpec(**{"trajectories": BATCH, "minutes": 1, "seed": 3} | changes)
    return controlled(simulator(has_agent), start(), spec, control, guide, hooks=hooks)


@functools.cache
def chosen() -> ControlledRollout:
    return run()


@functools.cache
def with_agent() -> ControlledRollout:
    return run(has_agent=True)


@functools.cache
def free() -> ControlledRollout:
    return run(control=dataclasses.replace(CONTROL, strength=0.0))


def states(found: rollout.Rollout) -> list[np.ndarray]:
    # The log holds the last chunk's events alone, which depends on where chunks end.
    state = dataclasses.replace(found.state, observed=())
    return [np.asarray(x) for x in jax.tree.leaves((state, found.bars, found.status, found.before))]


def test_a_strength_of_0_leaves_futures_alone_to_the_bit() -> None:
    plain = rollout.rollout(simulator(), start(), RolloutSpec(BATCH, minutes=1, seed=3))
    chex.assert_trees_all_equal(states(free().rollout), states(plain))
    assert not free().resampled.any() and (free().ess == 1).all() and (free().distinct == ISLAND).all()
    assert (free().ancestors == np.arange(BATCH)).all() and (free().log_evidence == 0).all()
    assert free().decisions == int(np.asarray(plain.state.step).sum())
    assert free().rollout.trades().equals(plain.trades())


def test_futures_come_near_the_curve() -> None:
    off = [np.abs(found.features.return_bp - np.array(CURVE.return_bp)[:, None]).mean() for found in (chosen(), free())]
    assert off[0] < 0.5 * off[1]
    assert chosen().resampled.all() and (chosen().distinct[-1] < ISLAND).all()


@pytest.mark.slow
def test_futures_are_those_of_the_seed_in_any_chunks() -> None:
    again = run(chunk_steps=7)
    chex.assert_trees_all_equal(states(chosen().rollout), states(again.rollout))
    chex.assert_trees_all_equal(chosen().features, again.features)
    assert chosen().rollout.orders().equals(again.rollout.orders())
    looked_at_less = controlled(simulator(ways=dataclasses.replace(CPU, steps_a_look=16)), start(),
                                RolloutSpec(BATCH, minutes=1, seed=3), CONTROL, CURVE)
    chex.assert_trees_all_equal(states(chosen().rollout), states(looked_at_less.rollout))
    assert looked_at_less.rollout.steps > chosen().rollout.steps and looked_at_less.decisions == chosen().decisions
    assert chosen().rollout.orders().equals(looked_at_less.rollout.orders())
    other = run(seed=4)
    assert not np.array_equal(chosen().features.return_bp, other.features.return_bp)


@pytest.mark.slow
def test_an_island_is_the_same_alone_and_beside_another() -> None:
    alone = run(trajectories=ISLAND, first=ISLAND)
    chex.assert_trees_all_equal(states(alone.rollout), [x[ISLAND:] for x in states(chosen().rollout)])
    assert (alone.ancestors + ISLAND == chosen().ancestors[:, ISLAND:]).all()
    chex.assert_trees_all_equal(alone.ess[:, 0], chosen().ess[:, 1])


@pytest.mark.parametrize("found", [chosen, pytest.param(with_agent, marks=pytest.mark.slow)])
def test_shares_and_cash_are_conserved_and_accounts_are_what_trades_say(found: Any) -> None:
    result = found()
    state, trades = result.rollout.state, result.rollout.trades()
    assert result.resampled.any() and (result.ancestors != np.arange(BATCH)).any()
    lost = jax.vmap(exchange.conservation)(state.market)
    assert not any(np.asarray(x).any() for x in jax.tree.leaves(lost))
    holdings = int64.to_numpy(state.market.ledgers.holdings)
    for account in (1, 2):
        bought, sold = (trades[trades[f"{side}_agent_id"] == account].groupby("trajectory")["volume"].sum()
                        .reindex(range(BATCH), fill_value=0) for side in ("buy", "sell"))
        # Those of the history are of account 0; 1 and 2 begin with nothing.
        assert (bought - sold).tolist() == holdings[:, account].tolist()
    volume = trades.groupby("trajectory")["volume"].sum().reindex(range(BATCH), fill_value=0)
    assert volume.tolist() == int64.to_numpy(result.rollout.bars.volume)[:, 0].tolist()
    if result is with_agent():
        assert holdings[:, 2].tolist() == np.asarray(state.agent_states[0].state.completed).tolist()
        assert holdings[:, 2].any()


@pytest.mark.parametrize("found", [chosen, pytest.param(with_agent, marks=pytest.mark.slow)])
def test_the_orders_of_a_trajectory_are_one_history_with_its_ancestors(found: Any) -> None:
    orders = found().rollout.orders()
    assert orders.groupby("trajectory")["i"].apply(lambda i: i.tolist() == list(range(len(i)))).all()
    assert orders.groupby("trajectory")["time_ns"].apply(lambda time: time.is_monotonic_increasing).all()
    # In the first interval two futures are alike to the last order where they have one ancestor, and else not.
    first, at = found().features.orders[0].astype(int), lineages.places(found().ancestors)[0]
    rows = [tuple(map(tuple, part[["time_ns", "price", "volume"]].fillna(0).to_numpy()[:count]))
            for count, (_, part) in zip(first, orders.groupby("trajectory"), strict=True)]
    assert len(set(rows)) == len(set(at.tolist())) < BATCH
    assert all((one == other) == (rows[i] == rows[j]) for i, one in enumerate(at) for j, other in enumerate(at[:i]))


@pytest.mark.slow
def test_copies_part_at_once() -> None:
    """Those of an island that are left after one interval come from few, and no two have the same orders then."""
    found = run(CurveGuide((-15.0, math.nan, math.nan), scale_bp=1.0))
    assert (found.distinct[0] < ISLAND / 2).all() and not found.resampled[1:].any()
    rows = found.rollout.orders().fillna(0)[["trajectory", "time_ns", "type", "price", "volume"]]
    nexts = [tuple(part.to_numpy()[int(count) : int(count) + 5, 1:].ravel())
             for count, (_, part) in zip(found.features.orders[0], rows.groupby("trajectory"), strict=True)]
    assert len(set(nexts)) == BATCH


def test_no_draw_is_made_twice_and_none_is_that_of_a_plain_rollout() -> None:
    """Of a place in any of its epochs at any step; a copy has its ancestor's number of steps."""
    numbers, steps = jnp.arange(5), 6
    def words(epoch: int) -> np.ndarray:
        keys = control_run.keys_of(jnp.uint32(7), numbers, jnp.full(5, epoch))
        return np.stack([np.asarray(sim_step.draw_from(keys, jnp.full(5, step)).values) for step in range(steps)])

    found = np.concatenate([words(epoch).reshape(-1, 3) for epoch in range(4)])
    assert len(np.unique(found, axis=0)) == 4 * 5 * steps
    plain = [np.asarray(sim_step.draw(jnp.uint32(7), numbers, jnp.full(5, step)).values) for step in range(steps)]
    assert np.array_equal(words(0), np.stack(plain))


def test_one_interval_with_a_hard_guide_is_a_choice_among_the_futures_left_alone() -> None:
    """Futures are those of a plain rollout that fit, each the whole number of times next to its share, or one more."""
    @dataclasses.dataclass(frozen=True)
    class Falls:
        def score(self, interval: Any, seen: Features) -> Any:
            return jnp.where(seen.return_bp < 0, 0.0, jnp.where(interval == 0, -jnp.inf, jnp.nan))

    found = run(Falls(), ControlSpec(every_s=60, island=ISLAND))
    fits = free().features.return_bp[-1] < 0
    assert 2 <= fits.reshape(2, -1).sum(axis=1).min() and fits.reshape(2, -1).sum(axis=1).max() < ISLAND
    assert fits[found.ancestors[0]].all()
    for island, of_island in enumerate(fits.reshape(2, -1)):
        counts = np.bincount(found.ancestors[0].reshape(2, -1)[island] - island * ISLAND, minlength=ISLAND)
        share = ISLAND / of_island.sum()
        assert set(counts[of_island].tolist()) <= {math.floor(share), math.ceil(share)}
        assert found.ess[0, island] == pytest.approx(of_island.mean())
        assert found.log_evidence[island] == pytest.approx(math.log(of_island.mean()), abs=1e-5)
    own, plain = states(found.rollout), states(free().rollout)
    assert (np.asarray(found.rollout.state.trajectory) == np.arange(BATCH)).all()
    is_number = [np.array_equal(x, np.arange(BATCH)) for x in plain]
    chex.assert_trees_all_equal([x for x, skip in zip(own, is_number, strict=True) if not skip],
                                [x[found.ancestors[0]] for x, skip in zip(plain, is_number, strict=True) if not skip])


def test_a_full_side_is_counted_where_its_trajectory_is_written_over_too() -> None:
    """In books with room for few orders more; those that follow this curve are not the ones that got full."""
    small = dataclasses.replace(MARKET, capacity=46)
    spec = RolloutSpec(ISLAND, minutes=1, seed=3)
    plain, found = (controlled(Simulator.of(MODEL, small), resize(start(), 46), spec,
                               dataclasses.replace(CONTROL, strength=strength), CURVE) for strength in (0.0, 1.0))
    left = [int((each.rollout.status[:, Status.SIDE_FULL] > 0).sum()) for each in (plain, found)]
    assert plain.full_books == left[0] > 0 and found.full_books > left[1] == 0
    assert chosen().full_books == 0


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_features_are_those_of_the_orders_of_each_interval(strength: float) -> None:
    """An interval's orders are those decided on before its end: the first after it was decided on in it."""
    found = chosen() if strength else free()
    orders, books = found.rollout.orders(prices="integer"), found.rollout.snapshots(prices="integer")
    trades = found.rollout.trades(prices="integer")
    before = start()
    mid_first = int(np.asarray(found.rollout.mid_twice_start)[0]) / 2
    for number in range(0, BATCH, 5):
        own, book = (x[x["trajectory"] == number].reset_index(drop=True) for x in (orders, books))
        traded = trades[trades["trajectory"] == number]
        # Cancels of one decision are rows of one time; no two decisions are at one time with this model.
        last = np.flatnonzero(np.append(np.diff(own["time_ns"]) > 0, True))
        event = np.searchsorted(last, np.arange(len(own)))
        decided = np.concatenate([[int(times.to_ns(before.time))], own["time_ns"].to_numpy()[last][:-1]])
        interval = (decided - int(times.to_ns(before.time))) // (20 * 10**9)
        mids = np.concatenate([[mid_first], (own["ask"] + own["bid"]).to_numpy()[last] / 2])
        assert np.isfinite(mids).all(), "this start and seed keep both sides"
        moves = 1e4 * np.diff(mids) / mids[:-1]
        spreads = book["spread"].to_numpy()[last] / MARKET.tick
        depths = book.filter(regex="_volume_").sum(axis=1).to_numpy()[last]
        is_accepted = own["status"].to_numpy() == "ACCEPTED"
        for k in range(3):
            here = np.flatnonzero(interval == k)
            of_orders = np.isin(event, here)
            sums = traded[traded["i"].isin(own["i"][of_orders])]
            signed = np.where(sums["type"] == "B", 1, -1) @ sums["volume"] if len(sums) else 0
            one = Features(*(float(x[k, number]) for x in found.features))
            assert one.return_bp == pytest.approx(1e4 * (mids[here[-1] + 1] / mid_first - 1), abs=1e-2)
            assert one.move_bp == pytest.approx(1e4 * (mids[here[-1] + 1] / mids[here[0]] - 1), abs=1e-2)
            assert one.volatility_bp == pytest.approx(math.sqrt((moves[here] ** 2).sum()), rel=1e-4, abs=1e-3)
            assert one.volume == sums["volume"].sum() and one.orders == (is_accepted & of_orders).sum()
            assert one.imbalance == pytest.approx(signed / max(sums["volume"].sum(), 1), abs=1e-6)
            if k:  # with the book before the interval, which tables begin after
                rows = np.concatenate([[here[0] - 1], np.unique(event[is_accepted & of_orders])])
                assert one.spread_ticks == pytest.approx(spreads[rows].mean(), rel=1e-5)
                assert one.depth == pytest.approx(depths[rows].mean(), rel=1e-5)


def test_a_lost_trajectory_has_no_weight_and_its_place_goes_to_another() -> None:
    observer = FeatureObserver(MARKET.tick)
    state = jax.tree.map(lambda x: x[:4], dataclasses.replace(free().rollout.state, observed=()))
    kept = jax.vmap(observer.begin)(state.market, state.view, state.time)
    look = jax.jit(functools.partial(control_run._look_at, CurveGuide((0.0,)), ControlSpec(), observer))

    def looked(*ends: End) -> Any:
        ended = dataclasses.replace(state, end=jnp.array(ends, jnp.int32), observed=(kept,))
        origin = jax.tree.map(lambda x: jnp.repeat(jnp.asarray(x), 4), start().time)
        carried = control_run.Carried(ended, jnp.zeros(4), jnp.zeros(4, jnp.int32), origin)
        return look(carried, jnp.uint32(0), jnp.int32(0))

    after, found = looked(End.TIME, End.NO_MID, End.TIME, End.NOT_FINITE)
    assert sorted(np.asarray(found.source).tolist()) == [0, 0, 2, 2] and float(found.ess[0]) == pytest.approx(0.5)
    assert (np.asarray(after.state.end) == End.TIME).all() and (np.asarray(after.epoch) == 1).all()
    after, found = looked(*[End.NO_MID] * 4)
    assert not found.resampled[0] and found.ess[0] == 0 and (np.asarray(after.state.end) == End.NO_MID).all()


@pytest.mark.slow
def test_contexts_are_refreshed_when_they_would_be_without_control() -> None:
    """A copy has its ancestor's steps: no context is full before its refresh is due."""
    cache = CacheSpec(mode="refresh", refresh_every=16, margin=2, append=1, block=4)
    refreshed = Simulator.of(MODEL, MARKET, cache=cache)
    spec = RolloutSpec(ISLAND, minutes=1, seed=3)
    plain, found = (controlled(refreshed, start(), spec, dataclasses.replace(CONTROL, strength=strength), CURVE)
                    for strength in (0.0, 1.0))
    assert found.resampled.all() and plain.rollout.counters["early_refreshes"] == 0
    assert found.rollout.counters["early_refreshes"] == 0


@pytest.mark.slow
def test_hooks_hear_of_a_controlled_rollout_and_its_trace_is_that_of_the_tables() -> None:
    shares, volumes = [], np.zeros(BATCH)
    def on_trace(who: np.ndarray, log: Any) -> None:
        for place, number in enumerate(who):
            events = jax.tree.map(lambda x, place=place: x[place, : log.count[place]], log.events)
            volumes[number] += int64.to_numpy(events.trades.volume)[events.order.kind != 2].sum()

    hooked = run(hooks=Hooks(on_chunk=lambda progress: shares.append(progress.passed), on_trace=on_trace))
    assert shares[-1] == 1.0 and shares == sorted(shares)
    assert volumes.tolist() == int64.to_numpy(hooked.rollout.bars.volume)[:, 0].tolist()
    chex.assert_trees_all_equal(hooked.features, chosen().features)


def test_events_that_find_no_room_are_counted_along_lineages() -> None:
    small = Simulator.of(MODEL, MARKET, observers=[TraceObserver(MARKET, room=20)])
    found = controlled(small, start(), RolloutSpec(8, minutes=1, seed=3, chunk_steps=64),
                       dataclasses.replace(CONTROL, island=8), CURVE)
    logs = [log for _, log in found.rollout.trace.chunks]
    lost = sum(np.asarray(log.dropped) for log in logs)
    assert lost.any() and found.rollout.exceeded["trace_dropped"].tolist() == lost.tolist()
    assert found.rollout.trace.missing.startswith(f"{lost.sum()} events")
    kept = sum(np.asarray(log.count) for log in logs)
    # Every decision but the last, whose order would have come too late, is an event.
    assert (kept + lost + 1).tolist() == np.asarray(found.rollout.state.step).tolist()


@pytest.mark.slow
def test_islands_may_start_from_states_of_their_own_and_agents_from_theirs() -> None:
    def of(*seeds: int) -> Start:
        parts = [testing.random_start(MARKET, MODEL, seed=seed) for seed in seeds]
        every: Start = jax.tree.map(lambda *x: np.stack([np.asarray(y) for y in x]).repeat(4, axis=0), *parts)
        return every

    spec, control = RolloutSpec(8, minutes=1, seed=3), ControlSpec(every_s=30, island=4, resample_below=1.0)
    guide = CurveGuide((-15.0, -30.0), scale_bp=4.0)
    bare = simulator().replace(observers=())
    both, second = controlled(bare, of(0, 1), spec, control, guide), controlled(
        bare, of(1), dataclasses.replace(spec, trajectories=4, first=4), control, guide)
    chex.assert_trees_all_equal(states(second.rollout), [x[4:] for x in states(both.rollout)])
    with pytest.raises(InputError, match="same start"):
        controlled(bare, of(0, 1), spec, dataclasses.replace(control, island=8), guide)
    targets = TWAP.starts(np.array([100, 200] * 4), np.ones(8, bool))
    with pytest.raises(InputError, match="starts of agents"):
        controlled(simulator(True), start(), spec, control, guide, agent_starts=[targets])


@dataclasses.dataclass(frozen=True)
class Busy:
    def score(self, interval: Any, seen: Features) -> Any:
        return -0.5 * ((seen.volume - 3_000) / 1_500) ** 2


def test_an_island_whose_time_is_over_first_is_the_same_alone() -> None:
    """The second island starts 20 s later, and all end at one time: it has two intervals of the three."""
    late = testing.random_start(MARKET, MODEL, time_ns=36_020 * 10**9)
    every: Start = jax.tree.map(lambda x, y: np.stack([np.asarray(x)] * 4 + [np.asarray(y)] * 4), start(), late)
    bare = Simulator.of(MODEL, MARKET, end_ns=36_060 * 10**9)
    spec, control = RolloutSpec(8, minutes=1, seed=3), ControlSpec(every_s=20, island=4, resample_below=1.0)
    both = controlled(bare, every, spec, control, Busy())
    alone = controlled(bare, late, dataclasses.replace(spec, trajectories=4, first=4), control, Busy())
    assert len(both.ess) == 3 and len(alone.ess) == 2 and alone.resampled.any()
    chex.assert_trees_all_equal(states(alone.rollout), [x[4:] for x in states(both.rollout)])
    assert (alone.ancestors + 4).tolist() == both.ancestors[:2, 4:].tolist()
    assert alone.ess[:, 0].tolist() == both.ess[:2, 1].tolist() and alone.log_evidence[0] == both.log_evidence[1]
    assert np.isnan(both.ess[2, 1]) and np.isfinite(both.ess[:, 0]).all()
    assert both.ancestors[2, 4:].tolist() == [4, 5, 6, 7] and not both.resampled[2, 1]


@dataclasses.dataclass(frozen=True)
class Endless:
    def score(self, interval: Any, seen: Features) -> Any:
        return jnp.where(seen.return_bp < 0, jnp.inf, jnp.where(seen.return_bp > 100, -jnp.inf, 0.0))


def test_scores_without_bounds_are_weights_all_the_same() -> None:
    found = run(Endless(), ControlSpec(every_s=60, island=ISLAND, strength=1e6))
    falls = free().features.return_bp[-1] < 0
    assert falls[found.ancestors[0]].all() and np.isfinite(found.log_evidence).all()
    assert found.ess[0] == pytest.approx(falls.reshape(2, -1).mean(axis=1))


@pytest.mark.parametrize(("changes", "match"), [
    ({"control": ControlSpec(every_s=20, way="batch")}, "way: expected resample, or the models"),
    ({"control": ControlSpec(every_s=20, island=5)}, "whole islands"),
    ({"control": ControlSpec(every_s=30)}, "expected one of 2 intervals"),
    ({"slots": 8}, "slots"), ({"hooks": Hooks(saving=rollout.Saving("nowhere"))}, "saving"),
    ({"guide": TargetGuide((Target("volume", (1.0,), 1.0),))}, "expected one of 3 intervals"),
    ({"guide": dataclasses.make_dataclass("Flat", [], frozen=True,
                                          namespace={"score": lambda self, interval, seen: jnp.float32(0)})()},
     "a number for each"),
    ({"guide": dataclasses.make_dataclass("Listed", [("x", list)], frozen=True,
                                          namespace={"score": lambda self, interval, seen: seen.volume})([])},
     "hashable"),
])
def test_what_does_not_fit_is_refused_at_the_door(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        run(**changes)


@pytest.mark.parametrize(("changes", "match"), [
    ({"every_s": 0}, "every_s"), ({"every_s": 1.5}, "every_s"), ({"island": -1}, "island"),
    ({"strength": math.nan}, "strength"), ({"strength": 1e-7}, "strength"), ({"strength": 1e39}, "strength"),
    ({"strength": -1.0}, "strength"), ({"resample_below": 1.1}, "resample_below"), ({"way": "none"}, "way"),
    ({"candidates": 0}, "candidates"), ({"told": -1.0}, "told"), ({"told": math.nan}, "told"),
    ({"told": 1001.0}, "told")])
def test_a_spec_says_which_number_is_out_of_range(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=f"ControlSpec.{match}"):
        ControlSpec(**changes)


PROGRAM = """
import hashlib, json
import jax, numpy as np
from marsjax.sim.control import ControlSpec
from tests import quick_compilation
from tests.sim import test_control as plain
quick_compilation.switch(True)
found = []
for devices in (1, 2):
    run = plain.run(devices=devices)
    leaves = jax.tree.leaves((plain.states(run.rollout), run.features, run.ancestors, run.ess, run.log_evidence))
    found.append([hashlib.sha256(b"".join(np.asarray(x).tobytes() for x in leaves)).hexdigest(), run.decisions])
try:
    plain.run(devices=2, control=ControlSpec(every_s=20))
except ValueError as error:
    found.append(str(error))
print(json.dumps(found))
"""


@pytest.mark.slow
def test_two_devices_make_what_one_does_each_with_whole_islands() -> None:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT),
                   "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    ran = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, cwd=ROOT, capture_output=True, text=True,
                         timeout=600, check=False)
    assert ran.returncode == 0, ran.stderr
    one, two, error = json.loads(ran.stdout.splitlines()[-1])
    assert one == two and "2 devices share evenly" in error
