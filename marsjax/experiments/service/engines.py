"""What the application runs in: one process by uvicorn, or replicas by Ray Serve, one a device.

Both end at a signal: no new request is taken, those under way have some seconds, and nothing is left running.
"""

import asyncio
import importlib.util
import logging
import os
import socket
import threading
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import marsjax
from marsjax.core.errors import InputError
from marsjax.experiments import interrupts
from marsjax.experiments.service.app import Service

ENGINES = ("uvicorn", "ray")
_NEEDS = {"uvicorn": ("starlette", "uvicorn", "prometheus_client"), "ray": ("starlette", "prometheus_client", "ray")}
GRACE_S = 5.0
"""For requests that are under way at the end."""
_APP = "marsjax"
_LOOK_EVERY_S = 0.02
"""Whether the server listens."""
_STOP_EVERY_S = 0.1
"""Whether it is to end."""


def check_installed(engine: str) -> None:
    """InputError for an engine that is none, or lacks a package."""
    if engine not in ENGINES:
        raise InputError(f"config.engine: expected {' or '.join(ENGINES)}, got {engine!r}")
    missing = [name for name in _NEEDS[engine] if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"the service needs {', '.join(missing)}: pip install 'marsjax[serve]'")


def by_uvicorn(made: Callable[[], Service], host: str, port: int, on_listening: Callable[[int], None]) -> None:
    """Serves what `made` gives in this process until a signal comes; `on_listening` is told the port.

    OSError, before anything is made, where the port is taken.
    """
    import uvicorn

    with _bound(host, port) as listening:
        service = made()
        server = uvicorn.Server(uvicorn.Config(
            service, log_level="warning", access_log=False, lifespan="off", timeout_keep_alive=30,
            timeout_graceful_shutdown=round(GRACE_S) + 1, server_header=False, ws="none"))
        ended = threading.Event()

        async def end_after_grace() -> None:
            while not server.should_exit:
                await asyncio.sleep(_STOP_EVERY_S)
            await asyncio.sleep(GRACE_S)
            service.end()

        async def both() -> None:
            ending = asyncio.create_task(end_after_grace())
            await server.serve(sockets=[listening])
            ending.cancel()

        def serve() -> None:
            try:
                asyncio.run(both())
            finally:
                ended.set()

        with interrupts.gracefully(lambda: setattr(server, "should_exit", True)):
            # In another thread: there uvicorn leaves the handlers of signals alone.
            thread = threading.Thread(target=serve, name="http")
            thread.start()
            try:
                while not (server.started or ended.is_set()):
                    ended.wait(_LOOK_EVERY_S)
                if server.started:
                    on_listening(listening.getsockname()[1])
                ended.wait()
            finally:
                server.should_exit = True
                thread.join()
                service.close()


def _bound(host: str, port: int) -> socket.socket:
    """A socket at an address, which does not listen yet; OSError with the address where it is taken."""
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
    except OSError as error:
        found.close()
        raise OSError(error.errno, error.strerror, f"{host}:{port}") from error
    return found


def by_ray(made: Callable[[Mapping[str, Any]], Service], given: Mapping[str, Any], host: str, port: int,
           on_listening: Callable[[int], None], replicas: int, gpus: float) -> None:
    """Serves by Ray Serve until a signal comes, on a Ray of its own or the one that RAY_ADDRESS names.

    Args:
      made: makes the application of a replica, in its process; a function of a module, as only its name travels.
      given: what it is called with, plain values.
      host: address of the proxy.
      port: of the proxy.
      on_listening: told the port, when all replicas are ready.
      replicas: processes with the model.
      gpus: that each of them has.

    InputError where a replica cannot be made, OSError where the port is taken.
    """
    _bound(host, port).close()
    import ray
    from ray import serve
    from ray.serve.config import HTTPOptions

    root = str(Path(marsjax.__file__).parent.parent)
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    stop = threading.Event()
    is_own = not os.environ.get("RAY_ADDRESS")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    with warnings.catch_warnings():
        # Ray's processes are forked and become other programs at once.
        warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)
        options: dict[str, Any] = {"address": "local", "include_dashboard": False} if is_own else {}
        ray.init(log_to_driver=False, logging_level=logging.WARNING, runtime_env={"env_vars": {"PYTHONPATH": path}},
                 **options)
    try:
        with interrupts.gracefully(stop.set):
            serve.start(http_options=HTTPOptions(host=host, port=port),
                        logging_config={"log_level": "WARNING", "enable_access_log": False})
            replica = _replica(made, dict(given)).options(
                name="replica", num_replicas=replicas, max_ongoing_requests=100_000,
                graceful_shutdown_timeout_s=GRACE_S, ray_actor_options={"num_gpus": gpus, "num_cpus": 1})
            try:
                serve.run(replica.bind(), name=_APP, route_prefix="/", blocking=False)
            except RuntimeError as error:
                raise InputError(f"config.engine: a replica did not start: {error}") from None
            else:
                if not stop.is_set():
                    on_listening(port)
                stop.wait()
            finally:
                # Of a Ray that is not its own it takes away its application alone, in whatever way it ends.
                if is_own:
                    serve.shutdown()
                else:
                    serve.delete(_APP)
    finally:
        ray.shutdown()


def _replica(made: Callable[[Mapping[str, Any]], Service], given: dict[str, Any]) -> Any:
    """The deployment: each replica makes the application anew."""
    from ray import serve

    def build() -> Service:
        return made(given)

    return serve.deployment(serve.ingress(build)())
