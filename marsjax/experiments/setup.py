"""A config -> specs, feeds and an order model: what the programs share."""

import contextlib
import dataclasses
import datetime
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import flax
import jax
import jaxlib
import numpy as np
from ml_collections import ConfigDict

import marsjax
from marsjax.core.errors import InputError
from marsjax.core.sessions import Session, chinese_session, continuous_session
from marsjax.core.specs import MarketSpec
from marsjax.core.times import SECOND_NS
from marsjax.data import DayFeed, sources
from marsjax.sim.initial import Warmup
from marsjax.studies import futures, order_model, starts
from marsjax.studies.order_model import DecodingSpec, PreparedModel
from marsjax.studies.starts import NoiseMarket

_Spec = TypeVar("_Spec")


@contextlib.contextmanager
def named(prefix: str) -> Iterator[None]:
    """Puts a prefix before the message of an InputError."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{prefix}: {error}") from error


def spec_of(kind: type[_Spec], config: ConfigDict, **given: Any) -> _Spec:
    """A spec whose fields are keys of the config, but for those given; an InputError names the key."""
    fields = [field.name for field in dataclasses.fields(kind) if field.name not in given]  # type: ignore[arg-type]
    keys = {name: config[name] for name in fields if name in config}
    try:
        return kind(**keys, **given)
    except InputError as error:
        raise InputError(str(error).replace(f"{kind.__name__}.", "config.")) from error


def at_least(config: ConfigDict, key: str, least: int) -> int:
    """A key that holds a number of at least `least`; InputError otherwise."""
    if config[key] < least:
        raise InputError(f"config.{key}: expected at least {least}, got {config[key]}")
    return int(config[key])


def time_ns(config: ConfigDict, key: str) -> int:
    """A key that holds a time HH:MM:SS, in nanoseconds since midnight."""
    try:
        at = datetime.time.fromisoformat(config[key])
    except ValueError as error:
        raise InputError(f"config.{key}: expected a time HH:MM:SS, got {config[key]!r}") from error
    return (at.hour * 3600 + at.minute * 60 + at.second) * SECOND_NS + at.microsecond * 1000


def session(config: ConfigDict) -> Session:
    """The session that a config names; InputError for an unknown one."""
    if config.session == "chinese":
        return chinese_session()
    if config.session != "continuous":
        raise InputError(f"config.session: expected chinese or continuous, got {config.session!r}")
    return continuous_session(time_ns(config, "start_time"), time_ns(config, "end_time"))


def market_spec(config: ConfigDict, accounts: int = futures.ACCOUNT + 1) -> MarketSpec:
    """The market that a config describes; InputError names a key with a wrong value."""
    return MarketSpec(tick=config.tick, capacity=config.capacity, trade_width=config.trade_width, accounts=accounts,
                      session=session(config))


def noise_market(config: ConfigDict, minutes_key: str = "noise_minutes", seed_key: str = "noise_seed") -> NoiseMarket:
    """The noise agent that a config describes, from `start_time` on."""
    warmup = Warmup(start_ns=time_ns(config, "start_time"),
                    duration_ns=at_least(config, minutes_key, 1) * 60 * SECOND_NS)
    return NoiseMarket(starts.noise_agent(config.init_price, config.interval_s), warmup, config[seed_key])


def load_order_model(config: ConfigDict) -> PreparedModel:
    """The order model that a config names; InputError or OSError where it cannot be used."""
    decoding = spec_of(DecodingSpec, config)
    model = marsjax.load_order_model(config.model, config.revision or None, config.dtype,
                                     converters=config.converters or None)
    with named(f"config.model {config.model}"):
        return order_model.prepare(model, decoding)


def open_feeds(config: ConfigDict) -> list[DayFeed]:
    """The feeds of real orders that a config names; FileNotFoundError where there are none."""
    if config.source not in sources.names():
        raise InputError(f"config.source: expected {', '.join(['noise', *sources.names()])}, got {config.source!r}")
    symbols = [] if config.symbol == "all" else config.symbol.split("+")
    if config.source == "csv":
        if not config.file:
            raise InputError("config.file: expected the path of a CSV of orders (csv,file=orders.csv.gz), got ''")
        return sources.open_days("csv", config.file)
    if not Path(config.folder).is_dir():
        raise FileNotFoundError(f"config.folder: no folder {config.folder} (give it as {config.source},folder=PATH)")
    options = {"grouped": config.grouped} if config.source == "lobster" else {}
    return sources.open_days(config.source, config.folder, symbols, config.date, **options)


def open_noise_or_days(config: ConfigDict, market: MarketSpec) -> list[DayFeed]:
    """The orders of one noise market, or of the Shanghai days that a config names."""
    if config.source == "noise":
        (sent,) = starts.noise_orders(market, noise_market(config))
        return [starts.feed_of("noise", sent)]
    if config.source != "sse":
        raise InputError(f"config.source: expected noise or sse, got {config.source!r}")
    return open_feeds(config)


def about(config: ConfigDict, prepared: PreparedModel | None = None) -> dict[str, Any]:
    """What a repetition needs: the order model, if there is one, versions, device and config."""
    device = jax.devices()[0]
    found = {"versions": {"marsjax": marsjax.__version__, "jax": jax.__version__, "jaxlib": jaxlib.__version__,
                          "flax": flax.__version__, "numpy": np.__version__, "python": platform.python_version()},
             "device": f"{device.device_kind} ({device.platform})", "config": config}
    return {"model": order_model.describe(prepared, config.model, config.revision), **found} if prepared else found
