"""The service measured: the law of its draws, hostile requests, many clients, and its speed against direct calls.

    python experiments/service/measure.py law --draws=100000
    python experiments/service/measure.py hostile --count=1000
    python experiments/service/measure.py clients --count=200 --seconds=60
    python experiments/service/measure.py speed

Each starts the program at a free port of this machine, and ends it. Run from the root of a checkout.
"""

import argparse
import collections
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from marsjax.client import Client, ServiceError  # noqa: E402

SMALL = "small"
"""A model of 384 classes with random weights, made for the run."""


def main() -> None:
    """Runs what the command line names, prints its figures, and exits with 1 where they are not as they should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=sorted(STUDIES))
    parser.add_argument("--model", help="default, small, a folder or a name on the hub (default: small for law, else "
                        "default)")
    parser.add_argument("--engine", default="uvicorn", choices=("uvicorn", "ray"))
    parser.add_argument("--draws", type=int, default=100_000, help="law: requests of one window")
    parser.add_argument("--count", type=int, default=0, help="hostile: requests (1000); clients: clients (200)")
    parser.add_argument("--seconds", type=float, default=60.0, help="clients, speed: how long each measures")
    parser.add_argument("--threads", type=int, default=16, help="law, speed: clients at once")
    parser.add_argument("--batch-sizes", default="1,8,64", help="of the service")
    parser.add_argument("--trajectories", type=int, default=64, help="speed: futures of a request")
    parser.add_argument("--seed", type=int, default=0, help="hostile")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="svc", dir="/tmp") as folder:
        name = given.model or (SMALL if given.what == "law" else "default")
        given.model = small_model(Path(folder) / "model") if name == SMALL else name
        given.days = "" if name == SMALL else "default"
        figures = STUDIES[given.what](given, Path(folder))
    print(json.dumps({"study": given.what, "engine": given.engine, "model": name} | figures, indent=1))
    sys.exit(0 if figures["good"] else 1)


def small_model(path: Path) -> str:
    """A checkpoint of `testing.tiny_model`'s sizes whose law is far from even."""
    import jax

    from marsjax import testing
    from marsjax.checkpoint import folder

    tiny = testing.tiny_model()
    folder.save(path, jax.tree.map(lambda x: 4 * x, tiny.model), tiny.converters, {"source": "random weights"})
    return str(path)


@contextlib.contextmanager
def running(given: argparse.Namespace, folder: Path) -> Iterator[int]:
    """The port at which the program serves."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = int(found.getsockname()[1])
    words = [sys.executable, "-m", "marsjax.experiments.serve",
             f"--config=serve:model={given.model},port={port},engine={given.engine}", f"--config.days={given.days}",
             f"--config.batch_sizes={given.batch_sizes}", f"--config.most_trajectories={max(given.trajectories, 256)}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_TMPDIR": str(folder)}
    with (folder / "said").open("w") as said, subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.PIPE,
                                                                stderr=said, text=True) as process:
        if process.stdout is None or not any(line.startswith("serving") for line in process.stdout):
            raise SystemExit((folder / "said").read_text())
        try:
            yield port
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def client_of(port: int) -> Client:
    """A client of the service."""
    return Client(f"http://127.0.0.1:{port}", timeout_s=120.0)


def window_of(client: Client, given: argparse.Namespace) -> np.ndarray:
    """A whole window: of the day `default`, or of random tokens where no day goes with the model."""
    about = client.about()
    if not given.days:
        random = np.random.default_rng(0)
        window = np.zeros((about["context_length"], about["columns"]), np.int32)
        window[:, 0] = random.integers(0, about["classes"], len(window))
        return window
    import marsjax
    from marsjax.studies import futures, order_model, places, starts
    from marsjax.tokens import encoding

    prepared = order_model.prepare(marsjax.load_order_model(given.model))
    day = places.made_day(given.model, "default")
    place = places.in_made_day(prepared, day, places.warm_up_of(day), futures.ACCOUNT + 1)
    start = starts.states_of_feed(place.market, prepared, place.feed, [place.time_ns]).starts[0]
    return np.asarray(encoding.to_array(prepared.model.spec.tokens, start.window))[: int(start.count)]


def at_once(count: int, work: Callable[[int], None]) -> None:
    """`work` of each number in a thread of its own; ends with the last."""
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def law(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Draws through MarS's own request against the model's law here, by a chi-square test of the classes."""
    import jax
    from scipy import stats

    import marsjax
    from marsjax.tokens import encoding

    counts: collections.Counter[int] = collections.Counter()
    lock, left = threading.Lock(), [given.draws]
    with running(given, folder) as port:
        with client_of(port) as client:
            window = window_of(client, given)

        def ask(number: int) -> None:
            mine: collections.Counter[int] = collections.Counter()
            with client_of(port) as client:
                while True:
                    with lock:
                        if left[0] <= 0:
                            counts.update(mine)
                            return
                        left[0] -= 1
                    mine[client.next_order(window)] += 1

        began = time.perf_counter()
        at_once(given.threads, ask)
        seconds = time.perf_counter() - began
    model = marsjax.load_order_model(given.model).model
    logits = jax.jit(lambda model, x: model.logits(encoding.from_array(model.spec.tokens, x)))(model, window[None])[0]
    chances = np.asarray(jax.nn.softmax(logits), np.float64)
    found = np.array([counts[token] for token in range(len(chances))])
    expected = given.draws * chances / chances.sum()
    rare = expected < 5
    pooled = [np.append(x[~rare], x[rare].sum()) if rare.any() else x for x in (found, expected)]
    test = stats.chisquare(*pooled)
    return {"draws": int(found.sum()), "cells": len(pooled[0]), "chi_square": float(test.statistic),
            "degrees_of_freedom": len(pooled[0]) - 1, "p": float(test.pvalue), "requests_per_s": given.draws / seconds,
            "good": bool(found.sum() == given.draws and test.pvalue > 1e-3)}


def hostile(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Statuses of requests that must not be served, by their fault; afterwards the service must serve one that may."""
    from tests import hostile_requests
    from tests.hostile_requests import Sizes

    count = given.count or 1000
    statuses: dict[str, collections.Counter[int]] = collections.defaultdict(collections.Counter)
    wrong = 0
    with running(given, folder) as port, client_of(port) as client:
        about = client.about()
        sizes = Sizes(about["context_length"], about["columns"])
        for request in hostile_requests.requests(given.seed, count, sizes):
            status = hostile_requests.status_of(("127.0.0.1", port), request)
            statuses[request.fault][status] += 1
            wrong += not (400 <= status < 500 or (status == 0 and request.may_be_dropped))
        lives = client.about()["ready"] and client.next_order(np.zeros(sizes, np.int32)) >= 0
        errors = sum(float(line.rpartition(" ")[2]) for line in client.metrics().splitlines()
                     if line.startswith("marsjax_requests_total") and 'status="5' in line)
    return {"requests": count, "not_4xx": wrong, "answers_5xx": errors, "lives": bool(lives),
            "statuses": {fault: dict(sorted(of.items())) for fault, of in sorted(statuses.items())},
            "good": bool(lives) and wrong == 0 and errors == 0}


def clients(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Clients that each send one window after the other, for some time: what is lost, and how long answers take."""
    count, seconds = given.count or 200, given.seconds
    taken: list[list[float]] = [[] for _ in range(count)]
    lost: collections.Counter[str] = collections.Counter()
    with running(given, folder) as port:
        with client_of(port) as client:
            window = window_of(client, given)
            client.next_order(window)
        end_s = time.perf_counter() + seconds

        def ask(number: int) -> None:
            with client_of(port) as client:
                while time.perf_counter() < end_s:
                    began = time.perf_counter()
                    try:
                        client.next_order(window)
                        taken[number].append(time.perf_counter() - began)
                    except ServiceError as error:
                        lost[str(error)[:80]] += 1

        at_once(count, ask)
    every = sorted(second for one in taken for second in one)
    quantile = statistics.quantiles(every, n=100)
    return {"clients": count, "seconds": seconds, "answered": len(every), "lost": dict(lost),
            "fewest_of_a_client": min(map(len, taken)), "orders_per_s": len(every) / seconds,
            "p50_ms": 1000 * quantile[49], "p99_ms": 1000 * quantile[98], "most_ms": 1000 * every[-1],
            "good": not lost and min(map(len, taken)) > 0}


def speed(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Orders a second of next orders and of futures, through the service and by direct calls."""
    sizes = tuple(int(size) for size in given.batch_sizes.split(","))
    with running(given, folder) as port:
        with client_of(port) as client:
            window = window_of(client, given)
        figures = {"next_orders_of_one": _rate(given, port, lambda client, number: len([client.next_order(window)])),
                   "next_orders_of_a_batch": _rate(given, port, lambda client, number: len(client.next_orders(
                       np.broadcast_to(window, (sizes[-1], *window.shape)))))}
        if given.days:
            wanted = {"day": "default", "minutes": 1, "trajectories": given.trajectories}
            with client_of(port) as client:
                client.rows(**wanted)  # compiles
                began = time.perf_counter()
                figures["futures"] = client.rows(**wanted)[1]["orders"] / (time.perf_counter() - began)
    return {f"{name}_per_s": value for name, value in (figures | _direct(given, window, sizes)).items()} | {
        "threads": given.threads, "good": True}


def _rate(given: argparse.Namespace, port: int, ask: Callable[[Client, int], int]) -> float:
    done, seconds = [0] * given.threads, min(given.seconds, 20.0)
    end_s = time.perf_counter() + seconds

    def work(number: int) -> None:
        with client_of(port) as client:
            while time.perf_counter() < end_s:
                try:
                    done[number] += ask(client, number)
                except ServiceError as error:
                    if error.status != 503:
                        raise
                    time.sleep(min(error.retry_after_s or 0.05, 0.05))  # its queue is full, as it should be

    began = time.perf_counter()
    at_once(given.threads, work)
    return sum(done) / (time.perf_counter() - began)


def _direct(given: argparse.Namespace, window: np.ndarray, sizes: tuple[int, ...]) -> dict[str, float]:
    """The same calls in this process."""
    import marsjax
    from marsjax.studies import order_model
    from marsjax.studies.service import wanted
    from marsjax.studies.service.next_orders import Draw, NextOrders, NextOrdersSpec
    from marsjax.studies.service.whole_futures import WholeFutures

    prepared = order_model.prepare(marsjax.load_order_model(given.model))
    service = NextOrders(prepared, NextOrdersSpec(sizes))
    (checked,) = service.checked(window[None])
    draws = [Draw(checked, 0, number) for number in range(sizes[-1])]
    service.tokens(draws)
    count, began, seconds = 0, time.perf_counter(), min(given.seconds, 20.0)
    while time.perf_counter() - began < seconds:
        count += len(service.tokens(draws))
    figures = {"direct_next_orders_of_a_batch": count / (time.perf_counter() - began)}
    if given.days:
        whole = WholeFutures(prepared, given.model, ("default",))
        asked = wanted.of_record({"day": "default", "minutes": 1, "trajectories": given.trajectories},
                                 wanted.MostWanted(trajectories=given.trajectories))
        for _ in range(2):
            told: list[Any] = []
            began = time.perf_counter()
            whole.run(asked, told.append)
        figures["direct_futures"] = told[-1].facts["orders"] / (time.perf_counter() - began)
    return figures


STUDIES: dict[str, Callable[[argparse.Namespace, Path], dict[str, Any]]] = {
    "law": law, "hostile": hostile, "clients": clients, "speed": speed}


if __name__ == "__main__":
    main()
