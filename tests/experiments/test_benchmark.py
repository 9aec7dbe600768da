"""The benchmark of rollouts, tiny, as its user runs it; what it says of sizes is what they are."""

import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from marsjax import model
from marsjax.experiments import benchmark, benchmark_parts, benchmark_rollout
from marsjax.experiments import config as configs
from marsjax.simulate import SimulationSpec
from marsjax.specs import CacheSpec, ComputeSpec, MarketSpec, ModelSpec

CONFIG = pathlib.Path(__file__).parent.parent.parent / "configs" / "benchmark.py"


def run(folder: pathlib.Path, **changes: object) -> list[dict[str, Any]]:
    config = configs.load(CONFIG, f"rollout,output={folder / 'out'}")
    tiny = {"repeats": 2, "chunks": 1, "chunk_steps": 2, "max_orders": 64, "minutes": 5, "bandwidth_gb_per_s": 50}
    for key, value in (tiny | changes).items():
        config[key] = value
    assert benchmark.main(config) == 0
    return json.loads((folder / "out" / "results.json").read_text())["rows"]


@pytest.mark.slow
def test_rollouts_and_their_parts_are_timed(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    row, = run(tmp_path, cases=("1x32:3",))
    assert row["trajectories"] == 3 and row["us_per_step"] > 0 and row["first_step_s"] > 0
    assert row["orders_per_s"] == pytest.approx(3e6 / row["us_per_step"])
    times = row["us_of_parts"]
    assert set(times) == {"append", "predict", "head+draw", "exchange", "tokens", "rest"}
    assert sum(times.values()) == pytest.approx(row["us_per_step"])
    assert row["of_bandwidth"] == pytest.approx(sum(row["bytes_per_step"].values()) / row["us_per_step"] * 1e-3 / 50)
    assert "1x32" in capsys.readouterr().out


def test_bytes_are_those_of_the_arrays() -> None:
    spec = ModelSpec(width=64, layers=3, heads=2)
    cache = CacheSpec(compute=ComputeSpec(dtype="bfloat16"))
    params = jax.eval_shape(lambda: model.init(spec, jax.random.key(0), "bfloat16"))
    params = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), params)
    moved = benchmark_parts.bytes_moved(params, SimulationSpec(MarketSpec(), spec, cache, end_ns=1), 5)
    assert moved["weights"] == 2 * (3 * 16 * 64**2 + 2 * 3 * 64 + 64)
    assert moved["head"] == 2 * 64 * 49_152
    assert moved["cache_read"] == 2 * 2 * 5 * 3 * 64 * 1024 == 1024 * moved["cache_write"]


@pytest.mark.parametrize(("changes", "says"), [
    ({"cases": ("10m:4",)}, "config.cases: expected MODEL:TRAJECTORIES, as 2m:128 or 24x1024:128, got '10m:4'"),
    ({"cases": ("2m:0",)}, "got '2m:0'"), ({"chunks": 0}, "config.chunks: expected at least 1, got 0")])
def test_bad_configs_name_the_key_and_the_value(tmp_path: pathlib.Path, changes: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        run(tmp_path, **changes)


def test_bandwidth_is_known_by_the_device() -> None:
    assert benchmark_rollout.bandwidth("NVIDIA H100 80GB HBM3") == 3350
    assert benchmark_rollout.bandwidth("NVIDIA H200") == 4800
    assert benchmark_rollout.bandwidth("cpu") is None
