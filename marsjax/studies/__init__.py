"""What a study is made of: starting states, futures of them, executions, evaluations, benchmarks.

Specs and plain values go in, arrays and tables come out; nothing here knows a config. A program in
`marsjax.experiments` turns a config into these specs, calls a study and writes files. The public names are modules,
each imported when it is first used.
Where futures start, and what writes them:
  `order_model`: an order model ready for rollouts.
  `adapted`: one that has learnt from the day so far of a market that it did not know.
  `starts`: orders of feeds and of the noise agent, and the states that they lead to.
  `made_days`: days that the order model writes, for others to start from.
  `session_times`: times of a session at which futures can start.
  `places`: times of days in their markets, by plain values.
Futures:
  `futures`, `rollout_summary`: rollouts of many starts, and what happened in them.
  `forecasts`, `forecast_evaluation`: one forecast; forecasts of many times of a day against what came.
  `executions`: the same markets with and without an execution.
  `control`: controlled futures beside those that are left alone; `scenario_text`: what is wanted of them, in words.
  `control_models`: what leads controlled futures, as a checkpoint holds it.
  `control_comparison`, `control_report`: the same with orders and an execution; as tables, a picture and text.
  `kept_traces`: orders, trades and books of some futures, kept while they are made.
  `realism`: orders of rollouts beside those of the real minutes.
  `lob_bench`: the same, or two feeds, with the books around the orders, for the statistics of LOB-Bench.
  `service`: next orders and whole futures as the service's calls.
  `detection`: a day's intervals ranked among futures of the same minutes.
  `manipulations`, `injected`, `manipulated_day`: cases of manipulation in futures; an agent, or such a case, in a day.
  `bars`, `noise_bars`: minute bars of days and rollouts, and of noise markets.
  `fleet`: forecasts, executions and realism of many states, as jobs on many machines.
Order models:
  `token_shards`: days of feeds prepared once, by `worker_processes`, as files that a training streams.
  `model_training`: one training from prepared days; `own_futures`: real states, and a model taught by its futures.
  `told_futures`, `ensemble_training`: futures with the order model's hidden states; an ensemble trained on them.
  `order_batch_data`, `order_batch_training`: minutes of days and of futures; an order-batch model trained on them.
  `context_length`: how predictions depend on the length of the context.
  `scaling`, `scaling_days`: models of several sizes trained on several amounts of orders, a model's own or real ones.
Agents that learn:
  `agent_markets`: one task in a replayed market, an order model's or the noise agent's; starts to train on and others.
  `agent_training`: agents of many seeds, trained by reinforcement.
  `agent_comparison`: a trained agent against executions by rule, in the same episodes; `maker_comparison`: a market
    maker against market making by rule.
Speed:
  `benchmark_book`, `benchmark_rollout`, `benchmark_parts`: books alone, complete rollouts, and the parts of a step.
What they share:
  `checks`, `progress`: checks of specs; a bar of progress, and who else watches.
  `self_test`: whether the exchange and the default model do here what they do elsewhere.
"""

import importlib
from types import ModuleType

__all__ = ["adapted", "agent_comparison", "agent_markets", "agent_training", "bars", "benchmark_book",
           "benchmark_parts", "benchmark_rollout", "checks", "context_length", "control", "control_comparison",
           "control_models", "control_report", "detection", "ensemble_training", "executions", "fleet",
           "forecast_evaluation", "forecasts", "futures", "injected", "kept_traces", "lob_bench", "made_days",
           "maker_comparison", "manipulated_day", "manipulations", "model_training", "noise_bars", "order_batch_data",
           "order_batch_training", "order_model", "own_futures", "places", "progress", "realism", "rollout_summary",
           "scaling", "scaling_days", "scenario_text", "self_test", "service", "session_times", "starts",
           "token_shards", "told_futures", "worker_processes"]


def __getattr__(name: str) -> ModuleType:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
