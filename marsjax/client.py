"""A client of the service: next orders and whole futures over HTTP, by the standard library and NumPy alone.

    from marsjax.client import Client

    with Client("http://127.0.0.1:8000") as client:
        token = client.next_order(window)                       # int32 [context_length, columns]
        for told in client.futures(day="default", minutes=5, trajectories=16):
            print(told["kind"])

The service itself is `marsjax serve`. Importing this module imports no JAX.
"""

import http.client
import json
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

_OCTETS, _JSON, _LINES = "application/octet-stream", "application/json", "application/x-ndjson"
_WIRE = np.dtype("<i4")
_BROKEN = (OSError, http.client.HTTPException)


class ServiceError(Exception):
    """The service did not answer with what was asked for."""

    def __init__(self, status: int, why: str, retry_after_s: float | None = None) -> None:
        super().__init__(f"{why} (status {status})" if status else why)
        self.status = status
        """Of HTTP; 0 where there was no answer, or a stream broke off."""
        self.retry_after_s = retry_after_s
        """How long a service that is full (503) asks to wait."""


class Client:
    """One connection to a service, kept open between requests; a context manager, for one thread.

    Examples:
      >>> Client("http://127.0.0.1:8000").path_of("v1/futures")
      '/v1/futures'
    """

    def __init__(self, address: str = "http://127.0.0.1:8000", token: str = "", route: str = "order-model",
                 timeout_s: float = 600.0) -> None:
        """`route` is the path of requests of one window; ValueError for an address that is none."""
        parts = urllib.parse.urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"address: expected http://HOST:PORT, got {address!r}")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname, parts.port, timeout=timeout_s)
        self._base, self._route = parts.path.rstrip("/"), route
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *what: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection; the next request opens another."""
        self._connection.close()

    def path_of(self, name: str) -> str:
        """The path of one of the service's calls."""
        return f"{self._base}/{name}"

    def next_order(self, window: np.ndarray) -> int:
        """The token drawn after a whole window of tokens, integers [T, C]; ServiceError if it is not answered."""
        return int(_tokens(self._post(self._route, _octets(window)), 1)[0])

    def next_orders(self, windows: np.ndarray, seed: int | None = None, first: int = 0) -> np.ndarray:
        """The tokens drawn after windows, integers [n, T, C], int32 [n]; ServiceError if it is not answered.

        With a seed the draw of window i is keyed by (seed, first + i), so that it can be repeated.
        """
        windows = np.asarray(windows)
        if windows.ndim != 3:
            raise ValueError(f"windows: expected [n, T, C], got {list(windows.shape)}")
        given = {"length": windows.shape[1]} | ({} if seed is None else {"seed": seed, "first": first})
        path = f"v1/next-orders?{urllib.parse.urlencode(given)}"
        return _tokens(self._post(path, _octets(windows)), len(windows))

    def futures(self, **wanted: Any) -> Iterator[dict[str, Any]]:
        """Asks for futures, and gives what is told of them as it comes; the last has the kind `result`.

        The keys are those of the service's page (how_to/service.md): `day`, or `orders` (a DataFrame, or columns by
        their names) and `time`; `minutes`, `trajectories`, `seed`, `temperature`, `rows`. NaN in a table stands for no
        value. Leave the iteration to end the futures. ServiceError if they are refused or broken off.
        """
        given = {key: _table(value) if key in ("orders", "book") else value for key, value in wanted.items()}
        response = self._request("POST", "v1/futures", json.dumps(given, default=_plain).encode(),
                                 {"Content-Type": _JSON, "Accept": _LINES})
        is_whole = False
        try:
            for line in response:
                told = json.loads(line)
                if told["kind"] == "error":
                    raise ServiceError(told["status"], told["error"])
                yield told
                is_whole = told["kind"] == "result"
            if not is_whole:
                raise ServiceError(0, "the stream of futures broke off")
            response.read()
        except _BROKEN as error:
            raise ServiceError(0, f"the stream of futures broke off: {error}") from error
        finally:
            if not is_whole:
                self.close()

    def rows(self, **wanted: Any) -> tuple[dict[str, list[Any]], dict[str, Any]]:
        """`futures` at once: all rows, columns by their names, and the result."""
        rows: dict[str, list[Any]] = {}
        for told in self.futures(**wanted):
            if told["kind"] == "again":
                rows = {}
            for name, column in told.get("rows", {}).items():
                rows.setdefault(name, []).extend(column)
        return rows, told

    def about(self) -> dict[str, Any]:
        """Which model is served, and the sizes of its windows; ServiceError if the service takes no request now."""
        return dict(json.loads(self._request("GET", "readyz").read()))

    def metrics(self) -> str:
        """Prometheus' text."""
        return self._request("GET", "metrics").read().decode()

    def _post(self, path: str, body: bytes) -> bytes:
        response = self._request("POST", path, body, {"Content-Type": _OCTETS})
        try:
            return response.read()
        except _BROKEN as error:
            self.close()
            raise ServiceError(0, f"the answer broke off: {error}") from error

    def _request(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = {}
                 ) -> http.client.HTTPResponse:
        """An answer of 200, not read yet."""
        is_fresh = self._connection.sock is None
        try:
            response = self._answer(method, path, body, headers)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError) as error:
            self.close()
            if is_fresh:
                raise ServiceError(0, f"no answer: {error}") from error
            return self._request(method, path, body, headers)  # the service had closed a connection that was kept
        except _BROKEN as error:
            self.close()
            raise ServiceError(0, f"no answer: {error}") from error
        if response.status == 200:
            return response
        text = response.read(4096).decode("utf-8", "replace").strip()
        wait = response.headers.get("Retry-After", "")
        self.close()
        raise ServiceError(response.status, text, float(wait) if wait.isdigit() else None)

    def _answer(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
                ) -> http.client.HTTPResponse:
        self._connection.request(method, self.path_of(path), body, {**self._headers, **headers})
        return self._connection.getresponse()


def _octets(window: np.ndarray) -> bytes:
    window = np.asarray(window)
    if window.dtype.kind not in "iu":
        raise ValueError(f"window: expected integers, got {window.dtype}")
    limits = np.iinfo(_WIRE)
    if window.size and not (window.min() >= limits.min and window.max() <= limits.max):
        raise ValueError(f"window: expected integers of 32 bits, got {window.min()} to {window.max()}")
    return window.astype(_WIRE).tobytes()


def _tokens(answer: bytes, count: int) -> np.ndarray:
    if len(answer) != count * _WIRE.itemsize:
        raise ServiceError(0, f"expected {count} int32, got {len(answer)} bytes")
    return np.frombuffer(answer, _WIRE).astype(np.int32)


def _table(table: Any) -> Any:
    """Columns by their names as lists; what is no table is left to the service to refuse."""
    if not (isinstance(table, Mapping) or hasattr(table, "columns")):
        return table
    return {name: _column(table[name]) for name in table}


def _column(column: Any) -> Any:
    """A list of numbers and texts, None where there is no value; of times their text."""
    if isinstance(column, str) or not hasattr(column, "__iter__"):
        return column
    kind = getattr(getattr(column, "dtype", None), "kind", "")
    if kind == "M":
        local = np.asarray(column.dt.tz_localize(None) if hasattr(column, "dt") else column)
        return np.datetime_as_string(local).tolist()
    if kind == "m":
        return [text.partition("T")[2] for text in np.datetime_as_string(_since_midnight(np.asarray(column))).tolist()]
    values = column.tolist() if hasattr(column, "tolist") else list(column)
    missing = column.isna() if hasattr(column, "isna") else [isinstance(value, float) and value != value
                                                             for value in values]
    return [None if is_missing else value for value, is_missing in zip(values, missing, strict=True)]


def _since_midnight(times: np.ndarray) -> np.ndarray:
    """datetime64 of the first day; ValueError for times that are not of one day."""
    if not ((times >= np.timedelta64(0)) & (times < np.timedelta64(1, "D"))).all():
        raise ValueError("orders: expected times since midnight, below a day")
    return np.datetime64(0, "ns") + times


def _plain(value: Any) -> Any:
    """What JSON lacks: numbers and arrays of NumPy, times."""
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"expected numbers, text, lists or arrays, got {type(value).__name__}")
