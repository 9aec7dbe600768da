"""A config -> starting states and an order model to simulate them with: what experiments with rollouts share."""

import dataclasses
import hashlib
import platform
from collections.abc import Iterator
from typing import Any, NamedTuple

import flax
import jax
import jaxlib
import numpy as np
from ml_collections import ConfigDict

import marsjax
from marsjax import start, tokens
from marsjax.agents.noise import NoiseSpec
from marsjax.data.feed import FeedChunk
from marsjax.experiments import sources
from marsjax.model import Params
from marsjax.order_model import LoadedModel
from marsjax.specs import SECOND_NS, CacheSpec, MarketSpec, Phase
from marsjax.tokens import DrawTables, TokenTables

OWNER = 1
"""Account of the order model; the orders of a starting state are those of account 0, which it may cancel."""
_QUOTED = 5
"""Held-out losses named in one line; all of them are in the metrics."""


_ROWS = 64
"""Trajectories decoded together on a CPU: of the default model 64 take as long each as 128 do (0.15 ms a decision on
two cores), and fewer of them wait for the last to end."""


class Opened(NamedTuple):
    """Orders to start from."""

    name: str
    feed: Iterator[FeedChunk]
    is_real: bool
    """There are orders after the start, to compare with."""


@dataclasses.dataclass(frozen=True, eq=False)
class Simulator:
    """An order model with what its rollouts need."""

    model: LoadedModel
    cache: CacheSpec
    table: TokenTables
    draws: DrawTables
    slots: int | None
    """Trajectories that run at a time; None: all of a batch."""


def market_spec(config: ConfigDict) -> MarketSpec:
    """The market that a config describes; ValueError names a key with a wrong value."""
    return MarketSpec(tick=config.tick, capacity=config.capacity, trade_width=config.trade_width, owners=OWNER + 1,
                      session=sources.session(config))


def open_feeds(config: ConfigDict, market: MarketSpec) -> list[Opened]:
    """The orders of the noise agent, or of the days named; ValueError or OSError where there are none."""
    if config.source == "noise":
        agent = NoiseSpec(init_price=config.init_price, interval_ns=round(config.interval_s * SECOND_NS))
        _, sent = start.noise(market, agent, warmup(config), config.noise_seed)
        return [Opened("noise", iter([sources.as_chunk(sent[0])]), False)]
    if config.source != "sse":
        raise ValueError(f"config.source: expected noise or sse, got {config.source!r}")
    return [Opened(source.name, source.feed, True) for source in sources.open_sources(config, market)]


def warmup(config: ConfigDict) -> start.Warmup:
    """When the noise agent trades."""
    return start.Warmup(start_ns=sources.time_ns(config, "start_time"),
                        duration_ns=whole(config, "noise_minutes", 1) * 60 * SECOND_NS)


def check_time(market: MarketSpec, time_ns: int, minutes: int) -> None:
    """ValueError unless one period of continuous trading holds a start and the minutes after it."""
    periods = [period for period in market.session.periods if period.phase == Phase.CONTINUOUS]
    spoken = " and ".join(f"{spell(period.start_ns)} to {spell(period.end_ns)}" for period in periods)
    inside = [period for period in periods if period.start_ns <= time_ns <= period.end_ns]
    if not inside:
        raise ValueError(f"start at {spell(time_ns)}: expected a time of continuous trading, {spoken}")
    end_ns = time_ns + minutes * 60 * SECOND_NS
    if end_ns > inside[0].end_ns:
        raise ValueError(f"start at {spell(time_ns)}: its {minutes} minutes end at {spell(end_ns)}, past the end of "
                         f"continuous trading at {spell(inside[0].end_ns)}")


def spell(time_ns: int) -> str:
    """HH:MM:SS, with a fraction where there is one."""
    second, rest = divmod(time_ns, SECOND_NS)
    text = f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}"
    return text + (f".{rest:09d}".rstrip("0") if rest else "")


def check_rollouts(config: ConfigDict) -> None:
    """ValueError for a key of the rollouts that is out of range, before anything is read."""
    for key in ("trajectories", "minutes", "chunk_steps"):
        whole(config, key, 1)
    whole(config, "rollout_capacity", 0)
    if not 0 <= config.seed < 2**31:
        raise ValueError(f"config.seed: expected 0 to {2**31 - 1}, got {config.seed}")
    if not 0 < config.temperature < float("inf"):
        raise ValueError(f"config.temperature: expected a number above 0, got {config.temperature}")


def whole(config: ConfigDict, key: str, least: int) -> int:
    """A key that holds a number of at least `least`; ValueError otherwise."""
    if config[key] < least:
        raise ValueError(f"config.{key}: expected at least {least}, got {config[key]}")
    return int(config[key])


def load_simulator(config: ConfigDict) -> Simulator:
    """The order model that a config names; ValueError or OSError where it cannot be used."""
    model = marsjax.load_order_model(config.model, config.revision or None, config.dtype,
                                     converters=config.converters or None)
    try:
        table = tokens.tables(model.spec.tokens, model.converters)
        draws = tokens.draw_tables(model.spec.tokens, model.converters)
    except ValueError as error:
        raise ValueError(f"config.model {config.model}: {error}") from error
    cache = _cache_spec(config, model)
    # A CPU computes row by row: rows of trajectories that have ended cost it as much as others.
    return Simulator(model, cache, table, draws, cache.rows if jax.default_backend() == "cpu" else None)


def _cache_spec(config: ConfigDict, model: LoadedModel) -> CacheSpec:
    """`auto` is rolling for one layer, exactly the window of the reference, and hop for more."""
    if config.rows < 0:
        raise ValueError(f"config.rows: expected at least 0, got {config.rows}")
    mode = config.context
    if mode == "auto":
        mode = "rolling" if model.spec.layers == 1 else "hop"
    on_cpu = jax.default_backend() == "cpu"
    rows = config.rows or (_ROWS if on_cpu else None)
    cache = CacheSpec(mode=mode, hop=config.hop, margin=config.margin, append=1, rows=rows, compute=model.compute)
    try:
        cache.kept(model.spec)
    except ValueError as error:
        raise ValueError(f"config.model {config.model}: its window of {model.spec.max_orders} orders does not fit "
                         f"config.context, hop and margin: {error}") from error
    return cache


def headline(simulator: Simulator, config: ConfigDict) -> str:
    """One line about the model."""
    spec = simulator.model.spec
    count = sum(int(x.size) for x in jax.tree.leaves(simulator.model.params))
    losses = list(held_out_losses(dict(simulator.model.about)).items())
    told = ", ".join(f"{key} {value:.4g}" for key, value in losses[:_QUOTED]) + ", ..." * (len(losses) > _QUOTED)
    return (f"model {config.model}: {spec.layers} x {spec.width}, {count:,} parameters, window {spec.max_orders}, "
            f"context {simulator.cache.mode}; {told or 'its checkpoint tells no held-out loss'}")


def describe_model(simulator: Simulator, config: ConfigDict) -> dict[str, Any]:
    """Which model it was: name, sizes, a hash of its parameters, and what its writer says about it."""
    model = simulator.model
    return {"name": config.model, "revision": config.revision, "sizes": dataclasses.asdict(model.spec),
            "parameters": sum(int(x.size) for x in jax.tree.leaves(model.params)),
            "sha256": parameters_hash(model.params), "cache": dataclasses.asdict(simulator.cache),
            "about": dict(model.about)}


def parameters_hash(params: Params) -> str:
    """SHA-256 of names, shapes, types and bytes of all parameters."""
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        array = np.asarray(leaf)
        total.update(f"{jax.tree_util.keystr(path)} {array.shape} {array.dtype}".encode())
        total.update(np.ascontiguousarray(array).view(np.uint8).data)
    return total.hexdigest()


def held_out_losses(about: Any, name: str = "") -> dict[str, float]:
    """Numbers of a checkpoint's `about` under keys that hold `held_out`, by their dotted keys."""
    if isinstance(about, dict):
        found: dict[str, float] = {}
        for key, value in about.items():
            found |= held_out_losses(value, f"{name}.{key}".lstrip("."))
        return found
    is_number = isinstance(about, int | float) and not isinstance(about, bool)
    return {name: float(about)} if is_number and "held_out" in name else {}


def environment() -> dict[str, Any]:
    """Versions and device of this process."""
    device = jax.devices()[0]
    return {"versions": {"marsjax": marsjax.__version__, "jax": jax.__version__, "jaxlib": jaxlib.__version__,
                         "flax": flax.__version__, "numpy": np.__version__, "python": platform.python_version()},
            "device": f"{device.device_kind} ({device.platform})"}
