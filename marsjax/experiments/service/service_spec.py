"""Sizes, times and the token of a service."""

import dataclasses
import math
import re

from marsjax.core import limits
from marsjax.core.errors import InputError

_MOST_BYTES = 2**30
LEAST_TOKEN = 16
"""Characters of a token."""


@dataclasses.dataclass(frozen=True)
class ServiceSpec:
    """What one process of a service takes in, and how long it works on it."""

    route: str = "order-model"
    """Of the requests that MarS's client sends, one window each."""
    token: str = dataclasses.field(default="", repr=False)
    """That requests must bring (Authorization: Bearer TOKEN), but for those of health; empty: none."""
    seed: int = -1
    """Of draws whose request brings no seed; -1: one of the system's randomness."""
    most_windows: int = 256
    """In one request."""
    most_bytes: int = 2**23
    """Of the body of a request for futures, and of windows as JSON."""
    waiting_windows: int = 2048
    """Windows that wait or are drawn from; beyond them requests are answered with 503."""
    waiting_futures: int = 8
    """Requests for futures that wait or run; likewise."""
    batch_wait_ms: float = 2.0
    """How long the first window of a batch waits for others."""
    timeout_s: float = 30.0
    """Of a request for next orders, and of the body of any."""
    futures_timeout_s: float = 600.0
    """Of a request for futures, waiting and compiling included."""
    retry_after_s: int = 1
    """What a 503 tells the client to wait."""

    def __post_init__(self) -> None:
        for name, low, high in (("seed", -1, limits.SEED), ("most_windows", 1, limits.TRAJECTORIES),
                                ("most_bytes", 1, _MOST_BYTES), ("waiting_windows", 1, limits.TRAJECTORIES),
                                ("waiting_futures", 1, limits.TRAJECTORIES), ("retry_after_s", 0, 3600)):
            limits.check_whole(f"ServiceSpec.{name}", getattr(self, name), low, high)
        for name, least in (("batch_wait_ms", 0.0), ("timeout_s", 0.01), ("futures_timeout_s", 0.01)):
            value = getattr(self, name)
            if not (math.isfinite(value) and least <= value <= 86_400_000):
                raise InputError(f"ServiceSpec.{name}: expected a number of at least {least}, got {value}")
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", self.route) or self.route in ("v1", "healthz", "readyz",
                                                                                    "metrics"):
            raise InputError(f"ServiceSpec.route: expected letters, digits, _, . and -, got {self.route!r}")
        if self.token and not re.fullmatch(rf"[!-~]{{{LEAST_TOKEN},256}}", self.token):
            raise InputError(f"ServiceSpec.token: expected {LEAST_TOKEN} to 256 printable characters without spaces")
        if self.waiting_windows < self.most_windows:
            raise InputError(f"ServiceSpec.waiting_windows: expected at least most_windows={self.most_windows}, got "
                             f"{self.waiting_windows}")
