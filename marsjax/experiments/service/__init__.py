"""The service's HTTP: an ASGI application before `marsjax.studies.service`, and what it runs in.

It needs the extra `serve`: pip install 'marsjax[serve]'. The public names are modules, each imported when it is first
used.
  `service_spec`: sizes, times and the token of a service.
  `refusals`: an answer other than 200, as an exception.
  `bodies`: bodies of requests, read up to a size and decoded.
  `arrow_tables`: requests and rows as Arrow streams.
  `batches`: windows of many requests gathered into batches, in a thread of their own.
  `futures_queue`: requests for futures, one after the other in a thread, their rows as an asynchronous stream.
  `streams`: these rows as lines of JSON or as an Arrow stream.
  `counted`: the metrics, in Prometheus' text format.
  `app`: the application.
  `engines`: the application in one process by uvicorn, or as replicas by Ray Serve.
"""

import importlib
from types import ModuleType

__all__ = ["app", "arrow_tables", "batches", "bodies", "counted", "engines", "futures_queue", "refusals",
           "service_spec", "streams"]


def __getattr__(name: str) -> ModuleType:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
