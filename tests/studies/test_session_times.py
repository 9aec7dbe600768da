"""Times of a session at which futures can start, and past labels can end."""

import numpy as np
import pytest

from marsjax.core.errors import InputError
from marsjax.core.sessions import chinese_session
from marsjax.core.times import SECOND_NS
from marsjax.studies import session_times
from marsjax.studies.forecast_evaluation import EvaluationSpec
from marsjax.studies.session_times import MINUTE_NS


def test_starts_leave_their_horizon_inside_their_period() -> None:
    spec = EvaluationSpec(minutes=5)
    times = session_times.start_times(chinese_session(), 5, 5, 5)
    spelled = [session_times.spell(ns) for ns in times]
    assert (spelled[0], len(spelled)) == ("09:35:00", 23 + 22) and {"11:25:00", "13:05:00", "14:50:00"} <= set(spelled)
    assert not {"11:30:00", "13:00:00", "14:55:00"} & set(spelled)
    fit, judged = spec.times(chinese_session())
    assert fit + judged == times and len(fit) == 22
    past = session_times.past_times(chinese_session(), fit[0], judged[0], 10, 5)
    assert past[0] == fit[0] and past[-1] + 5 * MINUTE_NS <= judged[0]
    late = session_times.past_times(chinese_session(), fit[0], times[-1], 10, 5)
    noon = 12 * 3600 * SECOND_NS
    assert late[late < noon][-1] == 41_100 * SECOND_NS and late[late > noon][0] == 46_800 * SECOND_NS


@pytest.mark.parametrize(("minutes", "every", "overlap"), [(5, 5, 0), (5, 4, 1), (5, 1, 4), (1, 5, 0)])
def test_starts_overlap_as_far_as_their_horizons_reach(minutes: int, every: int, overlap: int) -> None:
    """Counted from the times themselves."""
    spec = EvaluationSpec(minutes=minutes, every_minutes=every)
    begins = every * np.arange(20)
    assert spec.overlap == sum(0 < begin < minutes for begin in begins) == overlap


def test_a_start_is_in_one_period_to_its_end() -> None:
    noon = session_times.check_time(chinese_session(), 41_100 * SECOND_NS, 5)
    assert noon.end_ns == 41_400 * SECOND_NS
    with pytest.raises(InputError, match="its 6 minutes end at 11:31:00, past the end of continuous trading at 11:30"):
        session_times.check_time(chinese_session(), 41_100 * SECOND_NS, 6)
    assert session_times.spell(34_200 * SECOND_NS + 5 * 10**6) == "09:30:00.005"
