"""The order model as a service over HTTP; the config says which and how: configs/serve.py."""

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

import marsjax
from marsjax.core import files, limits
from marsjax.core.errors import InputError
from marsjax.experiments import launcher, setup
from marsjax.experiments.service import engines
from marsjax.experiments.service.app import Models, Service
from marsjax.experiments.service.service_spec import ServiceSpec
from marsjax.studies import order_model
from marsjax.studies.service.next_orders import NextOrders, NextOrdersSpec
from marsjax.studies.service.wanted import MostWanted
from marsjax.studies.service.whole_futures import WholeFutures

_MOST_TOKEN_BYTES = 4096


def main(config: ConfigDict) -> int:
    """Serves until a signal comes."""
    engines.check_installed(config.engine)
    limits.check_whole("config.port", config.port, 0 if config.engine == "uvicorn" else 1, 65535)
    setup.at_least(config, "replicas", 0, 1024)
    setup.at_least(config, "most_programs", 1, limits.TRAJECTORIES)
    spec = _service_spec(config)
    _most(config)
    setup.spec_of(NextOrdersSpec, config)
    if not _is_local(config.host) and not spec.token:
        raise InputError(f"config.host: at {config.host} others reach the service: set config.token_file to a file "
                         "with the token that they must bring, or leave it at 127.0.0.1")

    def listening(port: int) -> None:
        print(f"serving {config.model} on http://{config.host}:{port} by {config.engine} (end it with Ctrl-C)",
              flush=True)

    if config.engine == "ray":
        _by_ray(config, spec, listening)
        return 0
    if config.replicas > 1:
        raise InputError(f"config.replicas: expected 0 or 1 with engine=uvicorn, got {config.replicas}: take "
                         "engine=ray for more")

    def made() -> Service:
        print("compiling, half a minute or so the first time", flush=True)
        return service_of(config.to_dict())

    engines.by_uvicorn(made, config.host, config.port, listening)
    return 0


def service_of(config: Mapping[str, Any], name: str = "") -> Service:
    """The application of a config of plain values, compiled; InputError or OSError where it cannot be.

    `name` is what it calls its model, if not as the config does.
    """
    given = ConfigDict(dict(config))
    prepared = setup.load_order_model(given)
    next_orders = NextOrders(prepared, setup.spec_of(NextOrdersSpec, given))
    whole = WholeFutures(prepared, given.model, tuple(given.days), given.chunk_steps, given.most_programs)
    about = {"model": name or given.model, "sha256": order_model.parameters_hash(prepared.model.model),
             "context_length": prepared.model.spec.context_length, "columns": next_orders.columns,
             "classes": prepared.model.spec.tokens.classes, "days": list(given.days), "marsjax": marsjax.__version__}
    return Service(Models(next_orders, whole, _most(given), about), _service_spec(given))


def replica_of(given: Mapping[str, Any]) -> Service:
    """`service_of` in a process of its own, which keeps what it compiles as the program does; of `_for_replicas`."""
    launcher.set_up_compilation_cache()
    return service_of(given["config"], given["name"])


def _for_replicas(config: ConfigDict) -> dict[str, Any]:
    """What is given to replicas, whose working folder may be another: files and folders by their whole paths."""
    found = {key: str(Path(config[key]).resolve()) for key in ("model", "converters", "token_file")
             if config[key] and config[key] != "default" and Path(config[key]).exists()}
    return {"config": config.to_dict() | found, "name": config.model}


def _by_ray(config: ConfigDict, spec: ServiceSpec, listening: Any) -> None:
    devices = jax.devices()
    is_gpu = devices[0].platform == "gpu"
    replicas = config.replicas or (len(devices) if is_gpu else 1)
    if spec.seed >= 0 and replicas > 1:
        raise InputError(f"config.seed: expected -1 with {replicas} replicas, which else would draw alike, got "
                         f"{spec.seed}")
    # A fault of the model shows here in one line; a replica would try again and again.
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        setup.load_order_model(config)
    print(f"starting {replicas} replicas, each compiles for half a minute or so the first time", flush=True)
    engines.by_ray(replica_of, _for_replicas(config), config.host, config.port, listening, replicas,
                   1.0 if is_gpu else 0.0)


def _service_spec(config: ConfigDict) -> ServiceSpec:
    token = ""
    if config.token_file:
        token = files.read_text(Path(config.token_file), _MOST_TOKEN_BYTES).strip()
        if not token:
            raise InputError(f"config.token_file {config.token_file}: expected a token, got an empty file")
    try:
        return setup.spec_of(ServiceSpec, config, token=token)
    except InputError as error:
        raise InputError(str(error).replace("config.token:", "config.token_file:")) from error


def _most(config: ConfigDict) -> MostWanted:
    try:
        return MostWanted(config.most_trajectories, config.most_minutes, config.most_orders)
    except InputError as error:
        raise InputError(str(error).replace("MostWanted.", "config.most_")) from error


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


if __name__ == "__main__":
    launcher.run("serve", main)
