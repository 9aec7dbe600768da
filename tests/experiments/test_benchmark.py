"""The benchmark of rollouts, tiny, as its user runs it; what it says of sizes is what they are."""

import dataclasses
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax.core import kernels, times
from marsjax.core.specs import CacheSpec, ComputeSpec, MarketSpec, ModelSpec
from marsjax.core.times import SECOND_NS
from marsjax.experiments import benchmark
from marsjax.experiments import config as configs
from marsjax.model import kv_cache, llama
from marsjax.sim import initial
from marsjax.sim.simulator import Simulator
from marsjax.sim.specs import SimulationSpec
from marsjax.studies import benchmark_parts, benchmark_rollout
from tests.helpers import fixture_folder, read_orders

CONFIG = pathlib.Path(__file__).parent.parent.parent / "configs" / "benchmark.py"


def run(folder: pathlib.Path, **changes: object) -> list[dict[str, Any]]:
    config = configs.load(CONFIG, f"rollout,output={folder / 'out'}")
    tiny = {"repeats": 2, "chunks": 1, "chunk_steps": 2, "context_length": 64, "minutes": 5, "bandwidth_gb_per_s": 50}
    for key, value in (tiny | changes).items():
        config[key] = value
    assert benchmark.main(config) == 0
    return json.loads((folder / "out" / "results.json").read_text())["rows"]


@pytest.mark.slow
def test_rollouts_and_their_parts_are_timed(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str],
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    # Noise that need not be compiled first.
    noise = jax.tree.map(lambda x: x[:280], read_orders(fixture_folder() / "book_noise_orders.csv.gz"))
    times_ns = 34_200 * SECOND_NS + np.random.default_rng(0).integers(5 * 10**8, 15 * 10**8, 280).cumsum()
    noise = dataclasses.replace(noise, account=np.zeros_like(noise.account), time=times.from_ns(times_ns))
    monkeypatch.setattr(initial, "noise", lambda *_: (None, [noise]))
    row, = run(tmp_path, cases=("2m:3",))
    assert row["trajectories"] == 3 and row["us_per_step"] > 0 and row["first_step_s"] > 0
    assert row["orders_per_s"] == pytest.approx(3e6 / row["us_per_step"])
    parts = row["us_of_parts"]
    assert set(parts) == {"append", "predict", "head+draw", "exchange", "tokens", "rest"}
    assert sum(parts.values()) == pytest.approx(row["us_per_step"])
    assert row["of_bandwidth"] == pytest.approx(sum(row["bytes_per_step"].values()) / row["us_per_step"] * 1e-3 / 50)
    assert "2m" in capsys.readouterr().out


def test_a_case_that_is_ended_leaves_those_before_it(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On disk while the third is measured, and after it failed."""
    made: list[int] = []

    def measure(self: object, case: benchmark_rollout.Case) -> dict[str, Any]:
        if len(made) == 2:
            assert found() == made
            raise MemoryError("no room")
        made.append(case.trajectories)
        return {"model": case.name, "trajectories": case.trajectories, "orders_per_s": 1.0, "us_per_step": 1.0,
                "gb_per_s": 1.0, "of_bandwidth": None, "first_step_s": 0.0, "peak_gb": None}

    def found() -> list[int]:
        rows = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
        return [row["trajectories"] for row in rows]

    monkeypatch.setattr(benchmark_rollout.Benchmark, "__init__", lambda *_: None)
    monkeypatch.setattr(benchmark_rollout.Benchmark, "measure", measure)
    with pytest.raises(MemoryError, match="no room"):
        run(tmp_path, cases=("2m:3", "2m:5", "2m:9"))
    assert found() == [3, 5]


def test_the_parts_of_a_deep_model_keep_the_types_of_its_state() -> None:
    """Traced alone: what is timed of it is compiled as that of a model of one layer is."""
    case = benchmark_rollout.case("2x32:3", 1024, "cpu")
    model = jax.eval_shape(lambda: llama.init(case.model, jax.random.key(0), case.compute.dtype, case.compute))
    simulator = Simulator(model, None, None, SimulationSpec(MarketSpec(), case.cache, end_ns=1))
    state = jax.eval_shape(lambda m: kv_cache.empty(m, case.cache, 3), model)
    after = jax.eval_shape(lambda m, s: benchmark_parts._append(m, s, jnp.int32(0)), simulator, state)
    hidden = jax.eval_shape(lambda m, s: kv_cache.predict(m, case.cache, s), model, after)
    drawn, _ = jax.eval_shape(lambda m, h: benchmark_parts._draw(m, (h, jnp.arange(3)), jnp.int32(0)), simulator,
                              hidden)
    assert case.cache.mode == "refresh" and after == state and drawn == hidden
    assert (hidden.shape, str(hidden.dtype)) == ((3, 32), "bfloat16")


def test_bytes_are_those_of_the_arrays() -> None:
    spec = ModelSpec(embed_dim=64, layers=3, heads=2)
    half = ComputeSpec(dtype="bfloat16")
    params = jax.eval_shape(lambda: llama.init(spec, jax.random.key(0), "bfloat16", half))
    params = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), params)
    simulation = SimulationSpec(MarketSpec(), CacheSpec(), end_ns=1)
    moved = benchmark_parts.bytes_moved(Simulator(params, None, None, simulation), 5)
    assert moved["weights"] == 2 * (3 * 16 * 64**2 + 2 * 3 * 64 + 64)
    assert moved["head"] == 2 * 64 * 49_152
    assert moved["cache_read"] == 2 * 2 * 5 * 3 * 64 * 1024 == 1024 * moved["cache_write"]
    by_kernel = CacheSpec(kernels=kernels.GPU, cache_dtype="int8")
    simulation = SimulationSpec(MarketSpec(), by_kernel, end_ns=1)
    moved = benchmark_parts.bytes_moved(Simulator(params, None, None, simulation), 5)
    filled = np.mean(np.arange(by_kernel.kept(spec) + 1, by_kernel.kept(spec) + by_kernel.refresh_every + 1))
    assert moved["cache_read"] == 2 * 5 * 3 * (64 + 2 * 4) * filled == filled * moved["cache_write"]
    assert moved["prefix_read"] == 0
    simulation = SimulationSpec(MarketSpec(), dataclasses.replace(by_kernel, prefix="shared"), end_ns=1)
    moved = benchmark_parts.bytes_moved(Simulator(params, None, None, simulation), 5)
    assert moved["cache_read"] == (filled - 512) * moved["cache_write"] and moved["prefix_read"] == 2 * 3 * 512 * 64 * 2


def test_a_case_takes_another_attention_and_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "has_triton", lambda: True)
    monkeypatch.setattr(kernels, "has_cudnn", lambda: False)
    monkeypatch.setattr(kernels, "has_graphs", lambda: False)
    case = benchmark_rollout.case("2x32:3", 1024, "gpu")
    assert case.cache.kernels == kernels.GPU and benchmark_rollout.taken(case, {"head": ""}, "model", "own") == case
    shared = benchmark_rollout.taken(case, {}, "model", "shared").cache
    assert shared == dataclasses.replace(case.cache, prefix="shared")
    found = [benchmark_rollout.taken(benchmark_rollout.case(f"{name}:3", 1024, "gpu"), {}, "model").cache.prefix
             for name in ("2m", "2x32", "2x256")]
    assert found == ["own", "own", "shared"]
    other = benchmark_rollout.taken(case, {"attention": "sums", "head": "xla"}, "int8").cache
    assert other.kernels == dataclasses.replace(kernels.ACCELERATOR, book="kernel") and other.cache_dtype == "int8"
    assert dataclasses.replace(other, kernels=kernels.GPU, cache_dtype="model") == case.cache


@pytest.mark.parametrize(("changes", "says"), [
    ({"cases": ("10m:4",)}, "config.cases: expected MODEL:TRAJECTORIES, as 2m:128 or 24x1024:128, got '10m:4'"),
    ({"cases": ()}, "config.cases: expected at least one MODEL:TRAJECTORIES, got"),
    ({"cases": ("2m:0",)}, "got '2m:0'"), ({"attention": "fast"}, "Kernels.attention: expected columns or sums or"),
    ({"head": "kernel"}, "config.attention, config.head, config.encode, config.loops, config.cache_dtype, "
                         "config.prefix: expected another way than kernel"),
    ({"loops": "gpu"}, "Kernels.loops: expected host or"), ({"encode": "cudnn"}, "expected another way than cudnn"),
    ({"cache_dtype": "int4"}, "CacheSpec.cache_dtype: expected model or int8, got 'int4'"),
    ({"prefix": "shared"}, "CacheSpec.prefix: expected own where mode is rolling, got 'shared'"),
    ({"chunks": 0}, "config.chunks: expected at least 1, got 0")])
def test_bad_configs_name_the_key_and_the_value(tmp_path: pathlib.Path, changes: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        run(tmp_path, **changes)


def test_bandwidth_is_known_by_the_device() -> None:
    assert benchmark_rollout.bandwidth("NVIDIA H100 80GB HBM3") == 3350
    assert benchmark_rollout.bandwidth("NVIDIA H200") == 4800
    assert benchmark_rollout.bandwidth("cpu") is None
