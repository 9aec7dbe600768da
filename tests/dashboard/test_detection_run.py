"""The run behind the page of detection: a day of the model and a file, a manipulator, and bad input."""

import io
import json

import pandas as pd
import pytest

from marsjax.core.errors import InputError
from marsjax.experiments.pages import detection_run
from marsjax.experiments.pages.detection_run import FILE, MADE, REAL, DetectionAsk
from marsjax.experiments.pages.jobs import Job
from marsjax.experiments.pages.settings import Settings
from marsjax.experiments.pages.workshop import Workshop
from marsjax.studies.manipulations import Manipulation

pytestmark = pytest.mark.quick
HEADER = "time_ns,type,price,volume,order_id,cancel_type,cancel_id,agent_id\n"


@pytest.fixture(scope="module")
def shop() -> Workshop:
    return Workshop(Settings())


def device(shop: Workshop) -> str:
    return next(iter(shop.devices))


def orders(minutes: int) -> bytes:
    """A bid and an ask each second from 10:00:00 on, as a file."""
    rows = [f"{(36_000 + second) * 10**9},{side},{500_000 + (100 if side == 'S' else -100)},100,{2 * second + number},"
            "None,-1,0" for second in range(60 * minutes) for number, side in enumerate("BS")]
    return (HEADER + "\n".join(rows) + "\n").encode()


@pytest.mark.slow
def test_a_day_of_the_model_is_watched_and_the_truth_of_a_manipulator_is_told(shop: Workshop) -> None:
    ask = DetectionAsk("default", device(shop), MADE, "quiet", 2, 24, first_time="09:34:00", last_time="09:40:00",
                       manipulation=Manipulation("layering", 200_000, 60))
    job: Job[detection_run.DetectionResult] = Job()
    result = detection_run.run(shop, ask, job)
    assert set(result.files) == {"intervals.csv", "detection.png", "results.json"} and job.share == 1
    rows = pd.read_csv(io.BytesIO(result.files["intervals.csv"]))
    assert rows["clock"].tolist() == ["09:34:00", "09:36:00", "09:38:00"] == result.table["Begin"].tolist()
    # The five false orders are there, of a fifth each.
    assert rows["largest_order"][1] >= 40_000 and result.picture[:4] == b"\x89PNG"
    found = json.loads(result.files["results.json"])
    case = found["detection"]["manipulation"]
    assert (case["kind"], case["from"], case["during"]["intervals"]) == ("layering", "09:36:01", 1)
    assert found["asked"]["day"] == "quiet" and "content" not in found["asked"]
    assert found["rollouts"]["trajectories"] == 3 * 24
    assert "p among clean ones" not in result.table
    assert any(line.startswith("layering from") for line in result.said)


@pytest.mark.slow
def test_a_file_is_watched_by_the_hours_of_its_orders(shop: Workshop) -> None:
    ask = DetectionAsk("default", device(shop), FILE, "mine.csv", 1, 19, content=orders(4))
    result = detection_run.run(shop, ask, Job())
    rows = pd.read_csv(io.BytesIO(result.files["intervals.csv"]))
    assert rows["clock"].tolist() == ["10:01:00", "10:02:00", "10:03:00"]
    assert rows["orders"].between(118, 122).all()


@pytest.mark.parametrize(("changes", "why"), [
    ({"source": FILE, "day": "mine.csv", "content": b"when,what\n1,2\n"}, r"^mine\.csv"),
    ({"source": FILE, "day": "../../etc/mine.csv", "content": b"\x00\xff"}, r"^mine\.csv"),
    ({"source": REAL, "day": "600000"}, "day: expected one of none, got '600000'"),
    ({"day": "wild"}, "no day 'wild'"),
    ({"minutes": 60}, "minutes, first_time, last_time: expected at least 2 intervals of 60 minutes"),
    ({"clean_until": "09:31:00"}, "DetectionAsk.clean_until: expected a time after the first interval's begin, 09:32"),
    ({"clean_until": "09:36:00"}, "clean_until: expected 8 intervals of 2 minutes at least before it, got 2"),
    ({"manipulation": Manipulation("wash", 1_000, 60), "inject_time": "09:31:00"},
     "DetectionAsk.inject_time: expected times in intervals that are watched and not clean, after 09:32:00"),
    ({"manipulation": Manipulation("wash", 1_000, 60), "inject_time": "20:00:00"},
     "DetectionAsk.inject_time: start at 20:00:00: expected a time of continuous trading")])
def test_what_does_not_fit_the_day_is_said_before_anything_is_simulated(shop: Workshop, changes: dict[str, object],
                                                                        why: str) -> None:
    plain: dict[str, object] = {"source": MADE, "day": "quiet", "minutes": 2, "rollouts": 4}
    ask = DetectionAsk("default", device(shop), **plain | changes)  # type: ignore[arg-type]
    with pytest.raises((InputError, FileNotFoundError), match=why):
        detection_run.run(shop, ask, Job())
