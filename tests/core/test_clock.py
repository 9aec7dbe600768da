"""Times of day as text and back."""

import numpy as np
import pytest

from marsjax.core import sessions, times
from marsjax.core.times import DAY_NS, SECOND_NS


def test_every_time_of_day_is_spelled_and_read_back() -> None:
    ns = np.concatenate([np.random.default_rng(0).integers(0, DAY_NS, 200), [0, 1, DAY_NS - 1, 34_200 * 10**9]])
    text = times.clock(ns)
    assert [times.of_clock(each) for each in text] == ns.tolist() and text[-1] == "09:30:00.000000000"
    assert times.clock(ns, 3)[-2] == "23:59:59.999" and times.clock(ns, 0)[-2] == "23:59:59"
    assert str(times.clock(5)) == "00:00:00.000000005" and times.clock(np.zeros((0,), np.int64)).shape == (0,)
    assert times.clock(ns.reshape(2, -1)).tolist() == text.reshape(2, -1).tolist()


@pytest.mark.parametrize(("text", "ns"), [("9:30", 34_200 * 10**9), ("09:30:00.5", 34_200_500_000_000),
                                          (" 00:00:01 ", 10**9)])
def test_short_forms_are_read(text: str, ns: int) -> None:
    assert times.of_clock(text) == ns


@pytest.mark.parametrize("text", ["24:00:00", "9am", "09:60:00", "09:30:00.1234567891", "09:30:00+01:00", "", "0930"])
def test_what_is_no_time_of_day_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected HH:MM:SS, got"):
        times.of_clock(text)


def test_seconds_of_trading_leave_breaks_out() -> None:
    session = sessions.chinese_session()
    opens, ends = session.periods[0].start_ns, session.periods[-1].end_ns
    assert sessions.open_seconds(session, opens) == 0
    every = sum((period.end_ns - period.start_ns) // SECOND_NS for period in session.periods)
    assert sessions.open_seconds(session, ends) == sessions.open_seconds(session, DAY_NS) == every
    noon, one = 12 * 3600 * SECOND_NS, 13 * 3600 * SECOND_NS
    assert sessions.open_seconds(session, noon) == sessions.open_seconds(session, one) < every


@pytest.mark.parametrize("session", [sessions.chinese_session(), sessions.continuous_session(),
                                     sessions.continuous_session(0, DAY_NS - 1)])
def test_phases_of_known_times_are_those_of_a_compiled_program(session: sessions.Session) -> None:
    """At every edge of a period, a nanosecond before and after it."""
    edges = {ns for period in session.periods for ns in (period.start_ns, period.end_ns, period.uncross_ns or 0)}
    near = np.array(sorted({min(max(ns + by, 0), DAY_NS - 1) for ns in edges for by in (-1, 0, 1)}))
    found = sessions.phases_of(session, near)
    np.testing.assert_array_equal(found, sessions.phase_at(session, times.from_ns(near)))
    assert set(found.tolist()) >= {int(period.phase) for period in session.periods}
