"""Order models, devices and days, each opened once for all who look at the dashboard; a queue of runs a device."""

import contextlib
import threading
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from marsjax.experiments.pages.settings import Settings
from marsjax.studies import order_model, places
from marsjax.studies.order_model import PreparedModel


class Workshop:
    """One for the process; its methods may be called from any thread."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.devices = _devices()
        """By name, JAX's own default first."""
        self.painter: Executor = ThreadPoolExecutor(1, thread_name_prefix="pictures")
        """Draws what there is of runs that go on."""
        self._lock = threading.Lock()
        self._models: dict[tuple[str, str], PreparedModel] = {}
        self._queues: dict[str, ThreadPoolExecutor] = {}
        self._days: dict[str, places.DayFeed] | None = None

    def model(self, name: str, device: str) -> PreparedModel:
        """An order model on a device; InputError or OSError where it cannot be used."""
        with self._lock:
            if (name, device) not in self._models:
                self._models[name, device] = order_model.loaded(name, self.devices[device])
            return self._models[name, device]

    def queue(self, device: str) -> Executor:
        """Where runs of a device wait: it does one at a time."""
        with self._lock:
            if device not in self._queues:
                self._queues[device] = ThreadPoolExecutor(1, thread_name_prefix=f"runs on {device}")
            return self._queues[device]

    def days(self) -> dict[str, places.DayFeed]:
        """The real days that can be started from, by name; InputError or OSError where they cannot be listed."""
        with self._lock:
            if self._days is None:
                given = self.settings
                found = places.real_days(given.feed, given.data) if given.feed else []
                self._days = {day.name: day for day in found}
            return self._days

    def about(self, model: str, device: str) -> dict[str, Any]:
        """What a repetition needs beside what was asked for: the model, versions, the device."""
        return {"model": order_model.describe(self.model(model, device), model), **self.about_device(device)}

    def about_device(self, device: str) -> dict[str, Any]:
        """Likewise, where there is no model."""
        return {"device": device, "versions": {"marsjax": self.settings.version, "jax": jax.__version__,
                                               "numpy": np.__version__}}


def _devices() -> dict[str, jax.Device]:
    found = list(jax.devices())
    if found[0].platform != "cpu":
        with contextlib.suppress(RuntimeError):  # JAX_PLATFORMS names the accelerator alone
            found += jax.devices("cpu")[:1]
    return {f"{device.device_kind} ({device.platform} {device.id})": device for device in found}
