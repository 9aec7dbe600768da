"""The service over HTTP: MarS's own request, answers equal to direct calls, and what is refused, with which status."""

import http.client
import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the service needs Starlette: pip install 'marsjax[serve]'")
pytest.importorskip("uvicorn", reason="the service needs uvicorn: pip install 'marsjax[serve]'")
pytest.importorskip("prometheus_client", reason="the service needs prometheus_client: pip install 'marsjax[serve]'")

from marsjax import testing
from marsjax.client import Client, ServiceError
from marsjax.core import times
from marsjax.core.errors import InputError
from marsjax.data import frames
from marsjax.experiments.service.service_spec import ServiceSpec
from marsjax.studies.progress import StoppedError
from marsjax.studies.service.next_orders import Draw, NextOrders
from marsjax.studies.service.wanted import MostWanted, Wanted, of_record
from marsjax.studies.service.whole_futures import Tell, Told, WholeFutures
from tests import hostile_requests, served
from tests.hostile_requests import ARROW, JSON, OCTETS, Sizes

LENGTH, COLUMNS = 32, 15
WINDOW = np.arange(LENGTH)[:, None] * np.array([11, *[0] * 14], np.int32)


@pytest.fixture(scope="module")
def next_orders() -> NextOrders:
    return served.tiny()[1]


@pytest.fixture(scope="module")
def port(next_orders: NextOrders) -> Iterator[int]:
    with served.running(served.service_of(next_orders, seed=7)) as port:
        yield port


@pytest.fixture(scope="module")
def strict(next_orders: NextOrders) -> Iterator[int]:
    service = served.service_of(next_orders, most=MostWanted(minutes=5), most_bytes=2000)
    with served.running(service) as port:
        yield port


@pytest.fixture
def client(port: int) -> Iterator[Client]:
    with served.client_of(port) as client:
        yield client


def asked(port: int, path: str, body: bytes | str = b"", method: str = "POST", **headers: str
          ) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    found = answer.status, {name.lower(): value for name, value in answer.headers.items()}, answer.read()
    connection.close()
    return found


def drawn(next_orders: NextOrders, windows: np.ndarray, seed: int, first: int = 0) -> list[int]:
    """Without the network."""
    checked = next_orders.checked(windows)
    return next_orders.tokens([Draw(window, seed, first + i) for i, window in enumerate(checked)]).tolist()


def test_the_request_of_the_client_of_mars_is_answered_as_its_server_does(next_orders: NextOrders) -> None:
    """What it sends: the window as `<i4`, this type, no length of the window, nothing else; one `<i4` comes back."""
    with served.running(served.service_of(next_orders, seed=11)) as port:
        for number in range(3):
            status, headers, answer = asked(port, "/order-model", WINDOW.astype("<i4").tobytes(), Content_Type=OCTETS)
            assert (status, headers["content-type"], len(answer)) == (200, OCTETS, 4)
            assert np.frombuffer(answer, "<i4").tolist() == drawn(next_orders, WINDOW[None], 11, number)
        body = WINDOW.astype("<i4").tobytes()
        assert asked(port, "/order-model", body, Content_Type="text/plain")[0] == 415
        assert asked(port, "/order-model", body)[0] == 415
        assert asked(port, "/order-model", body + b"\0\0\0\0", Content_Type=OCTETS)[0] == 413
        assert asked(port, "/order-model", body[:-1], Content_Type=OCTETS)[0] == 400
        chunks = iter([body[:100], body[100:], b"x" * 100])
        assert asked(port, "/order-model", chunks, Content_Type=OCTETS)[0] == 413  # type: ignore[arg-type]


def test_draws_with_a_seed_are_those_of_a_direct_call_in_either_form(client: Client, port: int, next_orders: NextOrders
                                                                     ) -> None:
    windows = np.stack([WINDOW, np.roll(WINDOW, 3, axis=0), WINDOW[::-1]])
    expected = drawn(next_orders, windows, 5, 2)
    assert client.next_orders(windows, seed=5, first=2).tolist() == expected
    short = windows[:, -7:]
    assert client.next_orders(short, seed=5, first=2).tolist() == drawn(next_orders, short, 5, 2)
    record = {"windows": windows.tolist(), "seed": 5, "first": 2}
    status, _, answer = asked(port, "/v1/next-orders", json.dumps(record), Content_Type=JSON)
    assert status == 200 and json.loads(answer) == {"tokens": expected, "seed": 5, "first": 2}


def test_draws_without_a_seed_say_what_keys_them_and_never_repeat(port: int, next_orders: NextOrders) -> None:
    windows = np.stack([WINDOW, WINDOW])
    seen = []
    for _ in range(3):
        status, headers, answer = asked(port, "/v1/next-orders", windows.astype("<i4").tobytes(), Content_Type=OCTETS)
        seed, first = int(headers["marsjax-seed"]), int(headers["marsjax-first"])
        assert status == 200 and np.frombuffer(answer, "<i4").tolist() == drawn(next_orders, windows, seed, first)
        seen += [(seed, first), (seed, first + 1)]
    assert len(set(seen)) == 6


def test_many_at_once_are_answered_each_with_its_own(port: int, next_orders: NextOrders) -> None:
    got: dict[int, list[list[int]]] = {}
    expected: dict[int, list[list[int]]] = {}

    def ask(number: int) -> None:
        with served.client_of(port) as client:
            windows = np.stack([WINDOW[-1 - number :], WINDOW[: number + 1], WINDOW[-1 - number :][::-1]])
            got[number] = [client.next_orders(windows, seed=3, first=k).tolist() for k in range(5)]
            expected[number] = [drawn(next_orders, windows, 3, k) for k in range(5)]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == expected and len(got) == 12 and next_orders.traces == 2


@pytest.mark.slow
def test_futures_are_those_of_a_direct_call_in_lines_and_in_arrow(next_orders: NextOrders) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    ipc = pytest.importorskip("pyarrow.ipc")
    ten = times.of_clock("10:00:00")
    table = frames.to_frame(testing.random_orders(ten))[["time_ns", "type", "price", "volume"]]
    whole = WholeFutures(served.tiny()[0], "default", (), chunk_steps=32)
    wanted: dict[str, Any] = {"time": "10:00:00", "minutes": 2, "trajectories": 4, "seed": 3, "rows": "minutes"}
    told: list[Told] = []
    whole.run(of_record(wanted | {"orders": table}), told.append)
    expected: dict[str, list[Any]] = {}
    for one in told:
        for name, column in (one.rows or {}).items():
            expected.setdefault(name, []).extend(np.ma.masked_invalid(column).tolist() if column.dtype.kind == "f" else
                                                 np.ma.masked_array(column).tolist())
    with served.running(served.service_of(next_orders, whole)) as port, served.client_of(port) as client:
        rows, result = client.rows(orders=table, **wanted)
        assert rows == expected and result["kind"] == "result"
        assert result["forecast"]["mean"] == told[-1].facts["forecast"]["mean"]
        body = arrow_of({str(name): table[name].to_numpy() for name in table}, wanted)
        status, headers, answer = asked(port, "/v1/futures", body, Content_Type=ARROW, Accept=ARROW)
        assert (status, headers["content-type"]) == (200, ARROW)
        with ipc.open_stream(answer) as reader:
            parts = [reader.read_next_batch_with_custom_metadata() for _ in range(len(told))]
        kinds = [json.loads(part.custom_metadata[b"marsjax"])["kind"] for part in parts]
        assert kinds == [one.kind for one in told]
        back = pyarrow.Table.from_batches([part.batch for part in parts])
        assert set(back["attempt"].to_pylist()) == {0}
        assert {name: back[name].to_pylist() for name in expected} == expected


def arrow_of(table: Any, about: dict[str, Any], compression: str | None = None) -> bytes:
    import pyarrow
    from pyarrow import ipc

    given = pyarrow.table(table).replace_schema_metadata({"marsjax": json.dumps(about)})
    sink = io.BytesIO()
    with ipc.new_stream(sink, given.schema, options=ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(given)
    return sink.getvalue()


@pytest.mark.parametrize(("changes", "compression", "status", "part"), [
    ({}, None, 200, b""),
    ({}, "zstd", 400, b"not compressed"),
    ({}, "lz4", 400, b"not compressed"),
    ({"price": [[10.0]] * 3}, None, 400, b"columns of numbers, texts or times"),
    ({"price": [True] * 3}, None, 400, b"columns of numbers, texts or times"),
    ({"price": [None] * 3}, None, 400, b"columns of numbers, texts or times"),
    ({str(number): [1] * 3 for number in range(33)}, None, 400, b"at most 32"),
    ({"colour": ["red"] * 3}, None, 400, b"unknown column 'colour'"),
    ({"time": ["10:00:00"] * 4, "price": [10.0] * 4, "side": ["buy"] * 4, "size": [1] * 4}, None, 413, b"most 3 rows"),
])
def test_orders_may_come_as_an_arrow_stream(next_orders: NextOrders, changes: dict[str, Any], compression: str | None,
                                            status: int, part: bytes) -> None:
    pytest.importorskip("pyarrow")
    came: list[Wanted] = []
    stand = served.Stand(lambda wanted, tell: came.append(wanted) or served.tell_all(wanted, tell))
    table = {"time": ["10:00:00"] * 3, "price": [10.0] * 3, "side": ["buy"] * 3, "size": [1] * 3}
    body = arrow_of(table | changes, {"time": "11:00:00", "minutes": 1, "seed": 8}, compression)
    with served.running(served.service_of(next_orders, stand, most=MostWanted(orders=3))) as port:
        got, _, answer = asked(port, "/v1/futures", body, Content_Type=ARROW)
    assert got == status and part in answer
    if status == 200:
        assert came[0].seed == 8 and came[0].orders is not None and came[0].orders.to_dict("list") == table


def test_futures_come_in_lines_as_they_are_told(client: Client) -> None:
    told = list(client.futures(day="quiet", minutes=1, seed=4))
    assert [one["kind"] for one in told] == ["start", "part", "part", "part", "result"]
    assert told[0]["nothing"] is None and told[-1] == {"kind": "result", "seed": 4}
    assert 'marsjax_orders_total{of="futures"} 20.0' in client.metrics()


def test_who_leaves_ends_the_futures(next_orders: NextOrders) -> None:
    ended = threading.Event()

    def run(wanted: Wanted, tell: Tell) -> None:
        try:
            while True:
                tell(Told("part", {"passed": 0.5, "ended": 0, "orders": 0}))
                time.sleep(0.01)
        except StoppedError:
            ended.set()
            raise

    with served.running(served.service_of(next_orders, served.Stand(run))) as port:
        with served.client_of(port) as client:
            for told in client.futures(day="quiet", minutes=1):
                assert told["kind"] == "part"
                break
        assert ended.wait(10)
        with served.client_of(port) as client:
            assert client.about()["ready"]


def codes_of(port: int, *calls: Callable[[Client], Any]) -> tuple[list[int], list[threading.Thread]]:
    """Calls that go on, each in a thread with a client of its own, and the statuses of those that are over."""
    codes: list[int] = []

    def ask(call: Callable[[Client], Any]) -> None:
        with served.client_of(port) as client:
            try:
                call(client)
                codes.append(200)
            except ServiceError as error:
                codes.append(error.status)

    threads = [threading.Thread(target=ask, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    return codes, threads


def wait_until(is_so: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < end_s
        time.sleep(0.005)


def test_windows_that_wait_are_bounded_in_number_and_time(next_orders: NextOrders) -> None:
    go = threading.Event()

    class Slow:
        spec, model_spec, columns, checked = next_orders.spec, next_orders.model_spec, COLUMNS, next_orders.checked

        def tokens(self, draws: Any) -> np.ndarray:
            go.wait(20)
            return np.arange(len(draws), dtype=np.int32)

    service = served.service_of(Slow(), waiting_windows=2, most_windows=2, timeout_s=1.0, retry_after_s=3)
    with served.running(service) as port, served.client_of(port) as client:
        codes, threads = codes_of(port, lambda client: client.next_orders(np.stack([WINDOW, WINDOW])))
        wait_until(lambda: service.batches.waiting == 2)
        with pytest.raises(ServiceError) as full:
            client.next_order(WINDOW)
        assert full.value.status == 503 and full.value.retry_after_s == 3
        assert asked(port, "/readyz", method="GET")[0] == 503
        threads[0].join(20)
        assert codes == [504]
        go.set()
        wait_until(lambda: service.batches.waiting == 0)
        assert client.next_orders(np.stack([WINDOW, WINDOW])).tolist() == [0, 1]


def test_futures_that_wait_are_bounded_in_number_and_time(next_orders: NextOrders) -> None:
    go, seen = threading.Event(), []

    def run(wanted: Wanted, tell: Tell) -> None:
        seen.append(wanted.seed)
        go.wait(20)
        served.tell_all(wanted, tell)

    service = served.service_of(next_orders, served.Stand(run), waiting_futures=2, futures_timeout_s=1.5)
    with served.running(service) as port, served.client_of(port) as client:
        calls = [lambda client, seed=seed: list(client.futures(day="quiet", minutes=1, seed=seed)) for seed in (1, 2)]
        codes, threads = codes_of(port, *calls)
        wait_until(lambda: service.futures.waiting == 2)
        with pytest.raises(ServiceError) as full:
            list(client.futures(day="quiet", minutes=1, seed=3))
        assert full.value.status == 503 and full.value.retry_after_s == 1
        for thread in threads:
            thread.join(20)
        assert codes == [504, 504] and len(seen) == 1  # the second never began
        go.set()
        wait_until(lambda: service.futures.waiting == 0)
        assert len(list(client.futures(day="quiet", minutes=1, seed=3))) == 5


def test_a_client_that_goes_while_it_waits_leaves_the_queue(next_orders: NextOrders) -> None:
    go = threading.Event()
    service = served.service_of(next_orders, served.Stand(lambda wanted, tell: go.wait(20) and None), waiting_futures=3)
    with served.running(service) as port:
        body = json.dumps({"day": "quiet", "minutes": 1})
        waiting = [http.client.HTTPConnection("127.0.0.1", port) for _ in range(2)]  # the first runs, the other waits
        for connection in waiting:
            connection.request("POST", "/v1/futures", body, {"Content-Type": JSON})
        wait_until(lambda: service.futures.waiting == 2)
        for connection in waiting:
            connection.close()
        wait_until(lambda: service.futures.waiting == 1)
        go.set()
        wait_until(lambda: service.futures.waiting == 0)


def test_a_fault_is_500_and_ends_nothing(next_orders: NextOrders) -> None:
    def run(wanted: Wanted, tell: Tell) -> None:
        if wanted.seed == 1:
            raise KeyError("a fault")
        if wanted.seed == 2:
            raise InputError("this does not fit")
        if wanted.seed == 3:
            tell(Told("start", {}))
            raise InputError("this did not fit in the end")
        served.tell_all(wanted, tell)

    with served.running(served.service_of(next_orders, served.Stand(run))) as port, served.client_of(port) as client:
        for seed, status, why in ((1, 500, ""), (2, 400, "this does not fit"), (3, 400, "in the end")):
            with pytest.raises(ServiceError) as error:
                list(client.futures(day="quiet", minutes=1, seed=seed))
            assert error.value.status == status and why in str(error.value)
        assert len(list(client.futures(day="quiet", minutes=1))) == 5


def test_a_token_is_asked_for_everywhere_but_for_health(next_orders: NextOrders) -> None:
    with served.running(served.service_of(next_orders, token=served.TOKEN)) as port:
        for word in ("", "Bearer", f"Bearer {served.TOKEN}x", f"Basic {served.TOKEN}", served.TOKEN, "Bearer \xff"):
            for path in ("/order-model", "/v1/next-orders", "/v1/futures", "/metrics"):
                method = "GET" if path == "/metrics" else "POST"
                status, headers, _ = asked(port, path, method=method, Authorization=word)
                assert status == 401 and headers["www-authenticate"] == "Bearer"
        assert asked(port, "/healthz", method="GET")[0] == asked(port, "/readyz", method="GET")[0] == 200
        for host in ("x/healthz?", "x/readyz#", "x/healthz"):
            assert asked(port, "/metrics", method="GET", Host=host)[0] == 401
        with served.client_of(port, token=served.TOKEN) as client:
            assert 0 <= client.next_order(WINDOW) < 384 and "marsjax_requests_total" in client.metrics()


@pytest.mark.parametrize(("path", "body", "headers", "status", "part"), [
    ("/v1/next-orders", bytes(1920 * 9), {"Content_Type": OCTETS}, 413, b"at most 15360 bytes, got 17280"),
    ("/v1/next-orders", json.dumps({"windows": [[[0] * 15]] * 9}), {"Content_Type": JSON}, 413, b"at most 8 windows"),
    ("/v1/next-orders?seed=x", bytes(1920), {"Content_Type": OCTETS}, 400, b"seed: expected a whole number"),
    ("/v1/next-orders?seed=1", "{}", {"Content_Type": JSON}, 400, b"in the address"),
    ("/v1/next-orders", bytes(1920), {"Content_Type": OCTETS, "Content_Encoding": "gzip"}, 415, b"not compressed"),
    ("/v1/next-orders", "{}", {"Content_Type": JSON}, 400, b"windows"),
    ("/v1/futures", "{}", {"Content_Type": JSON}, 400, b"expected `day` or `orders`"),
    ("/v1/futures", '{"day": "quiet", "minutes": 9}', {"Content_Type": JSON}, 413, b"minutes: expected at most 5"),
    ("/v1/futures", '{"day": "quiet", "minutes": 1}', {"Content_Type": JSON, "Accept": "text/html"}, 406, b"accept"),
    ("/v1/futures", b"x" * 3000, {"Content_Type": JSON}, 413, b"at most 2000 bytes"),
    ("/v1/futures", b"\x80\x04.", {"Content_Type": "application/python-pickle"}, 415, b"content-type"),
    ("/nowhere", b"", {}, 404, b""),
])
def test_what_does_not_fit_has_its_status_and_a_line_of_why(strict: int, path: str, body: Any, headers: dict[str, str],
                                                            status: int, part: bytes) -> None:
    got, _, answer = asked(strict, path, body, **headers)
    assert got == status and part in answer and answer.count(b"\n") <= 1


def test_hostile_requests_get_4xx_and_the_service_lives_on(port: int, client: Client) -> None:
    pytest.importorskip("pyarrow")
    sizes, seen = Sizes(LENGTH, COLUMNS), set()
    for request in hostile_requests.requests(1, 240, sizes):
        status = hostile_requests.status_of(("127.0.0.1", port), request)
        assert 400 <= status < 500 or (status == 0 and request.may_be_dropped), (request, status)
        seen.add(status)
    assert {400, 404, 405, 413, 415} <= seen
    assert client.about()["ready"] and 0 <= client.next_order(WINDOW) < 384
    assert 'status="5' not in client.metrics()


@pytest.mark.parametrize(("changes", "part"), [
    ({"token": "short"}, "token: expected 16 to 256"), ({"token": "with a space in it"}, "token"),
    ({"route": "v1"}, "route"), ({"route": "a/b"}, "route"), ({"timeout_s": 0.0}, "timeout_s"),
    ({"timeout_s": float("nan")}, "timeout_s"), ({"waiting_windows": 1}, "expected at least most_windows=256"),
    ({"seed": -2}, "seed"), ({"most_bytes": 0}, "most_bytes")])
def test_a_spec_that_does_not_fit_is_named(changes: dict[str, Any], part: str) -> None:
    with pytest.raises(InputError) as error:
        ServiceSpec(**changes)
    assert part in str(error.value) and changes.get("token", "no token") not in str(error.value)


def test_a_token_is_not_shown() -> None:
    assert served.TOKEN not in repr(ServiceSpec(token=served.TOKEN))


def test_the_code_of_the_page_runs(next_orders: NextOrders, capsys: pytest.CaptureFixture[str]) -> None:
    def run(wanted: Wanted, tell: Tell) -> None:
        tell(Told("part", {"passed": 0.5, "ended": 1, "orders": 3}, {"label": np.array([0.25, np.nan])}))
        tell(Told("result", {"forecast": {"mean": 0.25}}))

    page = (Path(__file__).parents[2] / "docs" / "how_to" / "service.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    with served.running(served.service_of(next_orders, served.Stand(run))) as port:
        exec(code.replace("127.0.0.1:8000", f"127.0.0.1:{port}"), {})
    said = capsys.readouterr().out.splitlines()
    seeded = drawn(next_orders, np.zeros((2, LENGTH, COLUMNS), int), 1)
    assert 0 <= int(said[0]) < 384 and said[1:] == [str(np.array(seeded)), "part 0.5", "result None", "2 0.25"]
