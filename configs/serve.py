"""Serves an order model over HTTP: next orders, as MarS's server does, and whole futures.

    python -m marsjax.experiments.serve --config=configs/serve.py
    python -m marsjax.experiments.serve --config=configs/serve.py:port=8100 --config.engine=ray

It listens to this machine alone, on port 8000, until it is ended. What it takes and answers is docs/how_to/service.md.
It needs the extra `serve`: pip install 'marsjax[serve]'.

Argument: `model`, `port`, `engine`.
"""

from ml_collections import ConfigDict

from marsjax.experiments.config import parse_arg
from marsjax.experiments.config_parts import add_order_model


def get_config(arg: str | None = None) -> ConfigDict:
    """The config of a service; see the top of the file for `arg`."""
    chosen = parse_arg(arg, (), model="default", port=8000, engine="uvicorn")
    config = ConfigDict()
    config.engine = chosen.engine  # uvicorn: this process; ray: replicas by Ray Serve
    config.host = "127.0.0.1"  # address to listen at; another than this machine's own needs a token
    config.port = chosen.port  # 0: a free one, which is printed (uvicorn)
    config.replicas = 0  # ray: processes with the model; 0: one a GPU, or one
    config.token_file = ""  # a file with the token that requests must bring; empty: none is asked for

    add_order_model(config, chosen.model)
    config.temperature = 1.0  # of next orders
    config.seed = -1  # of draws whose request brings no seed; -1: from the system's randomness
    config.days = ("default", "quiet", "busy")  # days that come with the model, which futures can go on from
    config.most_programs = 16  # compiled programs of futures that are kept; after them all are dropped, and made anew
    config.chunk_steps = 64  # decisions in one compiled call of futures, and of a part of their stream

    config.route = "order-model"  # path of requests as MarS's client sends them
    config.batch_sizes = (1, 8, 64)  # windows of a compiled call; batches are padded to the next of them
    config.batch_wait_ms = 2.0  # how long the first window of a batch waits for others
    config.waiting_windows = 2048  # that wait or are drawn from; beyond them: 503
    config.waiting_futures = 8  # requests for futures that wait or run; beyond them: 503
    config.timeout_s = 30.0  # of a request for next orders, and of the body of any
    config.futures_timeout_s = 600.0  # of a request for futures, waiting and compiling included
    config.retry_after_s = 1  # what a 503 tells the client to wait

    config.most_windows = 256  # in a request; beyond it, and beyond all that follow: 413
    config.most_bytes = 2**23  # of the body of a request for futures, and of windows as JSON
    config.most_trajectories = 256  # futures of a request
    config.most_minutes = 30  # of a future
    config.most_orders = 50_000  # that lead to a start
    return config
