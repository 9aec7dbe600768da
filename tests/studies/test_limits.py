"""Numbers that no run could come to an end with are refused at the door, by name and with the limit."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax import testing
from marsjax.agents.noise import NoiseSpec
from marsjax.analysis import verdicts
from marsjax.core.errors import InputError
from marsjax.core.specs import MarketSpec
from marsjax.sim import initial
from marsjax.sim.initial import Warmup
from marsjax.sim.initial.given_orders import PassSpec
from marsjax.sim.specs import RolloutSpec
from marsjax.studies import benchmark_rollout, starts
from marsjax.studies.benchmark_rollout import RolloutBenchmark
from marsjax.studies.executions import ExecutionSpec, StrategySpec
from marsjax.studies.forecast_evaluation import EvaluationSpec, LabelSpec
from marsjax.studies.futures import FuturesSpec
from marsjax.studies.order_model import DecodingSpec
from marsjax.studies.starts import NoiseMarket
from marsjax.training.loop import TrainSpec

HUGE, NAN, INF, TINY = 10**9, float("nan"), float("inf"), 1e-310
MARKET, FUTURES = MarketSpec(), FuturesSpec(4, 5)


def noise(seed: int = 0, trajectories: int = 1, **agent: Any) -> Any:
    return initial.noise(MARKET, NoiseSpec(**agent), Warmup(), seed, trajectories)


@pytest.mark.parametrize(("make", "expected"), [
    (lambda: RolloutSpec(HUGE, 5), r"RolloutSpec\.trajectories: expected a whole number of 1 to 1048576, got 10"),
    (lambda: RolloutSpec(4, HUGE), r"RolloutSpec\.minutes: expected a whole number of 1 to 1440, got"),
    (lambda: RolloutSpec(4, 5, chunk_steps=HUGE), r"RolloutSpec\.chunk_steps: expected a whole number of 0 to 65536"),
    (lambda: RolloutSpec(4, 5, trace_room=HUGE), r"RolloutSpec\.trace_room: expected a whole number of 1 to"),
    (lambda: RolloutSpec(4, NAN), r"RolloutSpec\.minutes: expected a whole number"),  # type: ignore[arg-type]
    (lambda: FuturesSpec(HUGE, 5), r"FuturesSpec\.trajectories: expected at most 1048576, got 1000000000"),
    (lambda: FuturesSpec(4, HUGE), r"FuturesSpec\.minutes: expected at most 1440"),
    (lambda: FuturesSpec(4, 5, chunk_steps=HUGE), r"FuturesSpec\.chunk_steps: expected at most 65536"),
    (lambda: FuturesSpec(4, 5, rollout_capacity=HUGE), r"FuturesSpec\.rollout_capacity: expected at most 32768"),
    (lambda: FuturesSpec(4, 5, seed=-1), r"FuturesSpec\.seed: expected 0 to 2147483647, got -1"),
    (lambda: FuturesSpec(4, 5, temperature=NAN), r"FuturesSpec\.temperature: expected a number above 0, got nan"),
    (lambda: FuturesSpec(4, 5, temperature=INF), r"FuturesSpec\.temperature: expected a number above 0, got inf"),
    (lambda: FuturesSpec(4, 5, temperature=TINY), r"FuturesSpec\.temperature: expected 1e-06 to 1e\+06, got 1e-310"),
    (lambda: DecodingSpec(rows=HUGE), r"DecodingSpec\.rows: expected at most"),
    (lambda: DecodingSpec(cache_dtype="int4"), r"DecodingSpec\.cache_dtype: expected model or int8"),
    (lambda: DecodingSpec(prefix="both"), r"DecodingSpec\.prefix: expected auto or own or shared with"),
    (lambda: DecodingSpec(prefix="shared", context="rolling"), r"DecodingSpec\.prefix: expected auto or own with"),
    (lambda: DecodingSpec(cache_dtype="int8", context="recompute"), r"DecodingSpec\.cache_dtype: expected model or"),
    (lambda: PassSpec(MARKET, chunk_orders=HUGE), r"chunk_orders of at most 1048576, got"),
    (lambda: LabelSpec(5, fit_every_s=HUGE), r"LabelSpec\.fit_every_s: expected at most"),
    (lambda: EvaluationSpec(5, every_minutes=HUGE), r"EvaluationSpec\.every_minutes: expected at most"),
    (lambda: ExecutionSpec(StrategySpec("twap"), FUTURES, HUGE), r"ExecutionSpec\.seeds: expected at most"),
    (lambda: RolloutBenchmark(chunk_steps=HUGE), r"RolloutBenchmark\.chunk_steps: expected at most"),
    (lambda: benchmark_rollout.case(f"2m:{HUGE}", 64, "cpu"), "trajectories of 2m:1000000000: expected at most"),
    (lambda: TrainSpec(peak_rate=NAN), r"TrainSpec\.peak_rate: expected a positive number, got nan"),
    (lambda: NoiseSpec(init_price=1), r"NoiseSpec\.init_price: expected 501 to .*, got 1"),
    (lambda: NoiseSpec(init_price=2**31), r"NoiseSpec\.init_price: expected 501 to .*, got 2147483648"),
    (lambda: NoiseMarket(seed=-1), r"NoiseMarket\.seed: expected seed of 0 to 2147483647, got -1"),
    *((lambda x=x: starts.noise_agent(100_000, x), r"NoiseSpec\.interval_ns: expected") for x in (NAN, INF, TINY)),
    (lambda: noise(interval_ns=2), r"NoiseSpec\.interval_ns: expected at most 10000000 wake-ups in 1800 s"),
    (lambda: noise(init_price=100_001), r"NoiseSpec\.init_price: expected a multiple of MarketSpec\.tick"),
    (lambda: noise(seed=-1), "noise start: expected seed of 0 to"),
    (lambda: noise(trajectories=HUGE), "noise start: expected trajectories of 1 to 1048576"),
    (lambda: Warmup(duration_ns=HUGE * 60 * 10**9), "Warmup: expected an end by midnight"),
    (lambda: Warmup(steps_per_call=HUGE), r"Warmup\.steps_per_call: expected at most 65536"),
])
def test_a_number_beyond_its_limit_is_refused_by_name(make: Callable[[], Any], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        make()


def test_resamples_and_seeds_of_verdicts() -> None:
    ones = np.ones((1, 4))
    panel = verdicts.Panel(*(np.zeros(1, kind) for kind in ("U1", "U1", int, "M8[m]")), ones, ones)
    for options, expected in (({"resamples": HUGE}, "resamples: expected at most 100000"),
                              ({"seed": -1}, "expected at least 0")):
        with pytest.raises(InputError, match=expected):
            verdicts.judge(panel, **options)


def test_a_model_whose_weights_are_no_numbers_draws_no_token() -> None:
    whole = testing.tiny_model()
    broken = dataclasses.replace(whole, model=whole.model.replace(
        {"norm": jnp.asarray(whole.model.norm.weight[...]).at[0].set(jnp.nan)}))
    features = np.zeros((2, 3, 15), np.int32)
    assert whole.top(features).shape == whole.sample(jax.random.key(0), features).shape == (2,)
    for draw in (broken.top, lambda x: broken.sample(jax.random.key(0), x)):
        with pytest.raises(InputError, match=r"logits of row 0: expected finite numbers.*not finite: weights\.norm"):
            draw(features)
