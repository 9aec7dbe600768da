"""The client alone: what it sends and what it makes of answers, from a server of the standard library."""

import datetime
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from marsjax.client import Client, ServiceError
from marsjax.data import frames
from marsjax.studies.service import wanted

ROOT = Path(__file__).parents[1]
WINDOW = np.arange(30).reshape(2, 15)


class Scripted(http.server.ThreadingHTTPServer):
    """Answers with what a test puts down, and keeps what came."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[tuple[int, bytes, dict[str, str]]] = []
        self.came: list[tuple[str, dict[str, str], bytes]] = []
        self.connections = 0


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.came.append((self.path, dict(self.headers), body))
        status, answer, headers = self.server.answers.pop(0)
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(answer))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer)
        self.close_connection = headers.get("Connection") == "close" or "X-Cut" in headers

    do_GET = do_POST  # noqa: N815

    def log_message(self, *what: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Scripted]:
    with Scripted() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def client(server: Scripted) -> Iterator[Client]:
    with Client(f"http://127.0.0.1:{server.server_port}", token="t" * 16, timeout_s=10) as client:
        yield client


def test_a_window_goes_out_as_mars_sends_it_and_a_token_comes_back(server: Scripted, client: Client) -> None:
    server.answers = [(200, np.array([7], "<i4").tobytes(), {}), (200, np.array([1, 2], "<i4").tobytes(), {})]
    assert client.next_order(WINDOW) == 7
    assert client.next_orders(np.stack([WINDOW, WINDOW]), seed=3, first=4).tolist() == [1, 2]
    (path, headers, body), (other, _, bodies) = server.came
    assert path == "/order-model" and body == WINDOW.astype("<i4").tobytes() and bodies == 2 * body
    assert headers["Content-Type"] == "application/octet-stream" and headers["Authorization"] == "Bearer " + "t" * 16
    assert other == "/v1/next-orders?length=2&seed=3&first=4" and server.connections == 1


def test_a_connection_that_was_closed_meanwhile_is_opened_again(server: Scripted, client: Client) -> None:
    server.answers = [(200, b"\7\0\0\0", {"X-Cut": "1"}), (200, b"\x08\0\0\0", {})]
    assert (client.next_order(WINDOW), client.next_order(WINDOW)) == (7, 8) and server.connections == 2


def test_futures_are_told_line_by_line_and_rows_are_joined(server: Scripted, client: Client) -> None:
    lines = [{"kind": "start"}, {"kind": "part", "rows": {"label": [1]}}, {"kind": "again"},
             {"kind": "part", "rows": {"label": [2, None]}}, {"kind": "part", "rows": {"label": [3]}},
             {"kind": "result", "orders": 5}]
    text = "".join(json.dumps(line) + "\n" for line in lines).encode()
    server.answers = [(200, text, {}), (200, text, {})]
    orders = pd.DataFrame({"price": [1.5], "size": np.array([3])})
    assert [told["kind"] for told in client.futures(orders=orders, seed=np.int64(4), minutes=1)] == [
        line["kind"] for line in lines]
    assert json.loads(server.came[0][2]) == {"orders": {"price": [1.5], "size": [3]}, "seed": 4, "minutes": 1}
    assert client.rows(day="quiet", minutes=1) == ({"label": [2, None, 3]}, {"kind": "result", "orders": 5})
    assert server.connections == 1


@pytest.mark.parametrize("column", [
    pd.to_datetime(["2024-01-02 09:30:00.0", "2024-01-02 09:30:01.5"]),
    pd.to_datetime(["2024-01-02 09:30:00.0", "2024-01-02 09:30:01.5"]).tz_localize("Asia/Shanghai"),
    pd.to_timedelta([34_200, 34_201.5], unit="s"), [datetime.time(9, 30), datetime.time(9, 30, 1, 500_000)],
    ["09:30:00", "09:30:01.5"]])
def test_tables_go_out_as_the_service_reads_them(server: Scripted, client: Client, column: Any) -> None:
    server.answers = [(200, b'{"kind": "result"}\n', {})] * 2
    table = pd.DataFrame({"time": column, "side": ["sell", "buy"], "action": ["limit", "market"],
                          "price": [10.01, np.nan], "size": pd.array([300, 100], "Int64")})
    list(client.futures(orders=table, time="09:31:00", minutes=1))
    list(client.futures(orders={name: table[name].tolist() for name in table}, book=None, minutes=1))
    for _, _, body in server.came:
        sent = json.loads(body)["orders"]
        assert sent["price"] == [10.01, None] and sent["size"] == [300, 100]
    read = frames.from_frame(wanted.of_record(json.loads(server.came[0][2])).orders)
    assert frames.to_frame(read)["time_ns"].tolist() == [34_200 * 10**9, 34_201_500_000_000]


def test_what_the_wire_does_not_hold_is_refused_at_once() -> None:
    for number in (2**31, -2**31 - 1, 2**32):
        with pytest.raises(ValueError, match="integers of 32 bits"):
            Client().next_order(np.array([[number]]))
    with pytest.raises(ValueError, match="since midnight"):
        list(Client().futures(orders={"time": np.array([86_400 * 10**9], "timedelta64[ns]")}))


@pytest.mark.parametrize(("answer", "status", "part"), [
    ((200, b'{"kind": "start"}\n', {}), 0, "broke off"),
    ((200, b'{"kind": "start"}\n', {"Content-Length": "500", "X-Cut": "1"}), 0, "broke off"),
    ((200, b'{"kind": "error", "status": 504, "error": "it took too long"}\n', {}), 504, "it took too long"),
    ((503, b"full\n", {"Retry-After": "3"}), 503, "full (status 503)"),
    ((500, b"\xff", {}), 500, "status 500"),
])
def test_futures_that_are_not_made_are_an_error(server: Scripted, client: Client, answer: Any, status: int, part: str
                                                ) -> None:
    server.answers = [answer]
    with pytest.raises(ServiceError) as error:
        list(client.futures(day="quiet", minutes=1))
    assert error.value.status == status and part in str(error.value)
    assert error.value.retry_after_s == (3 if status == 503 else None)


@pytest.mark.parametrize("answer", [(200, b"\0\0\0", {}), (200, b"\0\0\0\0", {"Content-Length": "9", "X-Cut": "1"}),
                                    (401, b"who?", {})])
def test_a_token_that_does_not_come_is_an_error(server: Scripted, client: Client, answer: Any) -> None:
    server.answers = [answer]
    with pytest.raises(ServiceError) as error:
        client.next_order(WINDOW)
    assert error.value.status == (401 if answer[0] == 401 else 0)


def test_no_service_and_no_address_are_errors(server: Scripted) -> None:
    with Scripted() as gone:
        port = gone.server_port
    with pytest.raises(ServiceError, match="no answer"):
        Client(f"http://127.0.0.1:{port}").next_order(WINDOW)
    for address in ("127.0.0.1:8000", "ftp://a", "http://"):
        with pytest.raises(ValueError, match="address"):
            Client(address)
    with pytest.raises(ValueError, match="integers"):
        Client().next_order(WINDOW / 2)
    with pytest.raises(ValueError, match="windows"):
        Client().next_orders(WINDOW)


def test_importing_it_imports_no_jax_and_nothing_else_that_is_large() -> None:
    program = "import sys, marsjax.client; print(sorted(name for name in sys.modules if name.startswith('marsjax')))"
    program += "; print(sorted({'jax', 'pandas', 'flax', 'scipy', 'ray', 'starlette'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(ROOT)},
                            capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.splitlines() == ["['marsjax', 'marsjax.client']", "[]"]
