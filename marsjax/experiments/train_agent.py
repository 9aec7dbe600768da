"""Trains agents in a market and compares them with rules. The config: configs/train_agent.py."""

import pathlib
import time
from types import TracebackType
from typing import Any

import pandas as pd
from ml_collections import ConfigDict

from marsjax.analysis import agent_plots, agent_scores
from marsjax.core.errors import InputError
from marsjax.data import made_days
from marsjax.experiments import launcher, markets, run_folder, setup
from marsjax.experiments.run_folder import write_json
from marsjax.studies import agent_comparison, agent_markets, agent_training, maker_comparison, order_model
from marsjax.studies.agent_comparison import ComparisonSpec
from marsjax.studies.agent_markets import (
    ACCOUNT,
    BACKGROUNDS,
    AgentMarket,
    EpisodeSpec,
    EpisodeTimes,
    MarketMakingSpec,
    SlicedSpec,
    Spans,
)
from marsjax.studies.agent_training import AgentTraining, TrainedAgents
from marsjax.studies.maker_comparison import MakerComparisonSpec
from marsjax.studies.order_model import PreparedModel

MAKING = "market_making"
_EPISODES: dict[str, type[EpisodeTimes]] = {"execution": EpisodeSpec, "sliced": SlicedSpec, MAKING: MarketMakingSpec}
_Comparison = ComparisonSpec | MakerComparisonSpec


def main(config: ConfigDict) -> int:
    """Trains, compares and writes; returns 0."""
    began = time.perf_counter()
    (episode, training, comparison), names = checked(config)
    output, comparing = run_folder.of_config(config, f"train_agent_{config.task}"), _HeldBack()
    rows: list[dict[str, Any]] = []
    with output as folder:
        prepared = setup.load_order_model(config) if "model" in names else None
        if prepared:
            print(order_model.headline(prepared, config.model), flush=True)
        found = {name: _market(config, episode, prepared, name) for name in names}
        market = found[config.background]
        # What may be refused is, before hours of training.
        rules = {name: _rules(comparison, found[name]) for name in compared_in(config)}
        seconds = {"prepared": time.perf_counter() - began}
        starts = sum(part.background.start_count for each in found.values() for part in (each.train, each.held))
        print(f"{starts} starts made in {seconds['prepared']:.0f} s; the first steps wait for the compiler", flush=True)
        trained = agent_training.train(training, market.env, market.train, lambda line: print(line, flush=True))
        seconds["trained"] = time.perf_counter() - began
        _save(folder, config, trained)
        with comparing:
            for name, against in rules.items():
                rows += _compared(comparison, found[name], trained, against)
            seconds["total"] = time.perf_counter() - began
            _write(folder, config, rows, seconds, prepared)
    if comparing.error is not None:
        print(f"the comparison failed; the agents and their curves are in {output.path}")
        raise comparing.error
    print("\n".join((maker_comparison if config.task == MAKING else agent_scores).lines(rows)))
    print(f"{seconds['total']:.0f} s; {run_folder.told(output, 'comparison.png', config.picture)}")
    return 0


class _HeldBack:
    """Holds back what is raised in its block, until the folder is in place with what was written before."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        """What was raised, to be raised again after it."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
                 ) -> bool:
        self.error = error
        return True


def checked(config: ConfigDict) -> tuple[tuple[EpisodeTimes, AgentTraining, _Comparison], list[str]]:
    """The config as specs, and the backgrounds to make, that of the training first; InputError names a wrong key."""
    return specs(config), backgrounds(config)


def specs(config: ConfigDict) -> tuple[EpisodeTimes, AgentTraining, _Comparison]:
    """The config as specs; InputError names a key with a wrong value."""
    episode: EpisodeTimes = setup.spec_of(_EPISODES[config.task], config)
    ppo = agent_training.ppo_spec({name: config[name] for name in agent_training.PPO_KEYS})
    training = setup.spec_of(AgentTraining, config, ppo=ppo)
    if config.task == MAKING:
        return episode, training, setup.spec_of(MakerComparisonSpec, config, is_greedy=config.greedy)
    return episode, training, setup.spec_of(ComparisonSpec, config, is_greedy=config.greedy)


def _rules(comparison: _Comparison, market: AgentMarket) -> tuple[Any, ...]:
    """Those of executions, which learn from the market; market makers' have nothing to learn."""
    return agent_comparison.rules(comparison, market) if isinstance(comparison, ComparisonSpec) else ()


def _compared(comparison: _Comparison, market: AgentMarket, trained: TrainedAgents, against: tuple[Any, ...]
              ) -> list[dict[str, Any]]:
    if isinstance(comparison, MakerComparisonSpec):
        return maker_comparison.rows(comparison, market, trained.policies)
    return agent_scores.rows(agent_comparison.compared(comparison, market, trained.policies, against),
                             comparison.bootstrap, comparison.seed)


def backgrounds(config: ConfigDict) -> list[str]:
    """Those to make, that of the training first; InputError for one that the source does not have."""
    known = ("noise",) if config.source == markets.NOISE else ("replay", "model")
    for key, name in [("background", config.background), *(("compare", name) for name in compared_in(config))]:
        if name not in BACKGROUNDS or name not in known:
            raise InputError(f"config.{key}: expected {' or '.join(known)} with source={config.source}, got {name!r}")
    return list(dict.fromkeys([config.background, *compared_in(config)]))


def compared_in(config: ConfigDict) -> list[str]:
    """The backgrounds to compare in; InputError where there is none."""
    if not config.compare:
        raise InputError("config.compare: expected a background at least, got none; leave it at ('',) for that of the "
                         "training")
    return [config.background] if config.compare == ("",) else list(dict.fromkeys(config.compare))


def _market(config: ConfigDict, episode: EpisodeTimes, prepared: PreparedModel | None, name: str) -> AgentMarket:
    if name == "noise":
        return agent_markets.noisy(episode, markets.noise_spec(config, ACCOUNT), setup.noise_market(config))
    if config.source in made_days.NAMES:
        made = markets.made_day(config, config.source)
        feeds, until_ns = [made.feed], made.start_ns
    else:
        feeds, until_ns = markets.open_feeds(config, or_else=(markets.NOISE, *made_days.NAMES)), 0
    market = markets.one_market(config, feeds, ACCOUNT + 1)
    spans = [_spans(config, agent_markets.spans_of(feed, config.train_share), until_ns) for feed in feeds]
    if prepared and name == "model":
        return agent_markets.modelled(episode, market, prepared, feeds, spans)
    return agent_markets.replayed(episode, market, feeds, spans)


def _spans(config: ConfigDict, own: Spans, until_ns: int) -> Spans:
    """Those of a feed, but for what the config sets; `until_ns` of 0: the end of its trading."""
    begin_ns = setup.time_ns(config, "train_from") if config.train_from else own.begin_ns
    end_ns = setup.time_ns(config, "until") if config.until else until_ns or own.until_ns
    held_ns = begin_ns + round((end_ns - begin_ns) * config.train_share)
    return Spans(begin_ns, setup.time_ns(config, "held_from") if config.held_from else held_ns, end_ns)


def _save(folder: pathlib.Path, config: ConfigDict, trained: TrainedAgents) -> None:
    """The agents and their curves, as soon as they are there: nothing that fails later takes them."""
    agent_training.save(folder, trained, {"task": config.task, "background": config.background,
                                          "config": config.to_dict()})
    trained.table().to_csv(folder / "curves.csv", index=False)
    if config.picture:
        steps = trained.spec.envs * trained.spec.length
        agent_plots.curves(trained.curves, steps, _title(config)).savefig(folder / "curves.png", dpi=110)


def _write(folder: pathlib.Path, config: ConfigDict, rows: list[dict[str, Any]], seconds: dict[str, float],
           prepared: PreparedModel | None) -> None:
    """The comparison as a table and a figure, and the results."""
    pd.DataFrame(rows).to_csv(folder / "comparison.csv", index=False)
    if config.picture:
        measures = (agent_plots.MAKER_MEASURES,) if config.task == MAKING else ()
        found = agent_plots.comparison(rows, f"{_title(config)}: held-out starts", *measures)
        found.savefig(folder / "comparison.png", dpi=110)
    write_json(folder / "results.json", {"comparison": rows, "seconds": seconds, **setup.about(config, prepared)})


def _title(config: ConfigDict) -> str:
    return f"{config.task} in the market {config.background} of {config.source}"


if __name__ == "__main__":
    launcher.run("train_agent", main)
