"""Times of a trading session: those of continuous trading, and starts whose futures end in it."""

import numpy as np

from marsjax.core import times
from marsjax.core.errors import InputError
from marsjax.core.sessions import Period, Phase, Session, continuous_session
from marsjax.core.times import DAY_NS, SECOND_NS
from marsjax.data.feed import DayFeed

MINUTE_NS = 60 * SECOND_NS


def continuous(session: Session) -> list[Period]:
    """The periods of continuous trading, in order."""
    return [period for period in session.periods if period.phase == Phase.CONTINUOUS]


def hours(session: Session, *feeds: DayFeed) -> Session:
    """The session in which all feeds have orders: their own, or, where that is all of a day, from first to last order.

    That takes a pass over them; whole minutes that they have in common. InputError where there are none.
    """
    (first, *more) = session.periods
    if more or first.phase != Phase.CONTINUOUS or first.end_ns - first.start_ns < DAY_NS - MINUTE_NS:
        return session
    spans = [_span(feed) for feed in feeds]
    begin_ns = max(max(begin for begin, _ in spans) // MINUTE_NS * MINUTE_NS, first.start_ns)
    end_ns = min(-(-min(end for _, end in spans) // MINUTE_NS) * MINUTE_NS, first.end_ns)
    if end_ns <= begin_ns:
        raise InputError(f"{' and '.join(feed.name for feed in feeds)}: expected hours in common, got none")
    return continuous_session(begin_ns, end_ns)


def _span(feed: DayFeed) -> tuple[int, int]:
    """Times of a feed's first and last order."""
    ends = [times.to_ns(chunk.orders.time)[[0, -1]] for chunk in feed.read() if len(chunk.orders.kind)]
    if not ends:
        raise InputError(f"{feed.name}: expected orders, got none")
    return int(ends[0][0]), int(ends[-1][1])


def spell(time_ns: int) -> str:
    """HH:MM:SS, with a fraction where there is one."""
    second, rest = divmod(time_ns, SECOND_NS)
    text = f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}"
    return text + (f".{rest:09d}".rstrip("0") if rest else "")


def check_time(session: Session, time_ns: int, minutes: int) -> Period:
    """The period of continuous trading that holds a start and the minutes after it; InputError if none does."""
    periods = continuous(session)
    known = " and ".join(f"{spell(period.start_ns)} to {spell(period.end_ns)}" for period in periods)
    inside = [period for period in periods if period.start_ns <= time_ns <= period.end_ns]
    if not inside:
        raise InputError(f"start at {spell(time_ns)}: expected a time of continuous trading, {known}")
    end_ns = time_ns + minutes * MINUTE_NS
    if end_ns > inside[0].end_ns:
        raise InputError(f"start at {spell(time_ns)}: its {minutes} minutes end at {spell(end_ns)}, past the end of "
                         f"continuous trading at {spell(inside[0].end_ns)}")
    return inside[0]


def start_times(session: Session, first_minute: int, every_minutes: int, minutes: int) -> list[int]:
    """Times whose `minutes` end in their own period of continuous trading, nanoseconds since midnight.

    The first is `first_minute` after the session begins, the others follow `every_minutes`; a later period begins with
    a wait of `every_minutes`. InputError for fewer than two.
    """
    found: list[int] = []
    wait = first_minute
    for period in continuous(session):
        found += range(period.start_ns + wait * MINUTE_NS, period.end_ns - minutes * MINUTE_NS + 1,
                       every_minutes * MINUTE_NS)
        wait = every_minutes
    if len(found) < 2:
        raise InputError(f"first_minute, every_minutes, minutes: expected at least 2 starts in the session, got "
                         f"{len(found)}")
    return found


def past_times(session: Session, first_ns: int, end_ns: int, step_s: int, minutes: int) -> np.ndarray:
    """Times from `first_ns` on whose `minutes` are over at `end_ns` and lie in one period, int64 [N]."""
    found = [np.arange(max(period.start_ns, first_ns), min(period.end_ns, end_ns) - minutes * MINUTE_NS + 1,
                       step_s * SECOND_NS, dtype=np.int64) for period in continuous(session)]
    return np.concatenate(found)
