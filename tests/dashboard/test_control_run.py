"""The run behind the page of control: what it gives, and what it says while it goes on."""

import io
import json

import pandas as pd
import pytest

from marsjax.core.errors import InputError
from marsjax.experiments.pages import control_run
from marsjax.experiments.pages.control_run import WORDS, ControlAsk, ControlFilling
from marsjax.experiments.pages.jobs import Job
from marsjax.experiments.pages.settings import Settings
from marsjax.experiments.pages.where import WhereAsk
from marsjax.experiments.pages.workshop import Workshop
from marsjax.sim.control import ControlSpec
from marsjax.studies.futures import FuturesSpec

NOISE = WhereAsk("noise", 3)


def ask(device: str = "", scenario: str = WORDS, text: str = "rise 1% in 40 seconds",
        how: ControlSpec | None = None) -> ControlAsk:
    how = how or ControlSpec(every_s=20)
    return ControlAsk("default", device, NOISE, FuturesSpec(16, 1, chunk_steps=16), how, scenario, text=text)


def test_words_that_mean_nothing_are_named() -> None:
    with pytest.raises(InputError, match="word 1, 'explode'"):
        ask(text="explode")
    with pytest.raises(InputError, match="expected moves of 60 s together"):
        ask(text="drop 1% in 3 minutes")
    with pytest.raises(InputError, match="expected one of drop, rise"):
        ask(scenario="crash")


def test_where_futures_are_told_their_orders_intervals_are_whole_and_islands_mean_nothing() -> None:
    with pytest.raises(InputError, match="expected whole intervals of 50 seconds"):
        ask(text="rise 1% in 1 minute", how=ControlSpec(every_s=50, way="both"))
    with pytest.raises(InputError, match="divides the rollouts, 16, got 3"):
        ask(text="rise 1% in 1 minute", how=ControlSpec(way="both", island=3))
    assert ask("", "drop", how=ControlSpec(way="batch", island=3)).control.way == "batch"


@pytest.mark.slow
def test_both_kinds_of_futures_are_shown_and_given_away() -> None:
    shop = Workshop(Settings())
    job: Job[control_run.ControlResult] = Job()
    result = control_run.run(shop, ask(next(iter(shop.devices))), job)
    assert isinstance(job.latest, ControlFilling) and job.latest.figure().axes and job.share == 1
    assert set(result.files) == {"intervals.csv", "minutes.csv.gz", "realism.csv", "control.png", "results.json"}
    assert result.table["Futures"].tolist() == ["uncontrolled", "controlled"]
    table = pd.read_csv(io.BytesIO(result.files["intervals.csv"]))
    assert table["wanted_bp"].tolist()[:2] == [50, 100] and pd.isna(table["wanted_bp"][2])
    facts = json.loads(result.files["results.json"])
    assert facts["wanted"] == "rise 1% in 40 seconds" and facts["asked"]["scenario"] == WORDS
    assert any("ffective" in line for line in result.said) and result.picture[:4] == b"\x89PNG"


@pytest.mark.slow
def test_futures_that_are_told_their_orders_are_all_left_and_differ_from_those_left_alone() -> None:
    shop = Workshop(Settings())
    device = next(iter(shop.devices))
    with pytest.raises(InputError, match=r"ControlSpec\.every_s: expected 60"):
        control_run.run(shop, ask(device, "drop", how=ControlSpec(every_s=30, way="batch")), Job())
    result = control_run.run(shop, ask(device, "drop", how=ControlSpec(way="batch")), Job())
    facts = json.loads(result.files["results.json"])
    assert facts["asked"]["control"]["way"] == "batch" and "little of what they are told" in result.remark
    table = pd.read_csv(io.BytesIO(result.files["intervals.csv"]))
    assert table["distinct"].tolist() == [1, 1]
    assert table["mean_bp"][0] != table["mean_bp"][1]
