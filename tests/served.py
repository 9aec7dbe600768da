"""A service in a thread of the tests, at a free port of this machine."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from marsjax import testing
from marsjax.client import Client
from marsjax.experiments.service.app import Models, Service
from marsjax.experiments.service.service_spec import ServiceSpec
from marsjax.studies.order_model import PreparedModel, prepare
from marsjax.studies.service.next_orders import NextOrders, NextOrdersSpec
from marsjax.studies.service.wanted import MostWanted, Wanted
from marsjax.studies.service.whole_futures import Tell, Told

TOKEN = "a-token-of-some-length"


class Stand:
    """In the place of `WholeFutures`: tells what a test wants."""

    def __init__(self, run: Callable[[Wanted, Tell], None]) -> None:
        self.run = run


def tell_all(wanted: Wanted, tell: Tell) -> None:
    """Three parts at once."""
    tell(Told("start", {"mid": 100.0, "nothing": float("nan")}))
    for number in range(3):
        tell(Told("part", {"passed": number / 2, "ended": number, "orders": 10 * number}))
    tell(Told("result", {"seed": wanted.seed}))


def tiny() -> tuple[PreparedModel, NextOrders]:
    prepared = prepare(testing.tiny_model())
    return prepared, NextOrders(prepared, NextOrdersSpec((1, 4)))


def service_of(next_orders: Any, whole_futures: Any = None, most: MostWanted | None = None, **spec: Any) -> Service:
    given = {"most_windows": 8, "timeout_s": 20.0, "batch_wait_ms": 0.5} | spec
    about = {"model": "tiny", "context_length": 32, "columns": 15}
    models = Models(next_orders, whole_futures or Stand(tell_all), most or MostWanted(), about)
    return Service(models, ServiceSpec(**given))


@contextlib.contextmanager
def running(service: Service) -> Iterator[int]:
    """The port that it listens at."""
    import uvicorn

    config = uvicorn.Config(service, host="127.0.0.1", port=0, log_level="error", lifespan="off", access_log=False,
                            timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    try:
        while not server.started:
            thread.join(0.01)
            assert thread.is_alive()
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)
        service.close()


def client_of(port: int, **given: Any) -> Client:
    return Client(f"http://127.0.0.1:{port}", timeout_s=60.0, **given)
