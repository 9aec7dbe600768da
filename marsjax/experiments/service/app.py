"""The application: what each path takes and answers. Any ASGI server runs it.

| path | takes | answers |
|---|---|---|
| POST /order-model | one window, little-endian int32 [context_length x columns] (MarS's client) | one int32 |
| POST /v1/next-orders | windows, as such numbers or as JSON | tokens, in the same form |
| POST /v1/futures | a starting state and what is wanted, JSON or Arrow | lines of JSON or an Arrow stream |
| GET /healthz, /readyz | | whether the process lives, whether it would take a request |
| GET /metrics | | Prometheus' text |
"""

import asyncio
import hmac
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from marsjax.core import files, limits
from marsjax.experiments.service import bodies, refusals, streams
from marsjax.experiments.service.batches import Batches, FullError
from marsjax.experiments.service.counted import Counted
from marsjax.experiments.service.futures_queue import FuturesQueue
from marsjax.experiments.service.refusals import RefusedError
from marsjax.experiments.service.service_spec import ServiceSpec
from marsjax.studies.service import wanted
from marsjax.studies.service.next_orders import Draw, NextOrders
from marsjax.studies.service.wanted import MostWanted
from marsjax.studies.service.whole_futures import Told, WholeFutures

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

_LOOK_EVERY_S = 0.5
"""Whether a client that waits for its first part is still there."""
Handler = Callable[["Request"], Awaitable["Response"]]


class Models(NamedTuple):
    """What is served."""

    next_orders: NextOrders
    whole_futures: WholeFutures
    most: MostWanted
    about: dict[str, Any]
    """Of the model, for /readyz."""


class Service:
    """The application; `spec` bounds it. An ASGI application: `await service(scope, receive, send)`."""

    def __init__(self, models: Models, spec: ServiceSpec) -> None:
        self._models, self._spec, self.counted = models, spec, Counted()
        of = models.next_orders
        self.batches = Batches(of.tokens, of.spec.batch_sizes[-1], spec.waiting_windows, spec.batch_wait_ms / 1000,
                               self.counted.batch)
        self.futures = FuturesQueue(models.whole_futures.run, spec.waiting_futures, spec.futures_timeout_s)
        self._seed = secrets.randbelow(limits.SEED) if spec.seed < 0 else spec.seed
        self._number = 0
        self._under_way: set[asyncio.Task[Any]] = set()
        self._is_ending = False
        self.counted.waiting_windows.set_function(lambda: self.batches.waiting)
        self.counted.waiting_futures.set_function(lambda: self.futures.waiting)
        self._routes = _routes(self, spec)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers one request, and counts it."""
        if scope["type"] != "http":
            await self._routes(scope, receive, send)
            return
        began, status = time.perf_counter(), 0
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._under_way.add(task)

        async def told(message: Any) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._routes(scope, receive, told)
        except asyncio.CancelledError:
            if not self._is_ending:
                raise
            await _broken_off(scope, receive, told, status)
        finally:
            self._under_way.discard(task)
            self.counted.request(_route_of(scope), status, time.perf_counter() - began)

    def end(self) -> None:
        """Answers what is under way with 503, or breaks its answer off; called in the event loop, at the end."""
        self._is_ending = True
        for task in self._under_way:
            task.cancel()

    def close(self) -> None:
        """Ends its threads, those of futures after their chunk."""
        self.batches.close()
        self.futures.close()

    async def one_window(self, request: "Request") -> "Response":
        """The reference's request: a whole window, one token."""
        from starlette.responses import Response

        bodies.kind_of(request, bodies.OCTETS)
        of = self._models.next_orders
        length = of.model_spec.context_length
        body = await bodies.read(request, 4 * length * of.columns, self._spec.timeout_s)
        windows = bodies.windows_of(body, length, of.columns)
        tokens, _ = await self._tokens(of.checked(windows), None, 0)
        return Response(bodies.octets_of(tokens), media_type=bodies.OCTETS)

    async def next_orders(self, request: "Request") -> "Response":
        """Tokens of some windows, with the seed and the first number that draw the same again."""
        from starlette.responses import JSONResponse, Response

        kind = bodies.kind_of(request, bodies.OCTETS, bodies.JSON)
        of, spec = self._models.next_orders, self._spec
        size = 4 * of.model_spec.context_length * of.columns * spec.most_windows
        body = await bodies.read(request, size if kind == bodies.OCTETS else spec.most_bytes, spec.timeout_s)
        # In a thread: it takes the longer the more windows there are, and others wait for the loop.
        windows, given = await asyncio.to_thread(self._asked, kind, body, dict(request.query_params))
        seed, first = bodies.seed_of(given, len(windows))
        tokens, keyed = await self._tokens(windows, seed, first)
        if kind == bodies.JSON:
            return JSONResponse({"tokens": tokens.tolist()} | keyed)
        return Response(bodies.octets_of(tokens), media_type=bodies.OCTETS,
                        headers={f"marsjax-{name}": str(value) for name, value in keyed.items()})

    def _asked(self, kind: str, body: bytes, query: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
        """The windows of a request, checked, and what is given beside them."""
        of, most = self._models.next_orders, self._spec.most_windows
        if kind == bodies.JSON:
            if query:
                raise RefusedError(400, f"expected no {next(iter(query))[:40]!r} in the address with JSON")
            given = files.json_object("request", body)
            _only(given, ("windows", "seed", "first"))
            windows = bodies.windows_of_json(given)
        else:
            given = query
            _only(given, ("length", "seed", "first"))
            length = bodies.whole("length", given.get("length"), of.model_spec.context_length, 1)
            windows = bodies.windows_of(body, length or of.model_spec.context_length, of.columns)
        if len(windows) > most:
            raise RefusedError(413, f"expected at most {most} windows, got {len(windows)}")
        return of.checked(windows), given

    async def _tokens(self, windows: np.ndarray, seed: int | None, first: int) -> tuple[np.ndarray, dict[str, int]]:
        """Tokens int32 [n], and what keys them."""
        if seed is None:
            if self._number + len(windows) > limits.SEED:
                self._seed, self._number = secrets.randbelow(limits.SEED), 0
            seed, first = self._seed, self._number
            self._number += len(windows)
        draws = [Draw(window, seed, first + place) for place, window in enumerate(windows)]
        try:
            async with asyncio.timeout(self._spec.timeout_s):
                return await self.batches.draw(draws), {"seed": seed, "first": first}
        except FullError:
            raise self._full() from None

    async def whole_futures(self, request: "Request") -> "Response":
        """A stream of what futures come to while they are made."""
        from starlette.responses import StreamingResponse

        kind = bodies.kind_of(request, bodies.JSON, bodies.ARROW)
        media, encoder = streams.encoder_of(request.headers.get("accept", ""))
        body = await bodies.read(request, self._spec.most_bytes, self._spec.timeout_s)
        most = self._models.most
        asked = await asyncio.to_thread(lambda: wanted.of_record(bodies.futures_record(kind, body, most.orders), most))
        told = self.futures.stream(asked)
        try:
            first = await _first(told, request)
        except FullError:
            raise self._full() from None
        return StreamingResponse(self._encoded(first, told, encoder), media_type=media)

    async def _encoded(self, first: Told, told: AsyncIterator[Told], encoder: streams.Encoder) -> AsyncIterator[bytes]:
        orders = 0
        try:
            yield encoder.encoded(first)
            async for one in told:
                if one.kind == "part":
                    self.counted.futures(max(one.facts["orders"] - orders, 0))
                    orders = one.facts["orders"]
                yield encoder.encoded(one)
        except refusals.ANSWERED as error:
            yield encoder.encoded(streams.broken_off(refusals.of_error(error)))
        finally:
            await told.aclose()  # type: ignore[attr-defined]

    async def ready(self, request: "Request") -> "Response":
        """Whether it would take a request now, and of which model."""
        from starlette.responses import JSONResponse

        del request
        is_full = self.batches.waiting >= self._spec.waiting_windows
        return JSONResponse({"ready": not is_full, **self._models.about}, 503 if is_full else 200)

    async def metrics(self, request: "Request") -> "Response":
        """Prometheus' text."""
        from starlette.responses import Response

        del request
        return Response(self.counted.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    def _full(self) -> RefusedError:
        return RefusedError(503, "too many requests wait: try again later", self._spec.retry_after_s)


async def _broken_off(scope: Any, receive: Any, send: Any, status: int) -> None:
    """The end of an answer that is not whole: of one that has begun no more comes, so that its client sees it."""
    from starlette.responses import PlainTextResponse

    if status:
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    else:
        await PlainTextResponse("the service ends\n", 503, {"connection": "close"})(scope, receive, send)


async def _first(told: AsyncIterator[Told], request: "Request") -> Told:
    """The first thing told; RefusedError (499) where the client has gone before."""
    first = asyncio.ensure_future(anext(told))  # type: ignore[arg-type]
    try:
        while not first.done():
            await asyncio.wait({first}, timeout=_LOOK_EVERY_S)
            if not first.done() and await request.is_disconnected():
                raise RefusedError(499, "the client has gone")
        return first.result()
    finally:
        if not first.done():
            first.cancel()
            await asyncio.wait({first})


def _only(given: dict[str, Any], known: tuple[str, ...]) -> None:
    unknown = sorted(str(key) for key in set(given) - set(known))
    if unknown:
        raise RefusedError(400, f"unknown key {unknown[0][:40]!r}; known are {', '.join(known)}")


def _route_of(scope: Any) -> str:
    """The path, if it is one of the service's: a label for few."""
    return scope["path"] if scope.get("endpoint") is not None else "unknown"


def _routes(service: Service, spec: ServiceSpec) -> Any:
    """Starlette's application: paths, errors as answers, the token."""
    from starlette.applications import Starlette
    from starlette.requests import ClientDisconnect
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def alive(request: "Request") -> "Response":
        del request
        return PlainTextResponse("alive")

    async def refused(request: "Request", error: Exception) -> "Response":
        del request
        answer = refusals.of_error(error)
        if answer.status >= 500 and answer.status != 503:
            logging.getLogger(__name__).warning("answered with %d: %s", answer.status, answer)
        return PlainTextResponse(f"{answer}\n", answer.status, answer.headers())

    async def gone(request: "Request", error: Exception) -> "Response":
        del request, error
        return PlainTextResponse("the client has gone\n", 499)

    def guarded(handler: Handler) -> Handler:
        async def guard(request: "Request") -> "Response":
            if spec.token and not _has_token(request, spec.token):
                raise RefusedError(401, "expected the header Authorization: Bearer TOKEN with the service's token")
            return await handler(request)

        return guard

    # Which of them need no token is fixed here, by the handler: what a request says of its address is not asked.
    posts = {f"/{spec.route}": service.one_window, "/v1/next-orders": service.next_orders,
             "/v1/futures": service.whole_futures}
    gets = {"/healthz": alive, "/readyz": service.ready, "/metrics": guarded(service.metrics)}
    routes = [*(Route(path, guarded(handler), methods=["POST"]) for path, handler in posts.items()),
              *(Route(path, handler, methods=["GET"]) for path, handler in gets.items())]
    return Starlette(routes=routes, exception_handlers={
        **dict.fromkeys((RefusedError, *refusals.ANSWERED), refused), ClientDisconnect: gone})


def _has_token(request: "Request", token: str) -> bool:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    is_equal = hmac.compare_digest(given.strip().encode("latin-1", "replace"), token.encode())
    return is_equal and scheme.lower() == "bearer"
