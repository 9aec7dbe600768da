"""An agent trained small, or one of a folder, beside rules: from what a page asks for to pictures and files."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from marsjax.analysis import agent_plots, agent_scores
from marsjax.checkpoint import load
from marsjax.core.errors import InputError
from marsjax.core.json_text import json_text_of
from marsjax.core.specs import MarketSpec
from marsjax.core.times import SECOND_NS
from marsjax.experiments.pages.files import archive, csv, pngs
from marsjax.experiments.pages.jobs import Job
from marsjax.experiments.pages.workshop import Workshop
from marsjax.sim.initial import Warmup
from marsjax.studies import agent_comparison, agent_markets, agent_training, maker_comparison, places
from marsjax.studies.agent_comparison import ComparisonSpec
from marsjax.studies.agent_markets import AgentMarket, EpisodeSpec, MarketMakingSpec
from marsjax.studies.agent_training import AgentTraining
from marsjax.studies.maker_comparison import MakerComparisonSpec
from marsjax.studies.progress import StoppedError
from marsjax.studies.starts import NoiseMarket

NOISE, MADE, REAL = "noise agents", "replay of a day of the model", "replay of a real day"
"""The market around the learner."""
_MODEL = "the order model"
"""Another one, which the page does not have."""
EXECUTION, MAKING = "execution", "market_making"
SHARE = 0.65
"""Of a day, whose starts are trained on; the others are held out."""
_MARKET = MarketSpec(capacity=256, trade_width=16, accounts=2)
_WARMUP = Warmup(duration_ns=180 * SECOND_NS)
_TRADE_WIDTH = 16
_TRAINED = 0.8
"""Share of the work that is done once the agents are trained."""
_COLUMNS = {EXECUTION: {"arrival_bp": "Against the start, bp", "vwap_bp": "Against others, bp", "filled": "Done, %"},
            MAKING: {"reward": "Reward", "profit": "Profit, ticks x shares", "traded": "Traded, shares",
                     "held": "Held, shares"}}
_SCALES, _DIGITS = {"filled": 100.0}, {"reward": 3, "arrival_bp": 2, "vwap_bp": 2}
_COUNTS = ("starts", "held_starts")
"""Fields of an episode that say how many there are, not what they are."""
_CURVES = ("reward", "entropy", "explained")


@dataclasses.dataclass(frozen=True)
class LearningAsk:
    """What a page asks for; the fields' own errors name what cannot be."""

    device: str
    background: str
    """NOISE, MADE or REAL."""
    day: str
    """Name of a day to replay."""
    episode: EpisodeSpec | MarketMakingSpec
    comparison: ComparisonSpec | MakerComparisonSpec
    training: AgentTraining | None
    """None: the agent of `folder`."""
    folder: str = ""

    def __post_init__(self) -> None:
        if self.training is None and not self.folder:
            raise InputError("LearningAsk.folder: expected the folder of an agent, got none; train one with `marsjax "
                             "train_agent`, or here")

    @property
    def task(self) -> str:
        """EXECUTION or MAKING."""
        return EXECUTION if isinstance(self.episode, EpisodeSpec) else MAKING


class LearningCurves(NamedTuple):
    """How a training went so far."""

    curves: dict[str, np.ndarray]
    """float [S, U] each, as of `TrainedAgents`."""
    steps: int
    """Of the environment, in an update."""
    title: str

    def figure(self) -> Figure:
        """Reward, entropy, explained variance."""
        return agent_plots.curves(self.curves, self.steps, self.title)


class LearningResult(NamedTuple):
    """What a page shows, and gives away."""

    summary: str
    notes: list[str]
    table: pd.DataFrame
    """A row a contender and a difference, in words."""
    pictures: dict[str, bytes]
    """PNG: curves, where they are known, and comparison."""
    files: dict[str, bytes]


class _Agents(NamedTuple):
    """Agents to compare, and how they came about."""

    policies: Sequence[Any]
    """Of each seed."""
    curves: LearningCurves | None
    files: dict[str, bytes]
    notes: list[str]
    said: str


def run(shop: Workshop, ask: LearningAsk, job: Job[LearningResult]) -> LearningResult:
    """The agents and their comparison; StoppedError where it was stopped, InputError, OSError."""
    with jax.default_device(shop.devices[ask.device]):
        found = None if ask.training else _loaded(ask)
        job.say("making the market, which the first one of such sizes compiles for")
        market = _market(shop, ask)
        spec = ask.comparison
        # What the rules refuse is refused before a training.
        rules = agent_comparison.rules(spec, market) if isinstance(spec, ComparisonSpec) else ()
        found = found or _trained(shop, ask, market, job)
        job.say("comparing in episodes that were held out", _TRAINED)
        if isinstance(spec, MakerComparisonSpec):
            rows = maker_comparison.rows(spec, market, found.policies)
        else:
            rows = agent_scores.rows(agent_comparison.compared(spec, market, found.policies, rules), spec.bootstrap,
                                     spec.seed)
        job.say("drawing", 1.0)
        return _result(shop, ask, found, rows)


def _market(shop: Workshop, ask: LearningAsk) -> AgentMarket:
    if ask.background == NOISE:
        return agent_markets.noisy(ask.episode, _MARKET, NoiseMarket(warmup=_WARMUP))
    between_ns = None
    if ask.background == MADE:
        made = places.made_day(load.DEFAULT, ask.day)
        feed, between_ns = made.feed, (made.feed.venue.session.periods[0].start_ns, made.start_ns)
    else:
        days = shop.days()
        if ask.day not in days:
            raise InputError(f"day: expected one of {', '.join(list(days)[:20]) or 'none'}, got {ask.day!r}")
        feed = days[ask.day]
    market = feed.venue.market(accounts=max(feed.venue.accounts, agent_markets.ACCOUNT + 1),
                               trade_width=min(_TRADE_WIDTH, feed.venue.capacity))
    return agent_markets.replayed(ask.episode, market, [feed], [agent_markets.spans_of(feed, SHARE, between_ns)])


def _trained(shop: Workshop, ask: LearningAsk, market: AgentMarket, job: Job[LearningResult]) -> _Agents:
    training = ask.training
    if training is None:
        raise ValueError("_trained: expected a request that says how to train")
    steps, title = training.ppo.envs * training.ppo.length, _title(ask)

    def look(curves: dict[str, np.ndarray]) -> None:
        job.latest = LearningCurves(curves, steps, title)
        job.share = _TRAINED * curves["reward"].shape[1] / training.ppo.updates

    job.say("compiling the training, which the first one of such sizes waits for")
    try:
        trained = agent_training.train(training, market.env, market.train, lambda line: job.say(line, job.share), look)
    except StoppedError as error:
        raise StoppedError("Stopped before the training was over: there is no agent yet.") from error
    with TemporaryDirectory() as folder:
        agent_training.save(Path(folder), trained, _about(shop, ask))
        files = {"agents.zip": archive(Path(folder)), "curves.csv": csv(trained.table())}
    return _Agents(trained.policies, LearningCurves(trained.curves, steps, title), files, [],
                   f"{training.seeds} agent{'s' if training.seeds > 1 else ''}, {training.ppo.updates * steps:,} steps"
                   f"{' each' if training.seeds > 1 else ''}")


def _loaded(ask: LearningAsk) -> _Agents:
    """The agent of a folder, with its curves, if they lie beside it; InputError where it is one for another task."""
    try:
        policy, about = agent_training.load(ask.folder, ask.task, ask.episode.task())
    except InputError as error:
        raise InputError(f"LearningAsk.folder: {error}") from error
    return _Agents([policy], _curves_beside(Path(ask.folder), about, _title(ask)), {}, _differences(ask, about),
                   f"the agent of {Path(ask.folder).name}")


def _curves_beside(folder: Path, about: Mapping[str, Any], title: str) -> LearningCurves | None:
    """Those that `train_agent` wrote beside its agents, of this one."""
    path = folder.resolve().parent / "curves.csv"
    if not path.is_file():
        return None
    try:
        table = pd.read_csv(path)
        table = table[table["seed"] == about.get("seed", 0)]
        curves = {name: table[name].to_numpy(np.float64)[None] for name in _CURVES}
        return LearningCurves(curves, int(table["steps"].iloc[0]), title)
    except (ValueError, KeyError, IndexError) as error:
        raise InputError(f"{path}: expected the curves of a training as `marsjax train_agent` writes them, with the "
                         f"columns seed, steps, {', '.join(_CURVES)}") from error


def _differences(ask: LearningAsk, about: Mapping[str, Any]) -> list[str]:
    """In what the episodes and the market of the page differ from those of an agent's training, as far as it says."""
    config = about.get("config")
    trained = config if isinstance(config, Mapping) else about.get("episode")
    found = []
    if isinstance(trained, Mapping):
        here = {name: value for name, value in dataclasses.asdict(ask.episode).items() if name not in _COUNTS}
        differ = [f"{name} {trained[name]} (here {value})" for name, value in here.items()
                  if name in trained and trained[name] != value]
        found += [f"The agent was trained in other episodes: {', '.join(differ)}"] if differ else []
    market, own = _market_of(about), _told(ask.background, ask.day)
    if market not in ("", own) and not (market == REAL == ask.background):
        found.append(f"The agent was trained in another market: {market} (here {own})")
    return found


def _market_of(about: Mapping[str, Any]) -> str:
    """The market of an agent's training in the words of the page; empty where it does not say.

    Of real days that `train_agent` replayed the kind alone.
    """
    said, config = about.get("background"), about.get("config")
    if not isinstance(config, Mapping):
        return _told(said, str(about.get("day", ""))) if said in (NOISE, MADE, REAL) else ""
    source = str(config.get("source", ""))
    replay = _told(MADE, source) if source in places.MADE else REAL
    return {"noise": NOISE, "model": _MODEL, "replay": replay}.get(str(said), "")


def _about(shop: Workshop, ask: LearningAsk) -> dict[str, Any]:
    return {"task": ask.task, "background": ask.background, "day": ask.day, "episode": dataclasses.asdict(ask.episode),
            "training": ask.training and dataclasses.asdict(ask.training), **shop.about_device(ask.device)}


def _title(ask: LearningAsk) -> str:
    return f"{ask.task}, {_told(ask.background, ask.day)}"


def _told(background: str, day: str) -> str:
    return background if background == NOISE else f"{background}: {day}"


def _result(shop: Workshop, ask: LearningAsk, found: _Agents, rows: Sequence[dict[str, Any]]) -> LearningResult:
    measures = (agent_plots.MAKER_MEASURES,) if ask.task == MAKING else ()
    figures: dict[str, Callable[[], Figure]] = {"comparison": functools.partial(
        agent_plots.comparison, rows, f"{_title(ask)}: held-out starts", *measures)}
    if found.curves:
        figures["curves"] = found.curves.figure
    pictures = pngs(figures, dpi=110)
    files = {**found.files, "comparison.csv": csv(pd.DataFrame(rows)),
             "results.json": json_text_of({"comparison": rows, "asked": dataclasses.asdict(ask), **_about(shop, ask)}
                                          ).encode(), **{f"{name}.png": data for name, data in pictures.items()}}
    notes = list(found.notes)
    shown = [row for row in rows if row.get("regime", "all") == "all"]
    first = next(iter(_COLUMNS[ask.task]))
    if not np.isfinite(shown[0][f"{first}_low"]):
        notes.append(f"Fewer than {agent_scores.LEAST_BLOCKS} blocks of time are held out: no interval can be given")
    said = f"{found.said}, in {ask.comparison.episodes:,} episodes from {shown[0]['starts']} starts that were held out"
    return LearningResult(said[:1].upper() + said[1:], notes, table_of(shown, ask.task), pictures, files)


def table_of(rows: Sequence[dict[str, Any]], task: str) -> pd.DataFrame:
    """The contenders and differences in words, a row each: means with their intervals."""
    def told(row: Mapping[str, Any], name: str) -> str:
        value, low, high = (_SCALES.get(name, 1.0) * row[f"{name}{end}"] for end in ("", "_low", "_high"))
        digits = _DIGITS.get(name, 0)
        if not np.isfinite(value):
            return "-"
        return f"{value:.{digits}f}" + (f"  [{low:.{digits}f}, {high:.{digits}f}]" if np.isfinite(low) else "")

    return pd.DataFrame([{
        "Who": f"{row['contender']} less {row['against']}" if row["against"] else row["contender"],
        **{title: told(row, name) for name, title in _COLUMNS[task].items()}} for row in rows])
