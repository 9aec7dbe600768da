"""Frozen, hashable sizes and units: the static arguments of the jitted functions. Each validates itself."""

import dataclasses
import decimal
import enum
from typing import cast

from marsjax.core.errors import InputError
from marsjax.core.kernels import Kernels
from marsjax.core.sessions import Session, continuous_session

_TRADE_WIDTH = 16


def _check_ints(spec: object, limits: dict[str, tuple[int, int]]) -> None:
    """InputError that names the first field that is no int within its limits."""
    for name, (low, high) in limits.items():
        value, of = getattr(spec, name), type(spec).__name__
        if type(value) is not int:
            raise InputError(f"{of}.{name}: expected an int, got {value!r}")
        if not low <= value <= high:
            raise InputError(f"{of}.{name}: expected {low} to {high}, got {value}")


@dataclasses.dataclass(frozen=True)
class TokenSpec:
    """How many bins an order token has of each quantity (reference: order tokens)."""

    price_levels: int = 32
    volumes: int = 32
    intervals: int = 16
    signals: bool = False
    """Whether tokens have seven columns more: how the mid moved lately, spread, touch, price (`tokens.signals`)."""

    def __post_init__(self) -> None:
        _check_ints(self, {"price_levels": (1, 1024), "volumes": (1, 1024), "intervals": (1, 1024)})
        if not isinstance(self.signals, bool):
            raise InputError(f"TokenSpec.signals: expected a bool, got {self.signals!r}")
        if self.classes >= 2**31:
            raise InputError(f"TokenSpec: {self.classes} classes do not fit in an int32")

    @property
    def classes(self) -> int:
        """Tokens there are: three kinds of order times the bins."""
        return 3 * self.price_levels * self.volumes * self.intervals


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """Sizes of an order model (reference: order model), and what its cancels mean.

    Examples:
      >>> ModelSpec(embed_dim=16, layers=1, heads=2).context_length
      1024
    """

    embed_dim: int = 16
    """Of the embeddings, d."""
    layers: int = 1
    heads: int = 2
    context_length: int = 1024
    """Tokens that the model sees at once."""
    tokens: TokenSpec = TokenSpec()
    ratio_embeddings: bool = False
    """Whether features 1 and 2 (volume and transaction ratio) are embedded too, [11, d] each."""
    whole_cancels: bool = False
    """Whether a cancel takes back one whole order, not shares of the oldest (`market.cancels`)."""
    pair_width: int = 0
    """Coordinates of the hidden state that rows of pairs of bins see in a head whose rows are summed
    (`model.row_head`); 0: the head has a row for each class, as the reference's."""
    mixer: str = "attention"
    """How a token reads those before it: `attention`, the reference's, or `linear`, which keeps a memory of fixed size
    in place of a key and a value for each token (`model.linear_attention`)."""

    def __post_init__(self) -> None:
        _check_ints(self,
                    {"embed_dim": (2, 65536), "layers": (1, 1024), "heads": (1, 1024), "context_length": (1, 2**20),
                     "pair_width": (0, self.embed_dim)})
        if self.embed_dim % (2 * self.heads):
            raise InputError(f"ModelSpec.embed_dim: expected a multiple of 2 x heads={self.heads} (rotary halves), "
                             f"got {self.embed_dim}")
        if not isinstance(self.tokens, TokenSpec):
            raise InputError(f"ModelSpec.tokens: expected a TokenSpec, got {self.tokens!r}")
        for name in ("ratio_embeddings", "whole_cancels"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"ModelSpec.{name}: expected a bool, got {getattr(self, name)!r}")
        if self.mixer not in ("attention", "linear"):
            raise InputError(f"ModelSpec.mixer: expected attention or linear, got {self.mixer!r}")


class AuctionRule(enum.Enum):
    """Which of the prices at which a call auction trades the most shares becomes its price."""

    REFERENCE = "reference"
    """One of the orders' own prices: the smallest imbalance, the nearest to the reference price, the lowest."""
    SHANGHAI = "shanghai"
    """Of the orders' own prices the one that leaves the fewest shares unmatched; of two the middle between them."""
    SHENZHEN = "shenzhen"
    """Of all prices the one that leaves the fewest shares unmatched; of several the nearest to the last close or
    trade."""


@dataclasses.dataclass(frozen=True)
class Units:
    """What the integers of a market stand for.

    Examples:
      >>> Units(price="0.01", volume="0.00000001", currency="USD").currency
      'USD'
    """

    price: str = "0.0001"
    """Currency, as a decimal number: one unit of a price."""
    volume: str = "1"
    """Shares, coins or contracts, as a decimal number: one unit of a volume, the lot size."""
    currency: str = ""
    """Its code, where it is known."""

    def __post_init__(self) -> None:
        for name in ("price", "volume"):
            value = getattr(self, name)
            try:
                number = decimal.Decimal(value)
            except (decimal.InvalidOperation, TypeError, ValueError) as error:
                raise InputError(f"Units.{name}: expected a decimal number as text, got {value!r}") from error
            if not (isinstance(value, str) and number.is_finite() and 0 < number <= 10**6 and number >= 1e-12):
                raise InputError(f"Units.{name}: expected text of a number from 1e-12 to 1000000, got {value!r}")


@dataclasses.dataclass(frozen=True)
class MarketSpec:
    """Sizes and units of one symbol's market.

    Examples:
      >>> from marsjax import MarketSpec
      >>> spec = MarketSpec(capacity=512, accounts=3)
      >>> spec.tick, spec.levels, spec.trade_width
      (100, 10, 16)
    """

    tick: int = 100
    """Smallest price step, 1e-4 of the currency."""
    capacity: int = 128
    """Resting orders a side."""
    trade_width: int = cast(int, None)
    """Transactions listed per order; longer sweeps are matched in full and their list is truncated. The default, None,
    stands for 16, or for `capacity` where that is less; the field then holds that number."""
    levels: int = 10
    """Levels a side in a view."""
    accounts: int = 2
    """Accounts kept by the exchange; orders name them 0 to accounts - 1."""
    session: Session = dataclasses.field(default_factory=continuous_session)
    auction_rule: AuctionRule = AuctionRule.REFERENCE
    """Of its call auctions."""
    conditions: bool = False
    """Whether orders may have a `Condition` other than REST; where not, one that has is answered with BAD_CONDITION."""
    units: Units = Units()
    """What prices and volumes stand for; no computation depends on it."""
    kernels: Kernels | None = None
    """The ways that the book computes in; None for those of JAX's default device. The results are the same."""

    def __post_init__(self) -> None:
        _check_ints(self, {"tick": (1, 10**6), "capacity": (1, 2**17), "levels": (1, 1024), "accounts": (1, 1024)})
        if cast(int | None, self.trade_width) is None:
            object.__setattr__(self, "trade_width", min(_TRADE_WIDTH, self.capacity))
        _check_ints(self, {"trade_width": (1, 32768)})
        if self.trade_width > self.capacity:
            raise InputError(f"MarketSpec.trade_width: expected at most capacity={self.capacity}, got "
                             f"{self.trade_width}: no order can hit more than `capacity` resting ones; lower "
                             "trade_width or raise capacity")
        if not isinstance(self.session, Session):
            raise InputError(f"MarketSpec.session: expected a Session, got {self.session!r}")
        for name, kind in (("auction_rule", AuctionRule), ("units", Units)):
            if not isinstance(getattr(self, name), kind):
                raise InputError(f"MarketSpec.{name}: expected a value of {kind.__name__}, got "
                                 f"{getattr(self, name)!r}")
        if not isinstance(self.conditions, bool):
            raise InputError(f"MarketSpec.conditions: expected a bool, got {self.conditions!r}")
        if self.kernels is not None and not isinstance(self.kernels, Kernels):
            raise InputError(f"MarketSpec.kernels: expected Kernels or None, got {self.kernels!r}")


@dataclasses.dataclass(frozen=True)
class ComputeSpec:
    """How the order model computes; norms, softmax and rotary angles are float32 whatever stands here."""

    dtype: str = "float32"
    """Of matrix products, activations and the cache: float32 or bfloat16. Parameters may be stored in either."""
    precision: str = "highest"
    """Of float32 matrix products: `highest`, or `default`, which is TensorFloat-32 (three digits) on a GPU."""

    def __post_init__(self) -> None:
        if self.dtype not in ("float32", "bfloat16"):
            raise InputError(f"ComputeSpec.dtype: expected float32 or bfloat16, got {self.dtype!r}")
        if self.precision not in ("highest", "default"):
            raise InputError(f"ComputeSpec.precision: expected highest or default, got {self.precision!r}")


@dataclasses.dataclass(frozen=True)
class CacheSpec:
    """How the order model remembers the tokens before a prediction (`marsjax.model.kv_cache`).

    Examples:
      >>> CacheSpec(mode="rolling").mode
      'rolling'
    """

    mode: str = "refresh"
    """`rolling`: one-layer models only, exactly the sliding window of the last context_length tokens. `refresh`: a
    context grows, and is made anew from its last tokens now and then. `recompute`: the whole window for every
    prediction, as the reference does. `recurrent`: models with `ModelSpec.mixer` linear only, whose memory has one size
    and holds all tokens since the start; of the others they take `recompute` alone."""
    refresh_every: int = 448
    """Steps between two refreshes, which keep the last context_length - refresh_every - margin tokens; `refresh`
    only."""
    margin: int = 64
    """Tokens beyond one a step that fit between two refreshes; a trajectory with more is refreshed by itself; `refresh`
    only."""
    append: int = 8
    """Tokens that a trajectory gets in one pass; more need another. 1 makes the fastest step of a deep model: take it
    where no agent sends several orders at once."""
    block: int = 16
    """Trajectories whose contexts are encoded together, at a refresh or in `recompute`."""
    kernels: Kernels | None = None
    """Which ways the step takes; None: those of the device that JAX works on."""
    cache_dtype: str = "model"
    """How keys and values are kept: `model`, in the dtype of `ComputeSpec`, or `int8`, in 8 bits with one float32 scale
    for each of a slot's heads, which is near the model's predictions, not equal to them."""
    prefix: str = "own"
    """How the slots are read that trajectories of one start have in common, until their first refresh: `own`, each
    reads its copy, or `shared`, they are read once for all trajectories (`marsjax.model.prefix`); `refresh` only. The
    results differ by rounding."""

    def __post_init__(self) -> None:
        if self.mode not in ("rolling", "refresh", "recompute", "recurrent"):
            raise InputError("CacheSpec.mode: expected rolling, refresh, recompute or recurrent, got "
                             f"{self.mode!r}")
        _check_ints(self, {"refresh_every": (1, 2**20), "margin": (0, 2**20), "append": (1, 1024), "block": (1, 65536)})
        if self.kernels is not None and not isinstance(self.kernels, Kernels):
            raise InputError(f"CacheSpec.kernels: expected a Kernels or None, got {self.kernels!r}")
        if self.cache_dtype not in ("model", "int8"):
            raise InputError(f"CacheSpec.cache_dtype: expected model or int8, got {self.cache_dtype!r}")
        if self.cache_dtype == "int8" and self.mode in ("recompute", "recurrent"):
            raise InputError(f"CacheSpec.cache_dtype: expected model where mode is {self.mode}, which keeps no keys "
                             "and values of a context, got 'int8'")
        if self.prefix not in ("own", "shared"):
            raise InputError(f"CacheSpec.prefix: expected own or shared, got {self.prefix!r}")
        if self.prefix == "shared" and self.mode != "refresh":
            raise InputError(f"CacheSpec.prefix: expected own where mode is {self.mode}, got 'shared': only in "
                             "refresh contexts keep what they began with")

    @staticmethod
    def usual_mode(model: ModelSpec) -> str:
        """The mode of a model where none is asked for: rolling for one layer, refresh for more, recurrent if linear."""
        return "recurrent" if model.mixer == "linear" else "rolling" if model.layers == 1 else "refresh"

    def kept(self, model: ModelSpec) -> int:
        """Most tokens that a context starts with; InputError if the model cannot be decoded this way."""
        if self.mode not in (modes := ("recurrent", "recompute") if model.mixer == "linear" else
                             ("rolling", "refresh", "recompute")):
            raise InputError(f"CacheSpec.mode: expected {' or '.join(modes)} of a model with mixer={model.mixer}, got "
                             f"{self.mode!r}")
        if self.append > model.context_length:
            raise InputError(f"CacheSpec.append: expected at most context_length={model.context_length}, got "
                             f"{self.append}")
        if self.mode == "rolling" and model.layers > 1:
            raise InputError(f"CacheSpec.mode: rolling is exact for models of one layer only, and this one has "
                             f"{model.layers}; take refresh")
        if self.mode != "refresh":
            return model.context_length
        kept = model.context_length - self.refresh_every - self.margin
        if kept < 1 or kept + self.append > model.context_length:
            raise InputError("CacheSpec: expected 1 <= context_length - refresh_every - margin <= context_length - "
                             f"append, got context_length={model.context_length}, refresh_every={self.refresh_every}, "
                             f"margin={self.margin}, append={self.append}")
        return kept
