"""The program that serves: what it refuses in one line, and that a signal ends it cleanly, under both engines."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marsjax import testing
from marsjax.client import Client, ServiceError
from marsjax.core import times
from marsjax.data import frames
from marsjax.experiments import launcher, serve
from marsjax.experiments.service import engines
from tests.experiments.conftest import Launch, Ran

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "serve.py"
needs_extra = pytest.mark.skipif(importlib.util.find_spec("uvicorn") is None or
                                 importlib.util.find_spec("starlette") is None, reason="pip install 'marsjax[serve]'")


@pytest.fixture
def run(launch: Launch) -> Callable[..., Ran]:
    return lambda *overrides: launch("serve", serve.main, f"--config={CONFIG}:port=0", *overrides)


@needs_extra
@pytest.mark.parametrize(("overrides", "part"), [
    (("--config.engine=flask",), "config.engine: expected uvicorn or ray, got 'flask'"),
    (("--config.port=65536",), "config.port: expected at most 65535"),
    (("--config.port=0", "--config.engine=ray"), "config.port: expected at least 1, got 0"),
    (("--config.host=0.0.0.0",), "config.host: at 0.0.0.0 others reach the service: set config.token_file"),
    (("--config.token_file=nowhere",), "nowhere: no such file"),
    (("--config.token_file=empty",), "expected a token, got an empty file"),
    (("--config.token_file=short",), "config.token_file: expected 16 to 256"),
    (("--config.batch_sizes=8,4",), "config.batch_sizes: expected sizes that rise"),
    (("--config.most_minutes=0",), "config.most_minutes: expected at least 1"),
    (("--config.timeout_s=0",), "config.timeout_s: expected a number of at least 0.01"),
    (("--config.replicas=2",), "config.replicas: expected 0 or 1 with engine=uvicorn"),
    (("--config.model=nowhere/at_all/here",), "nowhere/at_all/here"),
])
def test_bad_values_are_one_line(run: Callable[..., Ran], overrides: tuple[str, ...], part: str) -> None:
    Path("empty").touch()
    Path("short").write_text("secret\n")
    if "ray" in overrides[-1] and importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    code, _, err = run(*overrides)
    assert code == launcher.FAILED and part in err and err.count("\n") == 1 and "secret" not in err


def test_what_is_missing_is_named_with_the_extra_that_brings_it(run: Callable[..., Ran],
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "starlette" else object())
    code, _, err = run()
    assert code == launcher.FAILED and "the service needs starlette: pip install 'marsjax[serve]'" in err


@needs_extra
@pytest.mark.parametrize("engine", ["uvicorn", "ray"])
def test_a_port_that_is_taken_is_one_line_before_anything_is_made(run: Callable[..., Ran], engine: str,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    if engine == "ray":
        pytest.importorskip("ray")
    monkeypatch.setattr(serve.setup, "load_order_model", lambda config: None)
    monkeypatch.setattr(serve, "service_of", None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = run(f"--config.port={port}", f"--config.engine={engine}")
    assert code == launcher.FAILED and f"127.0.0.1:{port}" in err and err.count("\n") == 1


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.mark.slow
@needs_extra
@pytest.mark.parametrize("engine", ["uvicorn", "ray"])
def test_it_serves_until_a_signal_ends_it_and_leaves_nothing_running(
        tmp_path: Path, tiny_checkpoint: Callable[[dict[str, Any]], Path], engine: str) -> None:
    if engine == "ray":
        pytest.importorskip("ray")
    token = tmp_path / "token"
    token.write_text("a-token-of-some-length\n")
    model = os.path.relpath(tiny_checkpoint({}), tmp_path)
    port = free_port()
    words = [sys.executable, "-m", "marsjax.experiments.serve",
             f"--config={CONFIG}:model={model},port={port},engine={engine}",
             "--config.token_file=token", "--config.days=", "--config.batch_sizes=1,4"]
    # Of sockets, whose names must be short.
    short = tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True)
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "RAY_TMPDIR": short.name}
    environment.pop("RAY_ADDRESS", None)
    with short, subprocess.Popen(words, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, start_new_session=True) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        assert any(line.startswith(f"serving {model} on http://127.0.0.1:{port} by {engine}")
                   for line in lines)
        with Client(f"http://127.0.0.1:{port}", token="a-token-of-some-length", timeout_s=60) as client:
            assert client.about()["model"] == model
            window = np.zeros((client.about()["context_length"], 15), np.int32)
            assert 0 <= client.next_order(window) < 49_152
            first = client.next_orders(window[None].repeat(6, 0), seed=1)
            assert first.tolist() == client.next_orders(window[None].repeat(6, 0), seed=1).tolist()
            with pytest.raises(ServiceError, match="day: expected one of none"):
                list(client.futures(day="quiet", minutes=1))
        with pytest.raises(ServiceError, match="401"):
            Client(f"http://127.0.0.1:{port}").next_order(window)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 143 and said.rstrip().endswith("error: ended by SIGTERM"), said
    with pytest.raises(ServiceError, match="no answer"):
        Client(f"http://127.0.0.1:{port}").next_order(window)
    end_s = time.monotonic() + 10
    while left := [pid for pid in session_of(process.pid) if pid != os.getpid()]:
        assert time.monotonic() < end_s, left
        time.sleep(0.1)


@pytest.mark.slow
@needs_extra
def test_a_signal_while_futures_compile_ends_it_within_the_grace(
        tmp_path: Path, tiny_checkpoint: Callable[[dict[str, Any]], Path]) -> None:
    port = free_port()
    words = [sys.executable, "-m", "marsjax.experiments.serve",
             f"--config={CONFIG}:model={tiny_checkpoint({})},port={port}", "--config.days=", "--config.batch_sizes=1"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT),
                   "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")}
    orders = frames.to_frame(testing.random_orders(times.of_clock("10:00:00")))[["time_ns", "type", "price", "volume"]]
    came: list[Exception] = []

    def ask() -> None:
        with pytest.raises(ServiceError) as error, Client(f"http://127.0.0.1:{port}") as client:
            list(client.futures(orders=orders, time="10:00:00", minutes=1))
        came.append(error.value)

    with subprocess.Popen(words, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True) as process:
        assert process.stdout is not None
        assert any(line.startswith("serving ") for line in iter(process.stdout.readline, ""))
        thread = threading.Thread(target=ask)
        thread.start()
        time.sleep(2)
        assert thread.is_alive()
        began_s = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
        took_s = time.monotonic() - began_s
        thread.join(20)
    assert process.returncode == 143 and said == "error: ended by SIGTERM\n", said
    assert took_s < engines.GRACE_S + 3, took_s
    assert len(came) == 1 and ("the service ends" in str(came[0]) or "broke off" in str(came[0])), came


def session_of(leader: int) -> list[int]:
    """Processes of the session that a process began, those that end just now left out."""
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = place.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(int(place.parent.name))
    return found
