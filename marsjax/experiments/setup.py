"""A config -> specs and an order model: what the programs share."""

import contextlib
import dataclasses
import platform
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import flax
import jax
import jaxlib
import numpy as np
from ml_collections import ConfigDict

import marsjax
from marsjax.core import limits, times
from marsjax.core.errors import InputError
from marsjax.core.specs import MarketSpec
from marsjax.core.times import SECOND_NS
from marsjax.data.feed import DayFeed
from marsjax.sim.checks import Memory
from marsjax.sim.initial import Warmup
from marsjax.studies import adapted as studies_adapted
from marsjax.studies import order_model, starts
from marsjax.studies.order_model import DecodingSpec, PreparedModel
from marsjax.studies.progress import Watching
from marsjax.studies.starts import NoiseMarket

_Spec = TypeVar("_Spec")


@contextlib.contextmanager
def named(prefix: str) -> Iterator[None]:
    """Puts a prefix before the message of an InputError."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{prefix}: {error}") from error


@contextlib.contextmanager
def keyed(begins: Mapping[str, str]) -> Iterator[None]:
    """Names keys of the config in an InputError, in place of fields of records.

    `begins` are beginnings of keys by those of the fields that they stand for, as {"OwnMinutes.": "own_"}.
    """
    try:
        yield
    except InputError as error:
        text = str(error)
        for field, key in begins.items():
            text = text.replace(field, f"config.{key}")
        raise InputError(text) from error


def spec_of(kind: type[_Spec], config: ConfigDict, **given: Any) -> _Spec:
    """A spec whose fields are keys of the config, but for those given; an InputError names the key."""
    fields = [field.name for field in dataclasses.fields(kind) if field.name not in given]  # type: ignore[arg-type]
    keys = {name: config[name] for name in fields if name in config}
    with keyed({f"{kind.__name__}.": ""}):
        return kind(**keys, **given)


def at_least(config: ConfigDict, key: str, least: int, most: int = limits.TRAJECTORIES) -> int:
    """A key that holds a whole number of `least` to `most`; InputError otherwise."""
    limits.check_whole(f"config.{key}", config[key], least, most)
    return int(config[key])


def time_ns(config: ConfigDict, key: str) -> int:
    """A key that holds a time HH:MM:SS, in nanoseconds since midnight."""
    try:
        return times.of_clock(config[key])
    except InputError as error:
        raise InputError(f"config.{key}: expected a time HH:MM:SS, got {config[key]!r}") from error


def noise_market(config: ConfigDict, minutes_key: str = "noise_minutes", seed_key: str = "noise_seed") -> NoiseMarket:
    """The noise agent that a config describes, from `start_time` on."""
    warmup = Warmup(start_ns=time_ns(config, "start_time"),
                    duration_ns=at_least(config, minutes_key, 1, limits.MINUTES) * 60 * SECOND_NS)
    with named(f"config.init_price, config.interval_s, config.{seed_key}"):
        return NoiseMarket(starts.noise_agent(config.init_price, config.interval_s), warmup, config[seed_key])


def load_order_model(config: ConfigDict) -> PreparedModel:
    """The order model that a config names; InputError or OSError where it cannot be used."""
    decoding = spec_of(DecodingSpec, config)
    model = marsjax.load_order_model(config.model, config.revision or None, config.dtype,
                                     converters=config.converters or None, ignore_keys=config.ignore_keys)
    with keyed({"DecodingSpec.": ""}), named(f"config.model {config.model}"):
        return order_model.prepare(model, decoding)


def watching() -> Watching:
    """Prints what rollouts take of the memory before they run, once for as many trajectories."""
    said: set[int] = set()

    def on_memory(found: Memory) -> None:
        if found.trajectories not in said:
            print(found.line(), flush=True)
        said.add(found.trajectories)

    return Watching(on_memory=on_memory)


def adapted(config: ConfigDict, prepared: PreparedModel, market: MarketSpec, feed: DayFeed, before_ns: int
            ) -> PreparedModel:
    """The order model, taught by a day that it does not know if the config says so, which is printed."""
    steps = at_least(config, "adapt_steps", 0)
    own, said = studies_adapted.to_day(prepared, market, feed, before_ns, steps)
    if said:
        print(said, flush=True)
    return own


def about(config: ConfigDict, prepared: PreparedModel | None = None) -> dict[str, Any]:
    """What a repetition needs: the order model, if there is one, versions, device and config."""
    device = jax.devices()[0]
    found = {"versions": {"marsjax": marsjax.__version__, "jax": jax.__version__, "jaxlib": jaxlib.__version__,
                          "flax": flax.__version__, "numpy": np.__version__, "python": platform.python_version()},
             "device": f"{device.device_kind} ({device.platform})", "config": config}
    return {"model": order_model.describe(prepared, config.model, config.revision), **found} if prepared else found
