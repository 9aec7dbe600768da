"""Environments by name: the short way to one learner in a market."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.agents.base import Agent
from marsjax.agents.noise import NoiseSpec
from marsjax.checkpoint.load import LoadedModel
from marsjax.core import limits, times
from marsjax.core.errors import InputError
from marsjax.core.specs import MarketSpec
from marsjax.data.feed import DayFeed
from marsjax.rl.base import Background, Task
from marsjax.rl.env import Core, MarketEnv, Params
from marsjax.rl.execution import Execution
from marsjax.rl.market_making import MarketMaking
from marsjax.rl.marl import MarlEnv
from marsjax.rl.model import Model, ModelStarts
from marsjax.rl.noise import Noise
from marsjax.rl.passing import Stride
from marsjax.rl.quotes import MOST_ORDERS
from marsjax.rl.replay import Recording, Replay, record
from marsjax.rl.sliced import SlicedExecution
from marsjax.sim.env import Environment
from marsjax.sim.initial import Start, Warmup

_NOISE_MARKET = MarketSpec(capacity=256, trade_width=16, accounts=2)
Made = tuple[Background, Any]
"""A background, and what it reads."""


def make(task: str | Task, *, background: str, steps: int = 64, **options: Any) -> tuple[MarketEnv, Params]:
    """An environment of one learner, and its params, as gymnax's `make` gives them.

    Args:
      task: by name, `execution`, `sliced` or `market_making`, or a task. By name in a market of `noise` or `model`,
        whose orders are hundreds of shares, it is ten times as large.
      background: `replay`, `noise` or `model`.
      steps: of an episode.
      **options: of `replayed`, `noisy` or `modelled`.

    InputError for a name that is none, for a start at which nothing rests and nothing was traded yet, which has no
    price to measure from, and as those functions raise it.

    Examples:
      >>> from marsjax.sim.initial import Warmup
      >>> env, params = make("execution", background="noise", starts=2, warmup=Warmup(duration_ns=60 * 10**9),
      ...                    market=MarketSpec(capacity=64, trade_width=16, accounts=2))
      >>> env.name, env.num_actions, int(params.tasks[0].target)
      ('execution-noise', 13, 6000)
    """
    core, params = _made((task,), background, steps, options)
    return MarketEnv(core, params), params


def make_marl(tasks: Sequence[str | Task], *, background: str, steps: int = 64, **options: Any
              ) -> tuple[MarlEnv, Params]:
    """An environment of several learners in one market, each with a task of its own, and its params.

    Args:
      tasks: of each learner, as of `make`; their orders reach the exchange in this sequence.
      background: `replay`, `noise` or `model`.
      steps: of an episode.
      **options: of `replayed`, `noisy` or `modelled`; `traders` is the number of tasks. In the market of an order model
        they have the accounts 2, 3 ... unless given.

    InputError as `make` raises it.
    """
    several: dict[str, Any] = {"traders": len(tasks)}
    if background == "model":
        several = {"account": tuple(range(2, 2 + len(tasks))) if len(tasks) > 1 else 2}
    core, params = _made(tasks, background, steps, several | options)
    return MarlEnv(core, params), params


def _made(tasks: Sequence[str | Task], background: str, steps: int, options: dict[str, Any]) -> tuple[Core, Params]:
    if background not in BACKGROUNDS:
        raise InputError(f"rl.make: background: expected one of {', '.join(BACKGROUNDS)}, got {background!r}")
    found = []
    for task in tasks:
        if isinstance(task, str):
            if task not in TASKS:
                raise InputError(f"rl.make: task: expected one of {', '.join(TASKS)} or a task, got {task!r}")
            task = TASKS[task](background)
        found.append(task)
    most = max([MOST_ORDERS, *(task.most_orders for task in found)])
    market, data = BACKGROUNDS[background](steps, **{"most_orders": most} | options)
    core = Core(market, tuple(found))
    params = core.default_params(data, steps)
    _check_prices(data)
    return core, params


def _check_prices(data: Any) -> None:
    book = data.begun.market.book if isinstance(data, ModelStarts) else data.starts.book
    none = np.flatnonzero(~np.any(np.asarray(book.volume) > 0, axis=(-1, -2)) & (np.asarray(book.last_price) <= 0))
    if none.size:
        raise InputError(f"rl.make: starts: expected an order or a trade before each, got none before number {none[0]} "
                         f"of {book.last_price.shape[0]}: begin later")


def replayed(steps: int, *, feed: DayFeed, between_ns: tuple[int, int], starts: int = 64, stride: Stride | None = None,
             market: MarketSpec | None = None, traders: int = 1, most_orders: int = MOST_ORDERS) -> Made:
    """A background of a day's messages, which episodes start in at many times.

    Args:
      steps: of an episode: starts that leave too few messages, or too little time, for one are left out.
      feed: the day.
      between_ns: the first start, and the time after which no message is read, nanoseconds since midnight.
      starts: how many, evenly spaced in between.
      stride: a message a step unless given.
      market: as the feed says unless given; either way it gets accounts for the traders, after the feed's.
      traders: A.
      most_orders: K, orders of one trader in a step.
    """
    limits.check_whole("starts", starts, 1, limits.TRAJECTORIES)
    stride = stride or Stride()
    first_ns, until_ns = between_ns
    spec = market or feed.venue.market()
    spec = dataclasses.replace(spec, accounts=feed.venue.accounts + traders)
    found = Replay(spec, tuple(range(feed.venue.accounts, spec.accounts)), stride, most_orders)
    last_ns = until_ns - steps * stride.span_ns
    if last_ns <= first_ns:
        raise InputError(f"rl.make: between_ns: expected at least {steps} steps of {stride.span_ns} ns, got "
                         f"{first_ns} to {until_ns}")
    times_ns = np.unique(np.linspace(first_ns, last_ns, starts, endpoint=stride.span_ns > 0).astype(np.int64))
    data = record(spec, feed, times_ns.tolist(), until_ns)
    return found, _long_enough(data, steps * stride.messages)


def _long_enough(data: Recording, needed: int) -> Recording:
    """Without the starts that fewer messages than needed follow; InputError if there is no other."""
    keeps = np.asarray(data.first) + max(needed, 1) <= np.asarray(data.end)
    if not keeps.any():
        raise InputError(f"rl.make: expected {needed} messages after a start, got at most "
                         f"{data.message_count - int(data.first[0])}: fewer steps or messages a step, or a later end")
    return data.only(keeps)


def noisy(steps: int, *, starts: int = 16, agent: NoiseSpec | None = None, stride: Stride | None = None,
          market: MarketSpec | None = None, warmup: Warmup | None = None, traders: int = 1,
          most_orders: int = MOST_ORDERS) -> Made:
    """A background of the noise agent, and books to start from.

    Args:
      steps: of an episode: the session must be open as long.
      starts: books.
      agent: what it draws from.
      stride: a wake-up a step unless given.
      market: with an account for the noise agent and one for each trader.
      warmup: half an hour before the starts unless given.
      traders: A.
      most_orders: K, orders of one trader in a step.
    """
    agent, stride, warmup = agent or NoiseSpec(), stride or Stride(), warmup or Warmup()
    spec = market or dataclasses.replace(_NOISE_MARKET, accounts=1 + traders)
    found = Noise(spec, tuple(range(1, 1 + traders)), agent, stride, most_orders)
    # A wake-up comes 1.5 intervals after the one before at the latest.
    longest_ns = steps * (stride.span_ns or 3 * stride.messages * agent.interval_ns // 2)
    begin_ns = warmup.start_ns + warmup.duration_ns
    if not any(p.uncross_ns is None and p.start_ns <= begin_ns and begin_ns + longest_ns <= p.end_ns
               for p in spec.session.periods):
        raise InputError(f"rl.make: expected continuous trading for {longest_ns / times.SECOND_NS:g} s after "
                         f"{begin_ns} ns, got the session {spec.session}: fewer steps, or an earlier warmup")
    return found, found.starts(starts, warmup=warmup)


def modelled(steps: int, *, model: LoadedModel, market: MarketSpec, starts: Start | Sequence[Start],
             step_ns: int = times.SECOND_NS, agents: Sequence[Agent] = (), account: int | Sequence[int] = 2,
             most_orders: int = MOST_ORDERS) -> Made:
    """A background of an order model.

    Args:
      steps: of an episode.
      model: with its bin converters.
      market: sizes and session, with an account for each trader.
      starts: where episodes begin, in books of one size (`sim.initial.resize`); all in one period of trading.
      step_ns: between two steps.
      agents: who else trades.
      account: of the trader, or of each of several.
      most_orders: K, of a trader in a step.
    """
    environment = Environment.of(model, market, step_ns=step_ns, episode_ns=steps * step_ns, agents=agents,
                                 account=account, most_orders=most_orders)
    every = [starts] if isinstance(starts, Start) else list(starts)
    if not every:
        raise InputError("rl.make: starts: expected at least one, got none")
    # Stacked on the host: else thousands of small arrays are sent to an accelerator one by one.
    start = jax.tree.map(lambda *x: jnp.asarray(np.stack([np.asarray(y) for y in x])), *every)
    found = Model.of(environment)
    return found, found.starts(environment, start)


BACKGROUNDS: dict[str, Callable[..., Made]] = {"replay": replayed, "noise": noisy, "model": modelled}


def _execution(background: str) -> Task:
    return Execution() if background == "replay" else Execution(target=6_000, lot=100)


def _sliced(background: str) -> Task:
    return SlicedExecution(target=600, lot=10) if background == "replay" else SlicedExecution()


def _making(background: str) -> Task:
    return MarketMaking() if background == "replay" else MarketMaking(lot=100)


TASKS: dict[str, Callable[[str], Task]] = {
    "execution": _execution, "sliced": _sliced, "market_making": _making}
