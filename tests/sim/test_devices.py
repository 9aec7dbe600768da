"""Rollouts on several devices: the same trajectories as on one, and nothing that a device asks of another."""

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest

from marsjax.core.errors import InputError
from marsjax.sim.devices import Devices

ROOT = pathlib.Path(__file__).parent.parent.parent
PROGRAM = """
import hashlib, json, pathlib, re, sys
import jax, numpy as np
import marsjax
from marsjax import RolloutSpec, Simulator, testing
from marsjax.agents import Twap
from marsjax.core.specs import CacheSpec
from marsjax.observers.trace import TraceObserver
from marsjax.sim import rollout
from marsjax.sim.rollout import Hooks
from marsjax.sim.resume import Saving
from tests import quick_compilation

quick_compilation.switch(True)
model, market = testing.tiny_model(), testing.tiny_market()
start = testing.random_start(market, model)
twap = Twap(target=1_000, start_ns=0, total_seconds=45)
plain = Simulator.of(model, market)
cache = CacheSpec("refresh", refresh_every=12, margin=4, prefix="shared")
shared = Simulator.of(model, market, cache=cache)
with_agent = Simulator.of(model, market, agents=[twap], observers=[TraceObserver(market)])


def digest(*trees):
    return hashlib.sha256(b"".join(np.asarray(x).tobytes() for x in jax.tree.leaves(trees))).hexdigest()


def result(run):
    state = run.state
    return digest(run.bars, run.status, state.market, state.token_state, state.time, state.step, state.end)


def rolled(simulator, hooks=rollout.NO_HOOKS, start=start, **options):
    return marsjax.rollout(simulator, start, RolloutSpec(minutes=1, seed=3, chunk_steps=16, **options), hooks=hooks)


found = {}
most, is_quick = len(jax.devices()), len(jax.devices()) == 2
starts = jax.tree.map(lambda x: np.stack([x] * 16), start)
for devices in sorted({1, 2, most}):
    table = rolled(with_agent, trajectories=11, slots=8, devices=devices)
    found[devices] = [result(table), digest(table.orders().to_csv().encode()), table.agents]
    if not is_quick:
        whole = rolled(plain, trajectories=16, devices=devices)
        found[devices] += [
            result(whole), result(rolled(plain, trajectories=16, slots=8, devices=devices)),
            result(rolled(plain, start=starts, trajectories=16, devices=devices)),
            result(rolled(shared, trajectories=11, slots=8, devices=devices)),
            result(rolled(plain, trajectories=11, devices=devices).part(np.arange(11)))]
        print(len(whole.state.time.s.devices()), file=sys.stderr)


class Stop(Exception):
    pass


def stop(progress):
    if progress.steps >= 32:
        raise Stop


other = jax.devices()[1]
with jax.default_device(other):
    found["default"] = [list(x.devices()) == [other] for x in jax.tree.leaves(rolled(plain, trajectories=2).state)]
put = jax.device_put(plain, other)
found["put"] = [list(x.devices()) == [other] for x in jax.tree.leaves(rolled(put, trajectories=2).state)]
compiled = []
lower = rollout._chunk.lower
rollout._chunk = type("Kept", (), {"__call__": None, "lower": lambda self, *given: kept(lower(*given))})()


def kept(lowered):
    compile = lowered.compile
    lowered = type("Lowered", (), {
        "compile": lambda self, *given: compiled.append(compile(*given)) or compiled[-1]})()
    return lowered


rolled(with_agent, trajectories=16, devices=most)
text = compiled[0].as_text()
found["collectives"] = sorted(set(re.findall(
    r"(all-reduce|all-gather|all-to-all|collective-[a-z]+|reduce-scatter|partition-id|send|recv)[-\\w]*\\(", text)))
found["partitions"] = re.findall(r"num_partitions=(\\d+)", text)[:1]
if not is_quick:
    folder = sys.argv[1]
    try:
        rolled(plain, Hooks(stop, saving=Saving(folder, every_s=0)), trajectories=16, devices=8)
    except Stop:
        pass
    found["saved"] = [path.name for path in pathlib.Path(folder).iterdir() if path.name.isdigit()]
    found["resumed"] = result(rolled(plain, Hooks(saving=Saving(folder, every_s=0)), trajectories=16, devices=2))
    try:
        rolled(plain, Hooks(saving=Saving(folder + "_odd")), trajectories=11, devices=2)
    except ValueError as error:
        found["odd"] = str(error)
print(json.dumps(found))
"""


def told(folder: pathlib.Path, devices: int) -> dict[str, Any]:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT),
                   "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    ran = subprocess.run([sys.executable, "-c", PROGRAM, str(folder / "state")], env=environment, cwd=ROOT,
                         capture_output=True, text=True, timeout=600, check=False)
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return {**found, "used": [int(line) for line in ran.stderr.splitlines() if line.isdigit()]}


@pytest.mark.slow
def test_two_devices_make_what_one_does_and_ask_nothing_of_each_other(tmp_path: pathlib.Path) -> None:
    """In turns, so many that a device has empty places at the end, with an agent and a trace."""
    found = told(tmp_path, 2)
    assert found["2"] == found["1"]
    assert (found["partitions"], found["collectives"]) == (["2"], [])
    assert all(found["default"]) and all(found["put"]), "one device is the one that JAX or the arguments name"


@pytest.mark.slow
def test_eight_devices_make_what_one_does(tmp_path: pathlib.Path) -> None:
    """All at once, in turns, each from its own start, with a prefix read once, with empty places.

    A run is taken up on another number of devices.
    """
    found = told(tmp_path, 8)
    assert found["used"] == [1, 2, 8]
    assert found["2"] == found["1"]
    assert found["8"] == found["1"]
    _, _, _, at_once, in_turns, own_starts, *_ = found["1"]
    assert at_once == in_turns == own_starts
    assert (found["partitions"], found["collectives"]) == (["8"], [])
    assert found["saved"]
    assert found["resumed"] == at_once
    assert "as many on each device, got 12 slots on 2" in found["odd"]


def test_more_devices_than_there_are() -> None:
    with pytest.raises(InputError, match=r"devices: expected 0 \(all\) to \d+, got 4096"):
        Devices.of(4096)
