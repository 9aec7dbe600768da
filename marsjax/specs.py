"""Frozen, hashable sizes and units: the static arguments of the jitted functions. Each validates itself."""

import dataclasses
import enum

SECOND_NS = 1_000_000_000
DAY_NS = 86_400 * SECOND_NS


class Phase(enum.IntEnum):
    """What the exchange does with an order that reaches it at some time."""

    CLOSED = 0
    OPEN_AUCTION = 1
    """Collected for the opening call auction."""
    CONTINUOUS = 2
    CLOSE_AUCTION = 3
    """Collected for the closing call auction."""


@dataclasses.dataclass(frozen=True)
class Period:
    """One stretch of a session; an order at `start_ns` or at `end_ns` still belongs to it.

    `uncross_ns` is when a call auction is matched (None for continuous trading).
    """

    phase: Phase
    start_ns: int
    end_ns: int
    uncross_ns: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.start_ns <= self.end_ns < DAY_NS:
            raise ValueError(f"period {self.phase.name}: expected 0 <= start <= end < one day in ns, got "
                             f"start_ns={self.start_ns}, end_ns={self.end_ns}")
        auction = self.phase in (Phase.OPEN_AUCTION, Phase.CLOSE_AUCTION)
        if auction != (self.uncross_ns is not None):
            raise ValueError(f"period {self.phase.name}: expected uncross_ns for call auctions only, "
                             f"got {self.uncross_ns}")
        if self.uncross_ns is not None and not self.end_ns <= self.uncross_ns < DAY_NS:
            raise ValueError(f"period {self.phase.name}: expected uncross_ns >= end_ns={self.end_ns}, "
                             f"got {self.uncross_ns}")


@dataclasses.dataclass(frozen=True)
class Session:
    """The trading day: periods in order of time. Orders outside them are answered with Status.CLOSED."""

    periods: tuple[Period, ...]

    def __post_init__(self) -> None:
        if not self.periods:
            raise ValueError("session: expected at least one period, got none")
        for before, after in zip(self.periods, self.periods[1:], strict=False):
            done = before.end_ns if before.uncross_ns is None else before.uncross_ns
            if after.start_ns < done or after.start_ns <= before.end_ns:
                raise ValueError(f"session: period {after.phase.name} starts at {after.start_ns} ns, before "
                                 f"{before.phase.name} is over at {done} ns")


def _at(hour: int, minute: int, second: int = 0) -> int:
    return (hour * 3600 + minute * 60 + second) * SECOND_NS


def continuous_session(start_ns: int = _at(9, 30), end_ns: int = _at(16, 0)) -> Session:
    """Continuous trading only, from `start_ns` to `end_ns`, both included."""
    return Session((Period(Phase.CONTINUOUS, start_ns, end_ns),))


def chinese_session() -> Session:
    """The Chinese day: call auctions 9:15-9:25 and 14:57-15:00 (matched at their ends), a break 11:30-13:00.

    Continuous trading ends at 14:56:59.999999999; 11:30:00 and 9:25:00 still belong to the period that they end.
    """
    return Session((
        Period(Phase.OPEN_AUCTION, _at(9, 15), _at(9, 25), uncross_ns=_at(9, 25)),
        Period(Phase.CONTINUOUS, _at(9, 30), _at(11, 30)),
        Period(Phase.CONTINUOUS, _at(13, 0), _at(14, 57) - 1),
        Period(Phase.CLOSE_AUCTION, _at(14, 57), _at(15, 0), uncross_ns=_at(15, 0)),
    ))


def _check_ints(spec: object, limits: dict[str, tuple[int, int]]) -> None:
    """ValueError that names the first field that is no int within its limits."""
    for name, (low, high) in limits.items():
        value, of = getattr(spec, name), type(spec).__name__
        if type(value) is not int:
            raise ValueError(f"{of}.{name}: expected an int, got {value!r}")
        if not low <= value <= high:
            raise ValueError(f"{of}.{name}: expected {low} to {high}, got {value}")


@dataclasses.dataclass(frozen=True)
class TokenSpec:
    """How many bins an order token has of each quantity (reference: order tokens)."""

    price_levels: int = 32
    volumes: int = 32
    intervals: int = 16

    def __post_init__(self) -> None:
        _check_ints(self, {"price_levels": (1, 1024), "volumes": (1, 1024), "intervals": (1, 1024)})
        if self.classes >= 2**31:
            raise ValueError(f"TokenSpec: {self.classes} classes do not fit in an int32")

    @property
    def classes(self) -> int:
        """Tokens there are: three kinds of order times the bins."""
        return 3 * self.price_levels * self.volumes * self.intervals


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """Sizes of an order model (reference: order model)."""

    width: int = 16
    """Of the embeddings, d."""
    layers: int = 1
    heads: int = 2
    max_orders: int = 1024
    """Tokens that the model sees at once."""
    tokens: TokenSpec = TokenSpec()
    ratio_embeddings: bool = False
    """Whether features 1 and 2 (volume and transaction ratio) are embedded too, [11, d] each."""

    def __post_init__(self) -> None:
        _check_ints(self, {"width": (2, 65536), "layers": (1, 1024), "heads": (1, 1024), "max_orders": (1, 2**20)})
        if self.width % (2 * self.heads):
            raise ValueError(f"ModelSpec.width: expected a multiple of 2 x heads={self.heads} (rotary halves), "
                             f"got {self.width}")
        if not isinstance(self.tokens, TokenSpec):
            raise ValueError(f"ModelSpec.tokens: expected a TokenSpec, got {self.tokens!r}")
        if not isinstance(self.ratio_embeddings, bool):
            raise ValueError(f"ModelSpec.ratio_embeddings: expected a bool, got {self.ratio_embeddings!r}")


@dataclasses.dataclass(frozen=True)
class MarketSpec:
    """Sizes and units of one symbol's market."""

    tick: int = 100
    """Smallest price step, 1e-4 of the currency."""
    capacity: int = 128
    """Resting orders a side."""
    trade_width: int = 16
    """Transactions listed per order; longer sweeps are matched in full and their list is cut."""
    levels: int = 10
    """Levels a side in a view."""
    owners: int = 2
    """Accounts kept by the exchange; orders name them 0 to owners - 1."""
    session: Session = dataclasses.field(default_factory=continuous_session)

    def __post_init__(self) -> None:
        _check_ints(self, {"tick": (1, 10**6), "capacity": (1, 32768), "trade_width": (1, 32768),
                           "levels": (1, 1024), "owners": (1, 1024)})
        if not isinstance(self.session, Session):
            raise ValueError(f"MarketSpec.session: expected a Session, got {self.session!r}")
        if self.trade_width > self.capacity:
            object.__setattr__(self, "trade_width", self.capacity)


@dataclasses.dataclass(frozen=True)
class ComputeSpec:
    """How the order model computes; norms, softmax and rotary angles are float32 whatever stands here."""

    dtype: str = "float32"
    """Of matrix products, activations and the cache: float32 or bfloat16. Parameters may be stored in either."""
    precision: str = "highest"
    """Of float32 matrix products: `highest`, or `default`, which is TensorFloat-32 (three digits) on a GPU."""

    def __post_init__(self) -> None:
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"ComputeSpec.dtype: expected float32 or bfloat16, got {self.dtype!r}")
        if self.precision not in ("highest", "default"):
            raise ValueError(f"ComputeSpec.precision: expected highest or default, got {self.precision!r}")


@dataclasses.dataclass(frozen=True)
class CacheSpec:
    """How the order model remembers the tokens before a prediction (`marsjax.decode`)."""

    mode: str = "hop"
    """`rolling`: one-layer models only, exactly the sliding window of the last max_orders tokens. `hop`: the context
    grows and is cut back now and then. `recompute`: the whole window for every prediction, as the reference does."""
    hop: int = 448
    """Steps between two cuts, which leave the last max_orders - hop - margin tokens; `hop` only."""
    margin: int = 64
    """Tokens beyond one a step that fit between two cuts; a trajectory with more is cut by itself; `hop` only."""
    append: int = 8
    """Tokens a trajectory gets in one pass; more need another. With 1 a step of a deep model takes half as long as with
    2 or 8, so take that where no agent sends several orders at once."""
    block: int = 16
    """Trajectories whose contexts are encoded together, at a cut or in `recompute`."""
    rows: int | None = 16
    """Trajectories decoded together: on a CPU the bits of a product depend on the number of its rows, and with this
    one fixed a trajectory comes out bitwise the same in any batch. None, for accelerators, takes the whole batch."""
    compute: ComputeSpec = ComputeSpec()

    def __post_init__(self) -> None:
        if self.mode not in ("rolling", "hop", "recompute"):
            raise ValueError(f"CacheSpec.mode: expected rolling, hop or recompute, got {self.mode!r}")
        _check_ints(self, {"hop": (1, 2**20), "margin": (0, 2**20), "append": (1, 1024), "block": (1, 65536)})
        if self.rows is not None:
            _check_ints(self, {"rows": (1, 65536)})
        if not isinstance(self.compute, ComputeSpec):
            raise ValueError(f"CacheSpec.compute: expected a ComputeSpec, got {self.compute!r}")

    def kept(self, model: ModelSpec) -> int:
        """Most tokens that a context starts with; ValueError if the model cannot be decoded this way."""
        if self.append > model.max_orders:
            raise ValueError(f"CacheSpec.append: expected at most max_orders={model.max_orders}, got {self.append}")
        if self.mode == "rolling" and model.layers > 1:
            raise ValueError(f"CacheSpec.mode: rolling is exact for models of one layer only, and this one has "
                             f"{model.layers}; take hop")
        if self.mode != "hop":
            return model.max_orders
        kept = model.max_orders - self.hop - self.margin
        if kept < 1 or kept + self.append > model.max_orders:
            raise ValueError(f"CacheSpec: expected 1 <= max_orders - hop - margin <= max_orders - append, got "
                             f"max_orders={model.max_orders}, hop={self.hop}, margin={self.margin}, "
                             f"append={self.append}")
        return kept
