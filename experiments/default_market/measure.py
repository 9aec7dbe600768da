"""The days that come with the default model beside the real ones that it learnt from, by what a newcomer sees.

    python experiments/default_market/measure.py data/sse

128 futures of five minutes from each of `default`, `busy` and `quiet`; spread, best volumes, order rate and moves of
five minutes of these, and of the three real days. Then 16 futures from each of eleven real states after 14:00, which
the model was not trained on, beside what came: the last of their five minutes, and the mean of the moves with its
standard error between states. Prints Markdown.
"""

import argparse

import numpy as np

import marsjax
from marsjax.analysis import order_events, quantities
from marsjax.analysis.quantities import MINUTE_NS, OrderEvents
from marsjax.checkpoint import load
from marsjax.core.records import Kind
from marsjax.core.sessions import Session
from marsjax.core.specs import MarketSpec
from marsjax.core.times import SECOND_NS
from marsjax.data import made_days, sources
from marsjax.data.feed import DayFeed
from marsjax.studies import futures, order_model, realism, starts
from marsjax.studies.futures import FuturesSpec
from marsjax.studies.order_model import PreparedModel
from marsjax.studies.session_times import continuous, hours

MINUTES = 5
COLUMNS = ("spread, ticks", "shares at the best ask", "at the best bid", "orders a minute", "trade on arrival",
           "mean of 5 minutes, bp", "standard deviation, bp", "largest, bp")


def market_of(feed: DayFeed, session: Session) -> MarketSpec:
    """Books with room enough."""
    return feed.venue.market(capacity=8192, accounts=2, session=session, trade_width=64)


def row(name: str, samples: list[OrderEvents], returns: np.ndarray, minutes: float, starts: int | None = None) -> str:
    """Medians over samples of means over their orders; returns are in basis points, as many of each of `starts`."""
    groups = [each[np.isfinite(each)] for each in returns.reshape(starts or len(returns), -1)]
    means = [each.mean() for each in groups if len(each)]
    error = np.std(means) / np.sqrt(len(means))

    def median(of: list[float]) -> float:
        return float(np.nanmedian(of))

    limit = [each.kind != Kind.CANCEL for each in samples]
    cells = [f"{median([np.nanmean(each.spread) for each in samples]) / 100:.2f}",
             f"{median([each.ask_volume.mean() for each in samples]):,.0f}",
             f"{median([each.bid_volume.mean() for each in samples]):,.0f}",
             f"{median([len(each.kind) / minutes for each in samples]):.0f}",
             f"{median([(each.traded[some] > 0).mean() for each, some in zip(samples, limit, strict=True)]):.2f}",
             f"{np.nanmean(returns):.2f} +- {error:.2f}",
             f"{np.nanstd(returns):.1f}", f"{np.nanmax(np.abs(returns)):.1f}"]
    return f"| {name} | " + " | ".join(cells) + " |"


def real(feed: DayFeed, prepared: PreparedModel) -> str:
    """Every stretch of five minutes of continuous trading, one after the other."""
    session = hours(feed.venue.market().session, feed)
    market = market_of(feed, session)
    begins = [begin for period in continuous(session)
              for begin in range(period.start_ns, period.end_ns - MINUTES * MINUTE_NS + 1, MINUTES * MINUTE_NS)]
    states = starts.states_of_feed(market, prepared, feed, [begins[-1] + MINUTES * MINUTE_NS])
    events = order_events.of_passed(states.sent)
    samples = [events.between(begin, begin + MINUTES * MINUTE_NS) for begin in begins]
    returns = quantities.returns(events, np.array(begins), MINUTES) * 1e4
    return row(f"{feed.name}, real", [each for each in samples if len(each.kind)], returns, MINUTES)


def simulated(name: str, prepared: PreparedModel, spec: FuturesSpec) -> str:
    """Futures of one of the days that come with the model."""
    day = made_days.open_day(load.folder_of("default"), name)
    market = market_of(day.feed, day.feed.venue.market().session)
    states = starts.states_of_feed(market, prepared, day.feed, [day.start_ns])
    sent = realism.SentOrders()
    futures.simulate(prepared, market, spec, states.starts, on_trace=sent)
    known = order_events.arrivals_of(states.passed)
    samples = [order_events.of_trace(rows, known) for rows in sent.by_trajectory(spec.trajectories)]
    returns = np.array([quantities.returns(each, np.array([day.start_ns]), MINUTES)[0] for each in samples]) * 1e4
    return row(f"{name}, futures", samples, returns, MINUTES)


def after_two(feed: DayFeed, prepared: PreparedModel, trajectories: int) -> list[str]:
    """Futures from real states every five minutes from 14:00 to 14:50, and what came."""
    session = hours(feed.venue.market().session, feed)
    market, length = market_of(feed, session), MINUTES * MINUTE_NS
    begins = [14 * 3600 * SECOND_NS + number * length for number in range(11)]
    states = starts.states_of_feed(market, prepared, feed, [*begins, begins[-1] + length])
    events, known = order_events.of_passed(states.sent), order_events.arrivals_of(states.passed)
    sent = realism.SentOrders()
    futures.simulate(prepared, market, FuturesSpec(trajectories, MINUTES), states.starts[:-1], on_trace=sent)
    made = [order_events.of_trace(rows, known) for rows in sent.by_trajectory(len(begins) * trajectories)]
    of = [begin for begin in begins for _ in range(trajectories)]
    found = []
    for name, samples, at in (("what came", [events] * len(begins), begins), ("futures", made, of)):
        last = [each.between(begin + length - MINUTE_NS, begin + length)
                for each, begin in zip(samples, at, strict=True)]
        moves = np.array([quantities.returns(each, np.array([begin]), MINUTES)[0] * 1e4
                          for each, begin in zip(samples, at, strict=True)])
        found.append(row(f"{feed.name}, {name}", [each for each in last if len(each.kind)], moves, 1, len(begins)))
    return found


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="of the Shanghai days")
    parser.add_argument("--trajectories", type=int, default=128)
    given = parser.parse_args()
    prepared = order_model.prepare(marsjax.load_order_model("default"))
    known = order_model.trained_days(prepared.model.about)
    feeds = [feed for feed in sources.open_days("sse", given.folder, []) if feed.name in known]
    print("| | " + " | ".join(COLUMNS) + " |\n|" + "---|" * (len(COLUMNS) + 1))
    for feed in feeds:
        print(real(feed, prepared), flush=True)
    for name in made_days.NAMES:
        print(simulated(name, prepared, FuturesSpec(given.trajectories, MINUTES)), flush=True)
    for feed in feeds:
        print("\n".join(after_two(feed, prepared, 16)), flush=True)


if __name__ == "__main__":
    main()
