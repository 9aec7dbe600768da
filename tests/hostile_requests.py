"""Requests that no service should serve: wrong types, sizes, numbers, nests, broken bodies, broken HTTP.

`requests` makes them from a seed, `status_of` sends one by a plain socket. experiments/service sends a thousand.
"""

import io
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

PATHS = ("/order-model", "/v1/next-orders", "/v1/futures")
OCTETS, JSON, ARROW = "application/octet-stream", "application/json", "application/vnd.apache.arrow.stream"


class Sizes(NamedTuple):
    """Of the windows that are served."""

    length: int
    columns: int

    @property
    def window(self) -> int:
        """Bytes."""
        return 4 * self.length * self.columns


class Hostile(NamedTuple):
    """A request as bytes, and what kind of fault it has."""

    fault: str
    data: bytes
    may_be_dropped: bool = False
    """Whether the service may close the connection without an answer: it never got the whole request."""


def post(fault: str, path: str, kind: str | None, body: bytes, *lines: str, length: str = "") -> Hostile:
    head = [f"POST {path} HTTP/1.1", "Host: test", "Connection: close", f"Content-Length: {length or len(body)}",
            *([f"Content-Type: {kind}"] if kind is not None else []), *lines]
    return Hostile(fault, "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body)


def requests(seed: int, count: int, sizes: Sizes) -> Iterator[Hostile]:
    """So many, of each kind about as many."""
    random = np.random.default_rng(seed)
    kinds: list[Callable[[np.random.Generator, Sizes], Hostile]] = [
        wrong_type, wrong_size, wrong_numbers, no_json, json_of_another_shape, wrong_key, wrong_windows, no_arrow,
        wrong_route, wrong_query, broken_http, half_a_request]
    for number in range(count):
        yield kinds[number % len(kinds)](random, sizes)


def wrong_type(random: np.random.Generator, sizes: Sizes) -> Hostile:
    kinds = [None, "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
             "application/octet-streams", "application/python-pickle", "image/png", "\xff\xfe", "a" * 3000]
    lines = ["Content-Encoding: gzip"] if random.random() < 0.2 else []
    kind = OCTETS if lines else kinds[random.integers(len(kinds))]
    path = PATHS[random.integers(2 if lines else 3)]
    return post("type", path, kind, bytes(sizes.window), *lines)


def wrong_size(random: np.random.Generator, sizes: Sizes) -> Hostile:
    lengths = [0, 1, 3, sizes.window - 1, sizes.window + 1, sizes.window - 4, 3 * sizes.window // 2,
               int(random.integers(1, sizes.window))]
    return post("size", PATHS[random.integers(2)], OCTETS, bytes(lengths[random.integers(len(lengths))]))


def wrong_numbers(random: np.random.Generator, sizes: Sizes) -> Hostile:
    numbers = random.integers(-2**31, 2**31, (sizes.length, sizes.columns))
    numbers[random.integers(sizes.length), 0] = -1
    return post("numbers", PATHS[random.integers(2)], OCTETS, numbers.astype("<i4").tobytes())


def no_json(random: np.random.Generator, sizes: Sizes) -> Hostile:
    del sizes
    bodies = [b"", b"{", b"\xff\xfe\x00", b'{"day": "default", "minutes": 1', b"[" * 100_000, b'{"a":' * 50_000,
              b"nan", b"{'day': 'default'}", b'{"day": "\xc3\x28"}', random.bytes(200), b'{"minutes": 1}x',
              b"1" * 20_000, b'"' + b"x" * 10_000, b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94."]
    return post("no JSON", PATHS[1 + random.integers(2)], JSON, bodies[random.integers(len(bodies))])


def json_of_another_shape(random: np.random.Generator, sizes: Sizes) -> Hostile:
    del sizes
    deep: Any = 1
    for _ in range(int(random.integers(30, 200))):
        deep = {"day": deep} if random.random() < 0.5 else [deep]
    bodies = [deep, [], None, True, 3, "day", {}, {"day": deep}, {"orders": deep, "time": "10:00:00", "minutes": 1},
              {"windows": deep}, {"windows": {}}, {"windows": []}, {"windows": [[]]}, {"windows": "AAAA"}]
    return post("shape", PATHS[1 + random.integers(2)], JSON, json.dumps(bodies[random.integers(len(bodies))]).encode())


def wrong_key(random: np.random.Generator, sizes: Sizes) -> Hostile:
    del sizes
    orders = {"time": ["09:30:00", "09:30:01"], "side": ["sell", "buy"], "price": [10.01, 10.0], "size": [300, 100]}
    good: list[dict[str, Any]] = [{"day": "default", "minutes": 1},
                                  {"orders": orders, "time": "10:00:00", "minutes": 1}]
    bad: list[dict[str, Any]] = [
        {"minutes": 0}, {"minutes": -1}, {"minutes": 1e300}, {"minutes": float("nan")}, {"minutes": None},
        {"minutes": 10**300}, {"minutes": [1]}, {"trajectories": 0}, {"trajectories": 10**9}, {"trajectories": "8"},
        {"seed": -1}, {"seed": 2**31}, {"seed": 0.5}, {"seed": float("inf")}, {"temperature": 0},
        {"temperature": -1.0}, {"temperature": float("inf")}, {"temperature": "hot"}, {"threshold": 2},
        {"rows": "everything"}, {"rows": 1}, {"day": "../../etc/passwd", "orders": orders}, {"__class__": "os"},
        {"day": {"$ne": ""}}, {"tick": "1e999999"}, {"tick": "0"}, {"time": "99:00:00", "tick": "-1"},
        {"orders": "SELECT"}, {"orders": orders | {"price": [float("nan"), 1e308]}, "minutes": 0}, {"x" * 5000: 1}]
    return post("key", PATHS[2], JSON, json.dumps(good[random.integers(2)] | bad[random.integers(len(bad))]).encode())


def wrong_windows(random: np.random.Generator, sizes: Sizes) -> Hostile:
    row = [0] * sizes.columns
    windows: list[Any] = [
        *([[[value, *row[1:]]]] for value in (0.5, -1, 2**40, 10**30, float("nan"), "0", None, [])),
        [[row[:-1]]], [[[*row, 0]]], [[row], [row, row]], [[row] * (sizes.length + 1)], [[[[0]]]], row]
    record: dict[str, Any] = {"windows": windows[random.integers(len(windows))]}
    if random.random() < 0.3:
        more = [{"seed": -1}, {"seed": "x"}, {"first": 1}, {"sed": 1}, {"seed": 1, "first": -1}, {"seed": 2**31},
                {"seed": 1, "first": 2**31 - 1}]
        record = {"windows": [[row]]} | more[random.integers(len(more))]
    return post("windows", PATHS[1], JSON, json.dumps(record).encode())


def no_arrow(random: np.random.Generator, sizes: Sizes) -> Hostile:
    """A stream that is cut off, has bytes flipped, or asks for no minutes: whatever its table says, it is refused."""
    del sizes
    try:
        import pyarrow
        from pyarrow import ipc
    except ImportError:
        return post("Arrow", PATHS[2], ARROW, random.bytes(300))
    table = pyarrow.table({"time": ["09:30:00", "09:30:01"], "side": ["sell", "buy"], "price": [10.01, 10.0],
                           "size": [300, 100]})
    table = table.replace_schema_metadata({b"marsjax": b'{"time": "10:00:00", "minutes": 0}'})
    options = ipc.IpcWriteOptions(compression="zstd" if random.random() < 0.2 else None)
    sink = io.BytesIO()
    with ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    data = bytearray(sink.getvalue())
    way = random.random()
    if way < 0.4:
        data = data[: int(random.integers(0, len(data) - 8))]
    elif way < 0.9:
        for place in random.integers(0, len(data), int(random.integers(1, 6))):
            data[place] ^= int(random.integers(1, 256))
    return post("Arrow", PATHS[2], ARROW, bytes(data))


def wrong_route(random: np.random.Generator, sizes: Sizes) -> Hostile:
    method = ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"][random.integers(6)]
    path = [*PATHS, "/", "/v1", "/v1/futures/x", "/../etc/passwd", "/%00", "/order-model/../../x", "/" + "a" * 2000][
        random.integers(10)]
    if random.random() < 0.3:
        return post("route", ["/healthz", "/metrics", "/v2/futures", "/docs"][random.integers(4)], OCTETS,
                    bytes(sizes.window))
    return Hostile("route", f"{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode())


def wrong_query(random: np.random.Generator, sizes: Sizes) -> Hostile:
    query = ["seed=-1", "seed=x", "seed=" + "9" * 4000, "first=1", "length=0", "length=99999999", "sed=1", "seed=1.5",
             "seed=1&first=-2", "seed=%F0%9F%98%80", "windows=1", "length=%00"][random.integers(12)]
    return post("query", f"{PATHS[1]}?{query}", OCTETS, bytes(sizes.window))


def broken_http(random: np.random.Generator, sizes: Sizes) -> Hostile:
    del sizes
    start, end = b"POST /order-model HTTP/1.1\r\n", b"\r\n\r\n"
    data = [end + end + b"\x00", b"POST", b"GET / HTTP/9.9", start + b"Host", start + b"Host: a\r\nContent-Length: -5",
            start + b"Host: a\r\nContent-Length: x", random.bytes(100), b"\x16\x03\x01\x02\x00\x01\x00",
            start + b"Host: a\r\nTransfer-Encoding: chunked\r\n\r\nZZ"]
    return Hostile("HTTP", data[random.integers(len(data))] + end, may_be_dropped=True)


def half_a_request(random: np.random.Generator, sizes: Sizes) -> Hostile:
    path, kind = [(PATHS[0], OCTETS), (PATHS[1], OCTETS), (PATHS[1], JSON), (PATHS[2], JSON)][random.integers(4)]
    length = sizes.window if kind == OCTETS else 500
    body = bytes(int(random.integers(0, length)))
    return post("half", path, kind, body, length=str(length))._replace(may_be_dropped=True)


def status_of(address: tuple[str, int], request: Hostile, timeout_s: float = 30.0) -> int:
    """The status of the answer, 0 where the connection was closed without one."""
    with socket.create_connection(address, timeout=timeout_s) as connection:
        answer = b""
        try:
            connection.sendall(request.data)
            if request.may_be_dropped:
                connection.shutdown(socket.SHUT_WR)
            while b"\r\n" not in answer and (more := connection.recv(4096)):
                answer += more
        except (ConnectionResetError, BrokenPipeError):
            return 0
    words = answer.split(b" ", 2)
    return int(words[1]) if answer.startswith(b"HTTP/") and len(words) > 1 else 0
