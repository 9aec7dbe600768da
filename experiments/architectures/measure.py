"""Order models that read earlier orders in different ways, or learn from another model: loss, futures, speed.

    python experiments/architectures/measure.py runs/architectures
    python experiments/architectures/measure.py runs/small --small

The default model writes orders; each model is trained on the same ones, and compared on others. What is done is kept in
the folder, a checkpoint and a record for each model: the same command goes on where it was. At the end it writes
`results.json` and prints a table.
"""

import argparse
import dataclasses
import functools
import json
import math
import shutil
import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.analysis import realism
from marsjax.checkpoint import folder as checkpoints
from marsjax.checkpoint import load
from marsjax.core import times
from marsjax.core.errors import InputError
from marsjax.core.specs import ComputeSpec, ModelSpec
from marsjax.core.times import SECOND_NS
from marsjax.data import made_days
from marsjax.sim import step as sim_step
from marsjax.sim.initial import resize
from marsjax.sim.simulator import Simulator
from marsjax.sim.state import SimState
from marsjax.studies import futures, order_model, scaling, starts
from marsjax.studies.order_model import DecodingSpec, PreparedModel
from marsjax.studies.scaling import Labelled, MadeOrders, MadeOrdersSpec, Orders, ScalingSpec
from marsjax.tokens import encoding
from marsjax.training import distill, loop, structured
from marsjax.training.distill import Teacher
from marsjax.training.loop import TrainSpec

WRITER = "writer"
OTHER_FUTURES = 10**6
"""Number of the first future of those that futures are compared with."""
OWN_FUTURES = 2 * 10**6
"""Number of the first of each model's futures that are compared: others than those to train on, which begin at 0."""
MOVE_OVER = 256
"""Orders between two looks at the mid."""


class Kind(NamedTuple):
    """A model that is compared."""

    width: int
    layers: int
    heads: int
    mixer: str
    teacher: str = ""
    """The name of another kind that is trained before, or `writer`; empty: none."""


KINDS = {
    "attention": Kind(16, 1, 2, "attention"),
    "linear": Kind(16, 1, 2, "linear"),
    "wide attention": Kind(128, 3, 4, "attention"),
    "wide linear": Kind(128, 3, 4, "linear"),
    "attention taught by wide attention": Kind(16, 1, 2, "attention", "wide attention"),
    "linear taught by wide attention": Kind(16, 1, 2, "linear", "wide attention"),
    "attention taught by the writer": Kind(16, 1, 2, "attention", WRITER),
}
"""The first two and those taught have the sizes of the published 2M model, but for the head."""


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    futures: int = 512
    """Written to train on; an eighth as many validate, 32 at most."""
    held_out: int = 64
    orders: int = 1536
    """Of a future."""
    compared: int = 256
    """Futures of each model that are compared with the writer's."""
    length: int = 1024
    """Orders of a window."""
    batch: int = 16
    steps: int = 600
    every: int = 100
    trajectories: tuple[int, ...] = (4096,)
    """Markets at once, when orders are counted by the second."""
    timed_periods: int = 1
    """Of `refresh_every` steps each, which are timed as one span."""
    repeats: int = 3

    @property
    def refresh_every(self) -> int:
        """Steps between two refreshes of a context, where a model is decoded so."""
        return self.length * 7 // 16

    @property
    def timed_steps(self) -> int:
        """Steps of a span, the same for all models: whole periods, each of which has one refresh."""
        return self.timed_periods * self.refresh_every


SMALL = Sizes(8, 4, 160, 4, 64, 4, 20, 10, (8,), 1, 2)


def main() -> None:
    """Makes what is missing of each model, then the table."""
    given = _flags()
    sizes = SMALL if given.small else Sizes()
    output: Path = given.output
    _begin(output, sizes)
    days = [made_days.open_day(load.folder_of("default"), name) for name in ("busy", "default", "quiet")]
    writer = order_model.prepare(load.load_order_model("default"))
    orders, reference = _made(output / "orders.npz", writer, days, sizes)
    rows: dict[str, dict[str, Any]] = {}
    for name, kind in {WRITER: None, **KINDS}.items():
        place = output / f"{name.replace(' ', '_')}.json"
        if not place.exists():
            began = time.perf_counter()
            found = {} if kind is None else _train(output, kind, name, writer, orders, sizes)
            model = writer if kind is None else order_model.prepare(
                load.load_order_model(_checkpoint(output, name)),
                DecodingSpec(refresh_every=sizes.refresh_every, margin=sizes.length // 16))
            found |= _measure(model, days, orders, reference, sizes)
            _write(place, found | {"seconds": time.perf_counter() - began})
        rows[name] = json.loads(place.read_text(encoding="utf-8"))
        print(_line(name, rows[name]), flush=True)
    about = {"device": jax.devices()[0].device_kind, "jax": jax.__version__}
    _write(output / "results.json", {**about, "sizes": dataclasses.asdict(sizes), "models": rows})
    print("\n" + _table(rows))


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="folder")
    parser.add_argument("--small", action="store_true", help="a trial of everything, which says nothing of the models")
    return parser.parse_args()


def _begin(output: Path, sizes: Sizes) -> None:
    """Makes the folder, or goes on with it; InputError where it has other sizes."""
    output.mkdir(parents=True, exist_ok=True)
    place, wanted = output / "sizes.json", json.loads(json.dumps(dataclasses.asdict(sizes)))
    if not place.exists():
        _write(place, wanted)
    if json.loads(place.read_text(encoding="utf-8")) != wanted:
        raise InputError(f"{place}: the folder holds models of other sizes; remove it, or name another")


def _write(place: Path, found: Any) -> None:
    """A file of JSON, which appears when it is whole."""
    part = place.with_name(f"{place.name}.part")
    part.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    part.replace(place)


def _made(place: Path, writer: PreparedModel, days: Any, sizes: Sizes) -> tuple[Orders, np.ndarray]:
    """Orders to train on and held out, and tokens of other futures, int32 [F, T, C], that futures are compared with."""
    validating = max(min(sizes.futures // 8, 32), 1)
    spec = MadeOrdersSpec(sizes.futures + validating + sizes.held_out + 16, sizes.orders)
    if not place.exists():
        made = scaling.made_orders(writer, days, spec)
        other = scaling.made_orders(writer, days, _compared(sizes, OTHER_FUTURES))
        part = place.with_name("part.npz")
        np.savez(part, rows=made.rows, given=made.given, other=other.written())
        part.replace(place)
    with np.load(place) as kept:
        made = MadeOrders(kept["rows"], int(kept["given"]), 0, 0, 0)
        other = kept["other"]
    return scaling.of_made(writer.model.spec.tokens, made, [sizes.futures], sizes.held_out), other[..., :-1]


def _compared(sizes: Sizes, first: int) -> MadeOrdersSpec:
    return MadeOrdersSpec(sizes.compared, sizes.orders, first=first)


def _checkpoint(output: Path, name: str) -> Path:
    return output / f"{name.replace(' ', '_')}.checkpoint"


def _train(output: Path, kind: Kind, name: str, writer: PreparedModel, orders: Orders, sizes: Sizes) -> dict[str, Any]:
    """Trains a kind into its checkpoint, and says how: the weights at the best look at the orders that validate."""
    began, key, amount = time.perf_counter(), jax.random.key(0), orders.amounts[0]
    compute = ComputeSpec("float32" if jax.default_backend() == "cpu" else "bfloat16")
    spec = ModelSpec(kind.width, kind.layers, kind.heads, sizes.length, orders.tokens,
                     whole_cancels=writer.model.spec.whole_cancels, mixer=kind.mixer)
    train = TrainSpec(sizes.steps, sizes.batch, sizes.length, 5e-3 * min(32 / kind.width, 1.0) ** 0.75,
                      max(sizes.steps // 10, 1), 0.1, structured.UNDECAYED, average=0.98)
    objective: Any = Labelled(math.gcd(128, sizes.length))
    if kind.teacher:
        known = writer.model if kind.teacher == WRITER else load.load_order_model(_checkpoint(output, kind.teacher))
        teacher = Teacher(known.model.replace(compute=compute), known.converters, weight=1.0)
        teacher.check(spec, writer.model.converters)
        objective = distill.objective(objective, teacher)
    counts = sum(np.bincount(day[:, -1], minlength=orders.tokens.classes) for day in amount.training)
    fresh = structured.init(spec, jax.random.fold_in(key, 0), counts, 2 if kind.width < 32 else 4, compute)
    looks = ScalingSpec(length=sizes.length, dtype=compute.dtype)
    best, step, lowest = fresh, 0, math.inf
    for progress, _ in loop.run(train, objective, loop.begin(train, fresh), amount.training,
                                jax.random.fold_in(key, 1), sizes.every):
        loss = float(np.mean(scaling.held_out(looks, progress.average, orders._replace(held_out=amount.validation))))
        if loss < lowest:
            best, step, lowest = jax.tree.map(jnp.copy, progress.average), int(progress.step), loss
    model = structured.expand(jax.device_get(best)).replace(compute=ComputeSpec())
    if _checkpoint(output, name).exists():  # of a run that was ended before it had measured it
        shutil.rmtree(_checkpoint(output, name))
    checkpoints.save(_checkpoint(output, name), model, dict(writer.model.converters), {"source": name})
    learnt = sum(x.size for x in jax.tree.leaves(fresh.body)) + sum(x.size for x in jax.tree.leaves(model.head))
    return {"numbers": int(learnt), "best_step": step, "validation": lowest, "train_s": time.perf_counter() - began}


def _measure(prepared: PreparedModel, days: Any, orders: Orders, reference: np.ndarray, sizes: Sizes) -> dict[str, Any]:
    """Loss on orders held out, nats an order with its standard error over futures; realism; orders a second."""
    nats = scaling.floor(prepared.model.model, orders, sizes.length)
    made = scaling.made_orders(prepared, days, _compared(sizes, OWN_FUTURES))
    close = _similarities(orders, made.written()[..., :-1], reference)
    return {"held_out": float(np.mean(nats)), "error": float(np.std(nats, ddof=1) / math.sqrt(len(nats))),
            "nats": nats.tolist(), "cache": prepared.cache.mode, "similarity": close,
            "left_out": made.left_out, "tokens_a_decision": made.tokens / made.decisions,
            "orders_per_s": {str(count): _speed(prepared, days[1], count, sizes) for count in sizes.trajectories}}


def _similarities(orders: Orders, mine: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """1 - total variation between a model's futures and the writer's, tokens int32 [F, T, C], by quantity.

    Each value that one of them has is a bin of its own; but moves are in bins that the writer's fill evenly.
    """
    found = {}
    for name, of_mine in _quantities(orders, mine).items():
        of_writer = _quantities(orders, reference)[name]
        edges = (realism.quantile_edges(of_writer.ravel()) if name == "move" else
                 np.union1d(of_mine, of_writer))
        found[name] = realism.similarity(realism.sample(list(of_mine)), realism.sample(list(of_writer)), edges)
    return found


def _quantities(orders: Orders, tokens: np.ndarray) -> dict[str, np.ndarray]:
    """What is compared of futures, [F, N] each: fields of the orders, the book that they left, moves of the mid."""
    kind, price, volume, interval = (np.asarray(x) for x in encoding.unpack(orders.tokens, tokens[..., 0]))
    more = tokens[..., encoding.COLUMNS :]
    over = min(MOVE_OVER, tokens.shape[1] // 2)
    mid = tokens[:, ::over, 3].astype(np.float64)
    return {"price under kind": kind * orders.tokens.price_levels + price, "volume": volume, "interval": interval,
            "spread": more[..., 3], "best volumes": more[..., 4:6].reshape(len(tokens), -1),
            "move": np.diff(mid, axis=1)}


def _speed(prepared: PreparedModel, day: Any, trajectories: int, sizes: Sizes) -> float:
    """Decisions of all markets together in a second, the median of some spans of whole refresh periods."""
    market = day.feed.venue.market(capacity=8192, accounts=futures.ACCOUNT + 1, trade_width=32)
    (start,) = starts.states_of_feed(market, prepared, day.feed, [day.start_ns]).starts
    capacity = futures.first_capacity(futures.FuturesSpec(trajectories, 5), [start])
    simulator = prepared.simulator(dataclasses.replace(market, capacity=capacity)).replace(account=futures.ACCOUNT)
    begun = jax.tree.map(lambda x: np.repeat(np.asarray(x)[None], trajectories, axis=0), resize(start, capacity))
    until = times.from_ns(np.full(trajectories, day.start_ns + 3600 * SECOND_NS))
    state = jax.jit(sim_step.begin)(simulator, begun, np.arange(trajectories, dtype=np.int32), (), until)
    state, spans = jax.block_until_ready(_several(simulator, state, sizes.timed_steps)), []
    for _ in range(sizes.repeats):
        began = time.perf_counter()
        state = jax.block_until_ready(_several(simulator, state, sizes.timed_steps))
        spans.append(time.perf_counter() - began)
    return trajectories * sizes.timed_steps / statistics.median(spans)


@functools.partial(jax.jit, static_argnums=2, donate_argnums=1)
def _several(simulator: Simulator, state: SimState, steps: int) -> SimState:
    """The states some steps later."""
    prepared = simulator.prepared()

    def one(_: jax.Array, state: SimState) -> SimState:
        return sim_step.step(prepared, state, sim_step.draw(jnp.uint32(0), state.trajectory, state.step))[0]

    found: SimState = jax.lax.fori_loop(0, steps, one, state)
    return found


def _line(name: str, row: dict[str, Any]) -> str:
    speed = ", ".join(f"{value:,.0f} orders/s of {count}" for count, value in row["orders_per_s"].items())
    return f"{name}: {row['held_out']:.4f} nats; {speed}; {row['seconds']:.0f} s"


def _table(rows: dict[str, dict[str, Any]]) -> str:
    """Markdown; losses are also given above the writer's, with the standard error of that difference over futures."""
    counts = list(next(iter(rows.values()))["orders_per_s"])
    of = list(rows[WRITER]["similarity"])
    lines = ["| model | numbers learnt | nats | above the writer | " + " | ".join(of) + " | "
             + " | ".join(f"orders/s, {count}" for count in counts) + " |", "|---" * (4 + len(of) + len(counts)) + "|"]
    least = np.array(rows[WRITER]["nats"])
    for name, row in rows.items():
        apart = np.array(row["nats"]) - least
        above = f"{apart.mean():.4f} ± {apart.std(ddof=1) / math.sqrt(len(apart)):.4f}" if name != WRITER else "0"
        lines.append("| " + " | ".join([
            name, f"{row['numbers']:,}" if "numbers" in row else "", f"{row['held_out']:.4f}", above,
            *(f"{row['similarity'][each]:.3f}" for each in of),
            *(f"{row['orders_per_s'][count]:,.0f}" for count in counts)]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
