"""One training on two devices, in one process or in two: the same steps, shared out."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
PROGRAM = """
import dataclasses, json, pathlib, sys
import jax, numpy as np
from jax.sharding import Mesh
from marsjax.training import fit, loop, stored
from marsjax.training.state import StateFolder
from tests.training import test_loop as toy

folder = pathlib.Path(sys.argv[1])
days = [np.random.default_rng(0).integers(0, 5, (60, 15)).astype(np.int32)]
two = Mesh(np.array(jax.devices()), (loop.DATA,))
file = stored.opened(folder / "day.npy", stored.write(folder / "day.npy", days[0]))
files = stored.StreamedDays([file.until(20)], "files", together=2)
in_memory = toy.as_split(days)
streamed = dataclasses.replace(in_memory, training=files)
found = {}
for name, parts in (("one", [(in_memory, None, 0)]), ("two", [(in_memory, two, 0)]),
                    ("resumed", [(in_memory, two, 4), (in_memory, two, 0)]),
                    ("streamed", [(streamed, two, 4), (streamed, two, 0)]),
                    ("then_on_one", [(streamed, two, 4), (streamed, None, 0)]),
                    ("then_on_two", [(streamed, None, 4), (streamed, two, 0)])):
    for split, mesh, stop_at in parts:
        with StateFolder(folder / name, {}) as states:
            recipe = fit.Recipe(toy.TRAIN, fit.FitPlan(4, 0, stop_at), toy.squared, toy.KEY)
            saved, _ = fit.fit(recipe, toy.START, split, states, mesh)
    found[name] = {"weights": np.asarray(saved.best["scale"]).tolist(),
                   "losses": [row[key] for row in saved.curve for key in ("loss", "validation_loss")],
                   "devices": len(saved.progress.params["scale"].devices())}
try:
    odd = loop.TrainSpec(steps=1, batch=3, length=8)
    next(loop.run(odd, toy.squared, loop.begin(odd, toy.START), days, toy.KEY, mesh=two))
except ValueError as error:
    found["error"] = str(error)
print(json.dumps(found))
"""
OF_TWO = """
import json, pathlib, sys
import jax
if sys.argv[2] != "alone":
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(sys.argv[3], 2, int(sys.argv[2]))
import numpy as np
from jax.sharding import Mesh
from marsjax.training import loop, stored
from tests.training import test_loop as toy

folder = pathlib.Path(sys.argv[1])
days = [np.random.default_rng(i).integers(0, 5, (60, 15)).astype(np.int32) for i in range(3)]
places = [folder / f"{sys.argv[2]}_{i}.npy" for i in range(3)]
files = [stored.opened(path, stored.write(path, day)) for path, day in zip(places, days)]
read = []

class Watched(stored.StoredDay):
    def __getitem__(self, key):
        read.append(key)
        return super().__getitem__(key)

watched = stored.StreamedDays([Watched(day.path, day.offset, day.count, day.columns) for day in files], "", 3)
mesh = Mesh(np.array(jax.devices()), (loop.DATA,))
steps = loop.run(toy.TRAIN, toy.squared, loop.begin(toy.TRAIN, toy.START, mesh), watched, toy.KEY, 6, mesh)
losses = [loss for _, loss in steps]
print(json.dumps({"losses": losses, "read": len(read), "devices": len(jax.devices())}))
"""


def started(program: str, devices: int, *arguments: object) -> "subprocess.Popen[str]":
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT),
                   "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    return subprocess.Popen([sys.executable, "-c", program, *map(str, arguments)], env=environment, cwd=ROOT,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def told(process: "subprocess.Popen[str]") -> dict[str, object]:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    found: dict[str, object] = json.loads(out.splitlines()[-1])
    return found


def test_two_devices_learn_what_one_does(tmp_path: pathlib.Path) -> None:
    found = told(started(PROGRAM, 2, tmp_path))
    assert [found[name]["devices"] for name in ("one", "two", "then_on_one", "then_on_two")] == [1, 2, 1, 2]
    assert found["two"] == found["resumed"]
    for name in ("two", "streamed", "then_on_one", "then_on_two"):
        for key in ("weights", "losses"):
            assert found[name][key] == pytest.approx(found["one"][key], rel=1e-4, abs=1e-6)
    assert "multiple of accumulate=1 times the 2 devices, got 3" in found["error"]


@pytest.mark.slow
def test_two_processes_read_their_own_windows_and_learn_what_one_does(tmp_path: pathlib.Path) -> None:
    """As on two hosts: each sees one device."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    both = [started(OF_TWO, 1, tmp_path, number, address) for number in (0, 1)]
    try:
        first, second = (told(process) for process in both)
    finally:
        for process in both:
            process.kill()
    alone = told(started(OF_TWO, 1, tmp_path, "alone"))
    assert first == second and (first["devices"], alone["devices"]) == (2, 1)
    assert first["losses"] == pytest.approx(alone["losses"], rel=1e-5)
    assert (alone["read"], first["read"]) == (12 * 4, 12 * 2)
