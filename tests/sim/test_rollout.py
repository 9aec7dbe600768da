"""Laws of rollouts: a trajectory is the same alone, in any batch and in any chunks; nothing is lost or made."""

import dataclasses
import functools
import shutil
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax.agents.noise import NoiseSpec
from marsjax.agents.twap import Twap
from marsjax.checkpoint import converter_files
from marsjax.core import int64, kernels, times
from marsjax.core.records import Order, Status
from marsjax.core.specs import CacheSpec, MarketSpec, ModelSpec, TokenSpec
from marsjax.core.times import SECOND_NS
from marsjax.data.feed import AUCTION, FeedChunk, PublishedFills
from marsjax.market import book, exchange
from marsjax.model import llama
from marsjax.model.llama import OrderModel
from marsjax.observers.trace import Log, TraceObserver
from marsjax.sim import checks, initial, rollout
from marsjax.sim import step as sim_step
from marsjax.sim.devices import Devices
from marsjax.sim.initial import Start
from marsjax.sim.result import SoFar
from marsjax.sim.rollout import Hooks
from marsjax.sim.simulator import Simulator
from marsjax.sim.specs import RolloutSpec, SimulationSpec
from marsjax.sim.state import End, SimState
from marsjax.tokens import encoding
from tests.helpers import fixture_folder

MARKET = MarketSpec(capacity=128, trade_width=32, accounts=2)
MODEL = ModelSpec(embed_dim=8, heads=2, context_length=64)
WARM_NS = 34_200 * SECOND_NS
START_NS = WARM_NS + 300 * SECOND_NS
SPEC = SimulationSpec(MARKET, CacheSpec(mode="rolling", append=1), end_ns=START_NS + 10 * SECOND_NS)
BATCH = 64


@functools.cache
def tables() -> tuple[encoding.TokenTables, encoding.DrawTables]:
    converters = converter_files.read_folder(fixture_folder() / "converters")
    return encoding.tables(TokenSpec(), converters), encoding.draw_tables(TokenSpec(), converters)


@functools.cache
def noise_orders() -> Order:
    warmup = initial.Warmup(start_ns=WARM_NS, duration_ns=START_NS - WARM_NS)
    return initial.noise(MARKET, NoiseSpec(), warmup, seed=0)[1][0]


def feed(*parts: Order) -> Any:
    none = np.zeros(0, np.int32)
    fills = PublishedFills(none.astype(np.int64), none, none, none, none, none + AUCTION, none.astype(np.int64))
    return iter([FeedChunk(part, fills, np.arange(len(part.kind))) for part in parts])


@functools.cache
def begin() -> Start:
    return initial.from_feed(MARKET, tables()[0], feed(noise_orders()), START_NS, MODEL.context_length,
                             chunk_orders=256)


@functools.cache
def params() -> OrderModel:
    return llama.init(MODEL, jax.random.key(0))


def run(**changes: Any) -> rollout.Rollout:
    options = {"trajectories": BATCH, "minutes": 1, "seed": 3, "chunk_steps": 16, "spec": SPEC,
               "start": begin()} | changes
    simulator, start = Simulator(params(), *tables(), options.pop("spec")), options.pop("start")
    hooks = Hooks(*(options.pop(name, None) for name in ("on_chunk", "on_trace", "saving")))
    agent_starts = options.pop("agent_starts", ())
    return rollout.rollout(simulator, start, RolloutSpec(**options), agent_starts=agent_starts, hooks=hooks)


def states(result: rollout.Rollout) -> list[np.ndarray]:
    state = result.state
    kept = (result.bars, state.market, state.token_state, state.time, state.end)
    return [np.asarray(x) for x in jax.tree.leaves(kept)]


@functools.cache
def whole() -> rollout.Rollout:
    return run()


@pytest.mark.parametrize("numbers", [(0, 45), pytest.param((7, 63), marks=pytest.mark.slow)])
def test_a_trajectory_alone_and_in_other_chunks_equals_itself_in_a_batch(numbers: tuple[int, ...]) -> None:
    """To the bit; the slow case is about programs compiled as users' are, the other about quickly compiled ones."""
    for number in numbers:
        alone = run(trajectories=1, first=number, chunk_steps=512)
        chex.assert_trees_all_equal(states(alone), [x[number : number + 1] for x in states(whole())])
        # A call of several times 64 steps ends with its last trajectory, and says how many it made.
        decided = int(np.asarray(alone.state.step)[0])
        assert alone.steps == -(-decided // 64) * 64 < 512


def traced_chunk(simulator: Simulator) -> Any:
    """The operations of three steps of two trajectories."""
    starts = jax.tree.map(lambda x: jax.ShapeDtypeStruct((2, *np.shape(x)), np.asarray(x).dtype), begin())
    state = jax.eval_shape(functools.partial(sim_step.begin, simulator), starts, np.arange(2, dtype=np.int32))
    arrays, structure = jax.tree.flatten(simulator)
    return rollout._chunk.trace(structure, 3, Devices.of(1), arrays, state, np.uint32(0)).jaxpr.jaxpr


def test_what_steps_make_of_the_head_alone_is_made_once_before_them() -> None:
    ways = dataclasses.replace(kernels.ACCELERATOR, head="kernel")
    spec = dataclasses.replace(SPEC, cache=dataclasses.replace(SPEC.cache, kernels=ways))
    found = list(inside_scans(traced_chunk(Simulator(params(), *tables(), spec))))
    assert ("pallas_call", True) in [(name, inside) for name, _, inside in found]
    splits = [inside for name, shape, inside in found if name == "reduce_precision" and shape[-1] == 49_152]
    assert splits == [False] * 3


@pytest.mark.parametrize("ways", [kernels.CPU, kernels.ACCELERATOR], ids=["blocks", "whole batch"])
def test_layers_are_cut_out_of_their_stack_once_before_the_steps(ways: kernels.Kernels) -> None:
    cache = CacheSpec(refresh_every=12, margin=4, append=1, kernels=ways)
    sizes = dataclasses.replace(MODEL, layers=3)
    model = llama.init(sizes, jax.random.key(0))
    simulator = Simulator(model, *tables(), dataclasses.replace(SPEC, cache=cache))
    weights = [x for name, x in model.weights().items() if name.startswith("layers.")]
    parts = [(count, *x.shape[1:]) for x in weights if x.ndim > 2 for count in range(1, sizes.layers + 1)]
    cuts = [inside for name, shape, inside in inside_scans(traced_chunk(simulator))
            if "slice" in name and shape in parts]
    assert cuts == [False] * sizes.layers * 4, "of matrices a layer"
    made = jax.eval_shape(Simulator.prepared, simulator).model.apart
    assert sum(x.size for x in jax.tree.leaves(made)) == sum(x.size for x in weights)


def test_a_chunk_with_its_loops_in_a_graph_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU; that the compiler is told so, and knows the options."""
    ways, given, real = dataclasses.replace(kernels.CPU, loops="graph"), [], jax.stages.Lowered.compile
    monkeypatch.setattr(jax.stages.Lowered, "compile", lambda self, *x: (given.append(x), real(self, *x))[1])
    spec = dataclasses.replace(SPEC, cache=dataclasses.replace(SPEC.cache, kernels=ways))
    chex.assert_trees_all_equal(states(run(spec=spec)), states(whole()))
    assert ["WHILE" in options["xla_gpu_enable_command_buffer"] for of in given for options in of if options] == [True]
    beside = dataclasses.replace(spec, agents=(Twap(target=100, start_ns=START_NS, total_seconds=45),),
                                 market=dataclasses.replace(spec.market, accounts=3))
    several = types.SimpleNamespace(count=2)
    assert rollout.compiler_options(spec, Devices.of(1))
    assert not rollout.compiler_options(beside, Devices.of(1)) and not rollout.compiler_options(spec, several)


def test_a_single_layer_is_not_copied() -> None:
    assert params().with_layers_apart() is params()


def inside_scans(jaxpr: Any, inside: bool = False) -> Iterator[tuple[str, tuple[int, ...], bool]]:
    """Operations, the shapes of what they give, and whether they are in the body of a scan."""
    for one in jaxpr.eqns:
        yield one.primitive.name, getattr(one.outvars[0].aval, "shape", ()) if one.outvars else (), inside
        within = inside or one.primitive.name == "scan"
        for given in jax.tree.leaves(list(one.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            part = getattr(given, "jaxpr", given)
            if hasattr(part, "eqns") and one.primitive.name != "pallas_call":
                yield from inside_scans(part, within)


def test_trajectories_and_seeds_differ() -> None:
    books = np.asarray(whole().state.market.book.volume)
    assert len({x.tobytes() for x in books}) == BATCH
    assert not np.array_equal(np.asarray(run(seed=4).state.market.book.volume), books)


def test_shares_and_cash_are_conserved_and_every_trajectory_ends() -> None:
    result = whole()
    lost = jax.tree.leaves(jax.vmap(exchange.conservation)(result.state.market))
    assert not any(np.asarray(x).any() for x in lost)
    assert result.ended == {"TIME": BATCH}
    assert (np.asarray(times.to_ns(result.state.time)) <= SPEC.end_ns).all()


TRACED = dataclasses.replace(SPEC, observers=(TraceObserver(MARKET, 1),))


def traced() -> Simulator:
    return Simulator(params(), *tables(), TRACED)


@jax.jit
def one_step(state: SimState) -> tuple[SimState, sim_step.Decision]:
    words = sim_step.draw(3, state.trajectory, state.step)
    return sim_step.step(traced(), state, words)


def test_a_trajectory_whose_logits_are_no_numbers_stops_and_the_others_go_on() -> None:
    every = jax.tree.map(lambda x: jnp.broadcast_to(x, (8, *jnp.shape(x))), begin())
    first = sim_step.begin(traced(), every, jnp.arange(8))
    newest = first.cache.newest.at[5].set(jnp.nan)
    broken, decision = one_step(dataclasses.replace(first, cache=dataclasses.replace(first.cache, newest=newest)))
    expected, _ = one_step(first)
    assert broken.end.tolist() == [0] * 5 + [End.NOT_FINITE] + [0] * 2
    assert decision.active.tolist() == [True] * 5 + [False] + [True] * 2
    others = np.array([0, 1, 2, 3, 4, 6, 7])
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[others], b[others]), broken.market, expected.market)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[5], b[5]), broken.market, first.market)


def test_bars_are_those_of_the_decisions() -> None:
    """The minute's sums against a trace of single steps."""
    result = whole()
    every = jax.tree.map(lambda x: jnp.broadcast_to(x, (8, *jnp.shape(x))), begin())
    now = sim_step.begin(traced(), every, jnp.arange(8))
    orders, mids, volume = np.zeros(8, int), np.zeros(8, int), np.zeros(8, int)
    mid = np.asarray(jax.vmap(lambda m: book.view(MARKET, m.book).mid_price_twice)(every.market))
    while (np.asarray(now.end) == End.RUNNING).any():
        now, _ = one_step(now)
        log = jax.tree.map(np.asarray, now.observed[0])
        now = dataclasses.replace(now, observed=(TRACED.observers[0].emptied(now.observed[0]),))
        made = jax.tree.map(lambda x: x[:, 0], log.events)
        # An order at the very start is not part of the first minute.
        later = (times.to_ns(made.order.time) > START_NS) & (log.count > 0)
        count = np.where(later, np.where(made.is_by_price, made.trades.count, made.status == Status.ACCEPTED), 0)
        orders += count
        mids += np.where(count > 0, (count - 1) * mid + made.view.mid_price_twice, 0)
        trades = later & ~made.is_by_price & (made.status == Status.ACCEPTED)
        volume += np.where(trades, int64.to_numpy(made.trades.volume), 0)
        mid = np.where(log.count > 0, made.view.mid_price_twice, mid)
    assert orders.sum() > 100
    np.testing.assert_array_equal(result.bars.orders[:8, 0], orders)
    np.testing.assert_array_equal(int64.to_numpy(result.bars.mid_twice_sum)[:8, 0], mids)
    np.testing.assert_array_equal(int64.to_numpy(result.bars.volume)[:8, 0], volume)
    np.testing.assert_array_equal(result.bars.mid_twice_last[:8, 0], mid)


def test_a_start_does_not_depend_on_how_its_orders_come() -> None:
    sent = noise_orders()
    parts = [jax.tree.map(lambda x, part=part: x[part], sent) for part in (slice(70), slice(70, None))]
    other = initial.from_feed(MARKET, tables()[0], feed(*parts), START_NS, MODEL.context_length, chunk_orders=100)
    chex.assert_trees_all_equal(other, begin())


def test_a_start_reads_no_order_after_its_time() -> None:
    sent = noise_orders()
    half_ns = WARM_NS + 150 * SECOND_NS
    early = jax.tree.map(lambda x: x[times.to_ns(sent.time) <= half_ns], sent)
    got = initial.from_feed(MARKET, tables()[0], feed(sent), half_ns, MODEL.context_length, chunk_orders=256)
    expected = initial.from_feed(MARKET, tables()[0], feed(early), half_ns, MODEL.context_length, chunk_orders=256)
    chex.assert_trees_all_equal(got, expected)


class KilledError(Exception):
    """Stands for a run that was killed."""


def test_a_rollout_that_was_killed_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    seen: list[rollout.RolloutProgress] = []

    def kill(progress: rollout.RolloutProgress) -> None:
        seen.append(progress)
        if len(seen) == 3:
            raise KilledError

    saving = rollout.Saving(tmp_path / "state", every_s=0)
    with pytest.raises(KilledError):
        run(on_chunk=kill, saving=saving)
    resumed = run(saving=saving, on_chunk=seen.append)
    # The third chunk was not saved: it is made again.
    assert [progress.steps for progress in seen[:4]] == [16, 32, 48, 48]
    assert seen[3].orders == seen[2].orders
    chex.assert_trees_all_equal(states(resumed), states(whole()))
    assert (resumed.order_count, resumed.rejected) == (whole().order_count, whole().rejected)
    assert resumed.ended == whole().ended
    with pytest.raises(ValueError, match="saved by another run: seed: expected 4, found 3"):
        run(saving=saving, seed=4)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a rollout that was killed after its second chunk, which it had saved."""
    folder, seen = tmp_path_factory.mktemp("killed") / "state", []

    def kill(progress: rollout.RolloutProgress) -> None:
        seen.append(progress)
        if len(seen) == 3:
            raise KilledError

    with pytest.raises(KilledError):
        run(on_chunk=kill, saving=rollout.Saving(folder, every_s=0))
    return folder


def test_a_state_is_not_taken_up_under_what_its_result_would_differ_by(killed: Path) -> None:
    """Weights, bins to encode and to draw with, and the start are named in what is saved, by their numbers."""
    table, draws = tables()
    weights = params().replace({"norm": jnp.asarray(params().norm.weight[...]) * 1.0001})
    shifted = dataclasses.replace(table, whole_change=np.asarray(table.whole_change) + 1)
    other = jax.tree.map(lambda x: np.asarray(x) + np.asarray(x).dtype.type(1), draws)
    later = dataclasses.replace(begin(), time=times.from_ns(START_NS + 1))
    for name, given in (("model", (weights, table, draws)), ("table", (params(), shifted, draws)),
                        ("draws", (params(), table, other)), ("start", (params(), table, draws))):
        with pytest.raises(ValueError, match=f"saved by another run: {name}: expected"):
            rollout.rollout(Simulator(*given, SPEC), later if name == "start" else begin(),
                            RolloutSpec(BATCH, 1, seed=3, chunk_steps=16), hooks=Hooks(saving=rollout.Saving(killed)))


def test_a_save_that_was_cut_off_is_none(killed: Path, tmp_path: Path) -> None:
    """Of two saves the newest is half written, as a kill leaves it: the one before is taken up."""
    folder = tmp_path / "state"
    shutil.copytree(killed, folder)
    first, second = sorted(int(x.name) for x in folder.iterdir() if x.name.isdigit())
    half = folder / f".{second}.0123abcd.part"
    (folder / str(second)).rename(half)
    next(x for x in half.rglob("*") if x.is_file()).unlink()
    seen: list[rollout.RolloutProgress] = []
    got = run(saving=rollout.Saving(folder), on_chunk=seen.append)
    assert seen[0].steps == first + 16
    chex.assert_trees_all_equal(states(got), states(whole()))


def sent_until(until_ns: np.ndarray) -> tuple[SimState, list[np.ndarray]]:
    """Single steps of trajectories that end at the times given, int64 [B]: the last state and the times of orders."""
    count = len(until_ns)
    every = jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *jnp.shape(x))), begin())
    until = jax.tree.map(jnp.asarray, times.from_ns(until_ns))
    now = sim_step.begin(traced(), every, jnp.arange(count), until=until)
    sent: list[list[int]] = [[] for _ in range(count)]
    while (np.asarray(now.end) == End.RUNNING).any():
        now, _ = one_step(now)
        log = now.observed[0]
        for b in np.flatnonzero(np.asarray(log.count)):
            sent[b].append(int(times.to_ns(log.events.order.time)[b, 0]))
        now = dataclasses.replace(now, observed=(TRACED.observers[0].emptied(log),))
    return now, [np.array(x) for x in sent]


def test_an_order_planned_for_the_very_end_is_sent_and_one_after_it_is_not() -> None:
    """Reference: background agent. What is past the end is dropped; the end itself is not past it."""
    _, sent_ns = sent_until(np.full(8, SPEC.end_ns))
    last_ns = np.array([x[len(x) // 2] for x in sent_ns])
    for until_ns in (last_ns, last_ns - 1):
        end, got_ns = sent_until(until_ns)
        expected = [x[x <= until] for x, until in zip(sent_ns, until_ns, strict=True)]
        for got, want in zip(got_ns, expected, strict=True):
            np.testing.assert_array_equal(got, want)
        np.testing.assert_array_equal(times.to_ns(end.time) == last_ns, until_ns == last_ns)
        # And the decision that came too late.
        assert end.step.tolist() == [len(x) + 1 for x in expected]


def test_trajectories_with_a_start_each_equal_those_of_one_start() -> None:
    half_ns = WARM_NS + 290 * SECOND_NS
    early = initial.from_feed(MARKET, tables()[0], feed(noise_orders()), half_ns, MODEL.context_length,
                              chunk_orders=256)
    half = BATCH // 2
    both = jax.tree.map(lambda *x: jnp.stack([jnp.asarray(y) for y in x]), *[early] * half, *[begin()] * half)
    got = states(run(start=both))
    chex.assert_trees_all_equal([x[half:] for x in got], [x[half:] for x in states(whole())])
    chex.assert_trees_all_equal([x[:half] for x in got], [x[:half] for x in states(run(start=early))])


@pytest.mark.slow
def test_every_start_has_its_own_end_in_one_compilation() -> None:
    """Without a common end each trajectory runs for as many minutes from its start."""
    half_ns = WARM_NS + 290 * SECOND_NS
    early = initial.from_feed(MARKET, tables()[0], feed(noise_orders()), half_ns, MODEL.context_length,
                              chunk_orders=256)
    both = jax.tree.map(lambda *x: jnp.stack([jnp.asarray(y) for y in x]), early, begin())
    got = run(spec=dataclasses.replace(SPEC, end_ns=None), start=both, trajectories=2, chunk_steps=128)
    last = times.to_ns(got.state.time) - np.array([half_ns, START_NS])
    assert ((last > 50 * SECOND_NS) & (last <= 60 * SECOND_NS)).all()
    assert got.bars.orders[:, 0].sum() == got.order_count


def test_trajectories_of_one_number_are_the_same() -> None:
    got = states(run(numbers=tuple(int(n) for n in np.arange(BATCH) // 2)))
    for part in (slice(0, None, 2), slice(1, None, 2)):
        chex.assert_trees_all_equal([x[part] for x in got], [x[: BATCH // 2] for x in states(whole())])


@pytest.mark.slow
def test_recomputing_the_whole_window_gives_the_same_market() -> None:
    """One layer: the rolling cache is the window, so every token is the same, far beyond the window's 64 orders."""
    spec = dataclasses.replace(SPEC, cache=CacheSpec(mode="recompute", append=1))
    got = run(spec=spec, trajectories=16, chunk_steps=64)
    assert int(np.asarray(got.state.token_state.count).min()) > 3 * MODEL.context_length
    chex.assert_trees_all_equal(states(got), [x[:16] for x in states(whole())])


def test_in_slots_where_others_ended_and_traced_trajectories_are_the_same() -> None:
    """Some at a time, in a number that is no multiple of a block's rows, and with a trace: nothing changes."""
    logs: list[tuple[np.ndarray, Log]] = []
    seen: list[rollout.RolloutProgress] = []
    result = run(slots=24, on_trace=lambda who, log: logs.append((who, log)), on_chunk=seen.append)
    chex.assert_trees_all_equal(states(result), states(whole()))
    assert result.ended == {"TIME": BATCH} and (result.mid_twice_start == whole().mid_twice_start).all()
    orders = np.zeros(BATCH, int)
    for who, log in logs:
        assert (log.count[who < 0] == 0).all()
        for b in np.flatnonzero(who >= 0):
            orders[who[b]] += log.events.orders[b, : log.count[b]].sum()
    np.testing.assert_array_equal(orders, whole().status[:, Status.ACCEPTED])
    assert result.counters == {"truncated_lists": 0, "clipped_seconds": 0, "early_refreshes": 0, "trace_dropped": 0}
    shares = [progress.passed for progress in seen]
    assert shares == sorted(shares) and shares[-1] == 1 and seen[-1].ended == BATCH
    # The last order of each came too late to be sent.
    assert seen[-1].orders == BATCH + sum(log.count.sum() for _, log in logs) and 0 < seen[0].ended < BATCH
    chex.assert_trees_all_equal(states(result.part(slice(3, 9))), [x[3:9] for x in states(whole())])


def test_what_there_is_so_far_grows_into_the_result() -> None:
    """In slots: of some trajectories all, of some a part, of some nothing yet; a minute's orders never become fewer."""
    seen: list[tuple[rollout.RolloutProgress, SoFar]] = []
    result = run(slots=24, on_chunk=lambda progress: seen.append((progress, progress.so_far())))
    final, all_ns = result.so_far(), 10 * SECOND_NS
    before = np.zeros(BATCH, int)
    for progress, found in seen:
        ended, orders = found.end != End.RUNNING, found.bars.orders.sum(axis=1)
        assert ended.sum() == progress.ended and (found.passed_ns[ended] == all_ns).all()
        assert (found.passed_ns <= all_ns).all() and (orders[found.passed_ns == 0] == 0).all()
        assert found.passed_ns.mean() / all_ns == pytest.approx(progress.passed)
        chex.assert_trees_all_equal(*(jax.tree.map(lambda x, e=ended: x[e], each.bars) for each in (found, final)))
        assert (orders >= before).all() and (orders <= final.bars.orders.sum(axis=1)).all()
        before = orders
    assert (seen[0][1].passed_ns == 0).sum() > 0 and (final.passed_ns == all_ns).all()
    chex.assert_trees_all_equal(seen[-1][1], final)


def test_an_exception_of_a_hook_ends_the_rollout_and_comes_through() -> None:
    class EnoughError(Exception):
        """Raised here alone."""

    chunks: list[int] = []

    def stop(progress: rollout.RolloutProgress) -> None:
        chunks.append(progress.steps)
        if len(chunks) == 2:
            raise EnoughError

    with pytest.raises(EnoughError):
        run(on_chunk=stop)
    assert len(chunks) == 2


@pytest.mark.slow
def test_contexts_are_refreshed_at_a_trajectory_s_own_steps_whenever_it_began() -> None:
    spec = dataclasses.replace(SPEC, cache=CacheSpec(mode="refresh", refresh_every=8, margin=8, append=1))
    together, in_turns = run(spec=spec, trajectories=12), run(spec=spec, trajectories=12, slots=5)
    chex.assert_trees_all_equal(states(in_turns), states(together))
    np.testing.assert_array_equal(in_turns.state.cache.length, together.state.cache.length)
    assert (np.asarray(together.state.step) > 2 * 8).all() and together.counters["early_refreshes"] == 0


def test_trajectories_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_memory", lambda: 2**20)
    with pytest.raises(MemoryError, match=r"64 trajectories need .* GiB and the device has 0.0 GiB: about \d+ would"):
        run()


def test_a_compiled_chunk_serves_any_seed_and_start() -> None:
    run()
    before = rollout._chunk._cache_size()
    traces = []
    real = sim_step.step
    try:
        sim_step.step = lambda *x: (traces.append(1), real(*x))[1]
        run(seed=11)
    finally:
        sim_step.step = real
    assert not traces and rollout._chunk._cache_size() == before


@pytest.mark.parametrize(("changes", "message"), [
    ({"minutes": 1, "start": "empty"}, "expected at least one token of history"),
    ({"start": "late"}, "expected one not after the end"),
    ({"spec": dataclasses.replace(SPEC, end_ns=START_NS + 90 * SECOND_NS)}, r"enough for the 1\.5 minutes"),
    ({"spec": dataclasses.replace(SPEC, end_ns=57_700 * SECOND_NS)}, "one period of continuous trading"),
    ({"start": "seven"}, "one for each of 64 trajectories, got 7"),
])
def test_a_start_or_horizon_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    first = begin()
    starts = {"empty": dataclasses.replace(first, count=np.int32(0)),
              "late": dataclasses.replace(first, time=times.from_ns(START_NS + 11 * SECOND_NS)),
              "seven": jax.tree.map(lambda x: jnp.broadcast_to(x, (7, *jnp.shape(x))), first)}
    if "start" in changes:
        changes = changes | {"start": starts[changes["start"]]}
    with pytest.raises(ValueError, match=message):
        run(**changes)


def test_weights_that_are_no_numbers_are_refused_by_name() -> None:
    broken = params().replace({"norm": jnp.asarray(params().norm.weight[...]).at[2].set(jnp.nan)})
    with pytest.raises(ValueError, match=r"weights\.norm: expected finite numbers"):
        rollout.rollout(Simulator(broken, *tables(), SPEC), begin(), RolloutSpec(1, 1))


@pytest.mark.parametrize(("name", "value"), [
    ("trajectories", 0), ("minutes", 0), ("seed", -1), ("chunk_steps", -1), ("slots", 0)])
def test_numbers_out_of_range_are_refused_by_name(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"RolloutSpec\.{name}: expected a whole number of"):
        run(**{name: value})


def test_a_start_without_tokens_is_refused() -> None:
    one = jax.tree.map(lambda x: x[:1], noise_orders())
    with pytest.raises(ValueError, match="make no token"):
        initial.from_feed(MARKET, tables()[0], feed(one), START_NS, MODEL.context_length, chunk_orders=256)


class Kept:
    """What is kept beside the states: every event that was handed over, as a trace on disk would be."""

    def __init__(self) -> None:
        self.rows: list[list[int]] = []

    def __call__(self, who: np.ndarray, log: Log) -> None:
        sent = np.asarray(log.events.order.volume)
        self.rows += [[int(b), *sent[b, : log.count[b]].tolist()] for b in who]

    def mark(self) -> int:
        return len(self.rows)

    def go_back(self, mark: int | None) -> None:
        del self.rows[mark or 0 :]


def test_trace_and_state_belong_together(tmp_path: Path) -> None:
    """Killed in the chunk after a save: what came in it is taken back; what found no room is counted once."""
    def kill(progress: rollout.RolloutProgress) -> None:
        if progress.steps == 48:
            raise KilledError

    whole, kept = Kept(), Kept()
    expected = run(trace_room=12, on_trace=whole)
    with pytest.raises(KilledError):
        run(trace_room=12, on_trace=kept, on_chunk=kill, saving=rollout.Saving(tmp_path / "state", 0, kept))
    made = len(kept.rows)
    again = run(trace_room=12, on_trace=kept, saving=rollout.Saving(tmp_path / "state", 0, kept))
    assert made == 3 * BATCH and kept.rows == whole.rows
    assert expected.counters["trace_dropped"] > 0 and again.counters == expected.counters
    with pytest.raises(ValueError, match="saved by another run: trace: expected False, found True"):
        run(trace_room=12, saving=rollout.Saving(tmp_path / "state"))
