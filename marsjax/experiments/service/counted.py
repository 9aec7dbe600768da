"""The metrics of one process of a service, in Prometheus' text format, by prometheus_client (which Ray brings)."""

from typing import Any

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Counted:
    """Requests by status, their seconds, what waits, and orders: `marsjax_...`."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self.registry = CollectorRegistry()
        of: dict[str, Any] = {"registry": self.registry}
        self._requests = Counter("marsjax_requests", "Answers by route and status; 0: the client has gone",
                                 ("route", "status"), **of)
        self._seconds = Histogram("marsjax_request_seconds", "From the first byte of a request to the last of its "
                                  "answer", ("route",), buckets=_SECONDS, **of)
        self._batch = Histogram("marsjax_batch_windows", "Windows of a batch of next orders", buckets=_SIZES, **of)
        self._orders = Counter("marsjax_orders", "Orders drawn, by what asked for them", ("of",), **of)
        self.waiting_windows = Gauge("marsjax_waiting_windows", "Windows that wait or are drawn from", **of)
        self.waiting_futures = Gauge("marsjax_waiting_futures", "Requests for futures that wait or run", **of)

    def request(self, route: str, status: int, seconds: float) -> None:
        """One request is over."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def batch(self, size: int) -> None:
        """One batch of next orders begins."""
        self._batch.observe(size)
        self._orders.labels("next_orders").inc(size)

    def futures(self, orders: int) -> None:
        """So many orders more of futures."""
        self._orders.labels("futures").inc(orders)

    def text(self) -> bytes:
        """All of them."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry)
