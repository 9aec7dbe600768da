"""An order model ready for rollouts: its bins, how it is decoded, and what there is to say of it."""

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from marsjax.agents.base import Agent
from marsjax.checkpoint import load
from marsjax.checkpoint.load import LoadedModel
from marsjax.core import kernels, limits
from marsjax.core.errors import InputError
from marsjax.core.kernels import Kernels
from marsjax.core.specs import CacheSpec, MarketSpec, ModelSpec
from marsjax.model.llama import OrderModel
from marsjax.sim.simulator import Simulator
from marsjax.sim.specs import SimulationSpec
from marsjax.tokens import encoding
from marsjax.tokens.encoding import DrawTables, TokenTables

_LEAST_SHARED = 256
"""Width of a model from which on slots in common are read once: on an H200 a width of 1,024 gains a quarter by that,
one of 64 loses a tenth; between them nothing was measured."""
_ROWS_ON_A_CPU = 64


@dataclasses.dataclass(frozen=True)
class DecodingSpec:
    """How the contexts of an order model are kept."""

    context: str = "auto"
    """rolling, refresh, recompute or recurrent (`CacheSpec.mode`); auto: rolling for one layer, where it is exact, else
    refresh, and recurrent for linear attention (`CacheSpec.usual_mode`)."""
    refresh_every: int = 448
    margin: int = 64
    cache_dtype: str = "model"
    """Of keys and values: model, the model's own, or int8 (`CacheSpec.cache_dtype`)."""
    prefix: str = "auto"
    """How the slots are read that trajectories of one start have in common, in refresh: own, each reads its copy, or
    shared, they are read once for all (`CacheSpec.prefix`); auto: shared for a wide model where a GPU's
    kernels read contexts."""
    rows: int = 0
    """Trajectories decoded together, which fixes the bits; 0: 64 on a CPU, all of a batch elsewhere."""

    def __post_init__(self) -> None:
        limits.check_whole("DecodingSpec.rows", self.rows, 0, limits.TRAJECTORIES)
        if self.cache_dtype not in ("model", "int8") or (
                self.cache_dtype == "int8" and self.context in ("recompute", "recurrent")):
            raise InputError("DecodingSpec.cache_dtype: expected model or int8, and model with context=recompute or "
                             f"recurrent, got {self.cache_dtype!r} with context={self.context}")
        allowed = ("auto", "own", "shared") if self.context in ("auto", "refresh") else ("auto", "own")
        if self.prefix not in allowed:
            raise InputError(f"DecodingSpec.prefix: expected {' or '.join(allowed)} with context={self.context}, got "
                             f"{self.prefix!r}")


@dataclasses.dataclass(frozen=True, eq=False)
class PreparedModel:
    """An order model with what its rollouts need.

    Examples:
      >>> from marsjax import testing
      >>> prepared = prepare(testing.tiny_model())
      >>> prepared.cache.mode
      'rolling'
    """

    model: LoadedModel
    cache: CacheSpec
    table: TokenTables
    draws: DrawTables
    slots: int | None
    """Trajectories that run at a time; None: all of a batch."""

    def simulator(self, market: MarketSpec, temperature: float = 1.0, agents: Sequence[Agent] = (),
                  end_ns: int | None = None) -> Simulator:
        """The model in a market, beside other agents."""
        ways = self.cache.kernels
        spec = SimulationSpec(dataclasses.replace(market, kernels=ways), self.cache, end_ns=end_ns,
                              temperature=temperature, agents=tuple(agents), kernels=ways)
        return Simulator(self.model.model, self.table, self.draws, spec)


def prefix_of(given: str, mode: str, ways: Kernels, model: ModelSpec) -> str:
    """`CacheSpec.prefix` of what was given, `auto` or one of its own."""
    if given != "auto":
        return given
    pays = ways.attention == "kernel" and model.embed_dim >= _LEAST_SHARED
    return "shared" if mode == "refresh" and pays else "own"


def prepare(model: LoadedModel, decoding: DecodingSpec = DecodingSpec(), platform: str | None = None) -> PreparedModel:
    """A loaded model with its bins and its decode cache; InputError where it lacks converters or does not fit them.

    Args:
      model: the model.
      decoding: how its contexts are kept.
      platform: of the device that it is to run on, as JAX names it; None: that of JAX's default device.
    """
    table = encoding.tables(model.spec.tokens, model.converters)
    draws = encoding.draw_tables(model.spec.tokens, model.converters)
    ways = kernels.chosen(None) if platform is None else kernels.for_platform(platform)
    if ways.rows is not None or decoding.rows:
        ways = dataclasses.replace(ways, rows=decoding.rows or _ROWS_ON_A_CPU)
    mode = decoding.context
    if mode == "auto":
        mode = CacheSpec.usual_mode(model.spec)
    try:
        cache = CacheSpec(mode=mode, refresh_every=decoding.refresh_every, margin=decoding.margin, append=1,
                          kernels=ways, cache_dtype=decoding.cache_dtype,
                          prefix=prefix_of(decoding.prefix, mode, ways, model.spec))
        cache.kept(model.spec)
    except InputError as error:
        raise InputError(_of_decoding(str(error), model.spec)) from error
    # A CPU computes row by row: rows of trajectories that have ended cost it as much as others.
    return PreparedModel(model, cache, table, draws,
                         ways.rows if ways == dataclasses.replace(kernels.CPU, rows=ways.rows)
                         else None)


def _of_decoding(error: str, model: ModelSpec) -> str:
    """An error of a CacheSpec, in the fields of a DecodingSpec."""
    if error.startswith("CacheSpec:"):
        return (f"its window of {model.context_length} orders does not fit context, refresh_every and margin: {error}")
    return error.replace("CacheSpec.mode:", "DecodingSpec.context:").replace("CacheSpec.", "DecodingSpec.")


def trained_days(about: Mapping[str, Any]) -> list[str]:
    """The days <symbol>_<date> that a checkpoint says it is trained on."""
    return sorted(set(re.findall(r"\b[0-9A-Za-z]+_\d{8}\b", str(about.get("source", "")))))


def headline(prepared: PreparedModel, name: str) -> str:
    """One line about the model."""
    spec = prepared.model.spec
    losses = held_out_losses(dict(prepared.model.about))
    model, simple = (_loss_of_an_order(losses, of) for of in ("model", "frequencies"))
    quoted = "no held-out loss in its checkpoint" if model is None else f"held-out loss {model:.2f} nats an order"
    if model is not None and simple is not None:
        quoted += f", of frequencies alone {simple:.2f}"
    reads = "linear attention, trained on windows of" if spec.mixer == "linear" else "reads"
    return (f"model {name}: {spec.layers} x {spec.embed_dim}, {_count(prepared.model.model):,} parameters, {reads} "
            f"{spec.context_length:,} orders; {quoted}")


def _loss_of_an_order(losses: Mapping[str, float], of: str) -> float | None:
    """Over all days, of what `experiments.train` writes; else the only number there is."""
    found = [value for key, value in losses.items() if key.endswith(f"{of}.all.order")]
    if not found and of == "model" and len(losses) == 1:
        found = list(losses.values())
    return found[0] if found else None


def describe(prepared: PreparedModel, name: str, revision: str = "") -> dict[str, Any]:
    """Which model it was: name, sizes, a hash of its parameters, and what its writer says about it."""
    model = prepared.model
    return {"name": name, "revision": revision, "sizes": dataclasses.asdict(model.spec),
            "parameters": _count(model.model), "sha256": parameters_hash(model.model),
            "cache": dataclasses.asdict(prepared.cache), "about": dict(model.about)}


def _count(model: OrderModel) -> int:
    return sum(int(x.size) for x in jax.tree.leaves(model))


class HasWeights(Protocol):
    """A model of any kind."""

    def weights(self) -> Mapping[str, Any]:
        """Arrays by their names."""
        ...


def parameters_hash(model: HasWeights) -> str:
    """SHA-256 of names, shapes, types and bytes of all parameters."""
    total = hashlib.sha256()
    for name, weight in model.weights().items():
        array = np.asarray(weight)
        total.update(f".{name} {array.shape} {array.dtype}".encode())
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


def loaded(name: str, device: jax.Device) -> PreparedModel:
    """The order model of a name (`checkpoint.load.load_order_model`) on a device, with what its rollouts need there.

    InputError or OSError where it cannot be used.
    """
    model = load.load_order_model(name, sharding=jax.sharding.SingleDeviceSharding(device))
    return prepare(model, platform=device.platform)
