"""The pages without a browser: what stands in them, and numbers that cannot be are explained, not run."""

import json

import pytest

pytest.importorskip("streamlit", reason="the pages need Streamlit: pip install 'marsjax[demo]'")
from streamlit.testing.v1 import AppTest

PAGE = """
import streamlit
from marsjax.experiments.pages import {name}_page
from marsjax.experiments.pages.settings import Settings
from marsjax.experiments.pages.workshop import Workshop

shop = streamlit.cache_resource(lambda word: Workshop(Settings.of_words([word])))({word!r})
{name}_page.page(streamlit, shop)
"""
ORDERS = """time,type,price,volume,order_id,cancel_type,cancel_id
09:30:00,B,99900,100,1,None,-1
09:30:01,S,100100,100,2,None,-1
"""


def page(name: str, **settings: object) -> AppTest:
    word = json.dumps({"models": ["default"], **settings})
    found = AppTest.from_string(PAGE.format(name=name, word=word), default_timeout=120).run()
    assert not found.exception
    return found


@pytest.mark.parametrize(("name", "key", "value", "why"), [
    ("forecast", "forecast_rollouts", 0, "Rollouts: expected at least 1, got 0"),
    ("forecast", "forecast_minutes", 2000, "Total minutes: expected at most 1440, got 2000"),
    ("forecast", "forecast_seed", -1, "Seed: expected 0 to 2147483647, got -1"),
    ("forecast", "forecast_traced", 9, "Kept whole: expected at most 8, got 9"),
    ("forecast", "forecast_temperature", 0.0, "Temperature: expected a number above 0, got 0.0"),
    ("control", "control_every", 0, "Seconds between looks: expected at least 1, got 0"),
    ("control", "control_island", 7, "Island: expected a number that divides the rollouts, 64, got 7"),
    ("control", "control_strength", -1.0, "scenario drop: strength: expected a finite number above 0, got -1.0"),
    ("control", "control_weight", -1.0, "Weight: expected 0, or 1e-06 to 1e+06, got -1.0"),
    ("impact", "impact_after", -2, "Minutes after it: expected at least 0, got -2"),
    ("impact", "impact_rollouts", 0, "Rollouts: expected at least 1, got 0"),
    ("detection", "detection_minutes", 0, "Minutes of an interval: expected at least 1, got 0"),
    ("detection", "detection_rollouts", 0, "Rollouts: expected at least 1, got 0"),
    ("detection", "detection_seed", -1, "Seed: expected 0 to 2147483647, got -1"),
    ("learning", "learning_steps", 0, "Steps of an episode: expected at least 1, got 0"),
    ("learning", "learning_step_s", 0.0, "Seconds of a step: expected 0.001 to 3600 seconds, got 0.0"),
    ("learning", "learning_lot", 0, "Lot: expected at least 1, got 0"),
    ("learning", "learning_target", 0, "Shares: expected at least 1, got 0"),
    ("learning", "learning_episodes", 0, "Episodes: expected at least 1, got 0"),
    ("learning", "learning_seed", -1, "Seed: expected at least 0, got -1"),
    ("learning", "learning_seeds", 0, "Agents: expected at least 1, got 0"),
    ("learning", "learning_rate", 0.0, "Learning rate: expected a positive number, got 0.0"),
    ("learning", "learning_train_steps", 100,
     "Steps of the training: expected at least a rollout, envs x length = 1024, got 100"),
    ("facts", "facts_minutes", 2, "Total minutes: expected at least 3, got 2"),
    ("facts", "facts_resamples", 1, "Resamples: expected at least 2, got 1")])
def test_a_number_that_cannot_be_is_explained(name: str, key: str, value: float, why: str) -> None:
    found = page(name)
    found.number_input(key=key).set_value(value)
    found.button(key=f"{name}_run").click().run()
    assert [each.value for each in found.error] == [why] and not found.exception


@pytest.mark.parametrize(("ratios", "why"), [
    ("0.1, much", "Volume ratios: expected numbers like 0.1, 0.3, 0.5, got 'much'"),
    ("0", "Volume ratios: expected numbers above 0 (and below 100), got 0.0"),
    ("0.1, 0.1", "Volume ratios: expected different numbers, got (0.1, 0.1)")])
def test_ratios_that_cannot_be_are_explained(ratios: str, why: str) -> None:
    found = page("impact")
    found.text_input(key="impact_ratios").set_value(ratios)
    found.button(key="impact_run").click().run()
    assert [each.value for each in found.error] == [why] and not found.exception


def test_a_way_of_control_is_chosen_and_what_it_cannot_is_explained() -> None:
    found = page("control")
    way = found.selectbox(key="control_way")
    assert way.value == "resample"
    way.select("batch")
    found.number_input(key="control_minutes").set_value(4)
    found.number_input(key="control_every").set_value(50)
    found.button(key="control_run").click().run()
    assert [each.value for each in found.error] == [
        "Total minutes: expected whole intervals of 50 seconds, where futures are told their orders (way), got 4"]
    assert not found.exception


@pytest.mark.parametrize(("key", "value", "why"), [
    ("first", "noon", "First interval: expected HH:MM:SS, as 10:00:00, got 'noon'"),
    ("last", "25:00:00", "Last end: expected HH:MM:SS, as 10:00:00, got '25:00:00'"),
    ("clean", "10", "Clean until: expected HH:MM:SS, as 10:00:00, got '10'")])
def test_a_time_of_a_day_that_is_none_is_explained(key: str, value: str, why: str) -> None:
    found = page("detection")
    found.text_input(key=f"detection_{key}").set_value(value)
    found.button(key="detection_run").click().run()
    assert [each.value for each in found.error] == [why] and not found.exception


@pytest.mark.parametrize(("key", "value", "why"), [
    ("inject_size", 0, "Its shares: expected shares above 0, got 0"),
    ("inject_size", 50, "expected"), ("inject_seconds", 7, "Its seconds: expected an even number, got 7")])
def test_a_manipulator_that_cannot_be_is_explained(key: str, value: int, why: str) -> None:
    found = page("detection")
    found.selectbox(key="detection_inject").select("layering").run()
    found.number_input(key=f"detection_{key}").set_value(value)
    found.button(key="detection_run").click().run()
    (said,) = found.error
    assert why in said.value and "Spec." not in said.value and not found.exception


def test_a_file_and_a_folder_that_are_not_given_are_asked_for() -> None:
    found = page("detection")
    found.selectbox(key="detection_source").select("file").run()
    found.button(key="detection_run").click().run()
    assert [each.value for each in found.error] == ["CSV of orders: expected a CSV of orders, got none"]
    found = page("learning")
    found.selectbox(key="learning_agent").select("read from a folder").run()
    assert not [each for each in found.number_input if each.key == "learning_train_steps"]
    found.button(key="learning_run").click().run()
    (said,) = found.error
    assert said.value.startswith("Agent's folder: expected the folder of an agent, got none")


def test_a_maker_has_an_inventory_in_place_of_a_target() -> None:
    found = page("learning")
    found.selectbox(key="learning_task").select("market_making").run()
    assert not [each for each in found.number_input if each.key == "learning_target"]
    found.number_input(key="learning_most_lots").set_value(0)
    found.button(key="learning_run").click().run()
    (said,) = found.error
    assert said.value.startswith("Most lots: expected") and not found.exception


def test_no_day_is_explained() -> None:
    found = page("facts")
    found.multiselect(key="facts_days_False").set_value([])
    found.button(key="facts_run").click().run()
    assert [each.value for each in found.error] == ["Days: expected at least one, got none"]


def test_a_folder_without_days_and_a_model_that_is_not_there_are_explained(tmp_path: object) -> None:
    found = page("forecast", feed="sse", data=str(tmp_path))
    found.selectbox(key="forecast_source").select("real day").run()
    (said,) = found.error
    assert str(tmp_path) in said.value and not found.exception
    (said,) = page("home", models=["no/such/model/here"]).error
    assert "no/such/model/here" in said.value


def test_home_says_device_model_and_what_the_pages_do() -> None:
    found = page("home")
    text = "\n".join(each.value for each in found.markdown)
    for part in ("cpu", "Model default: 1 x 32", "nats an order", "Forecast", "Control", "Market impact",
                 "Stylized facts", "Detection", "Learning", "--data FOLDER --feed NAME"):
        assert part in text


def test_a_made_day_has_as_many_minutes_of_warm_up_as_it_says() -> None:
    found = page("forecast")
    assert found.number_input(key="forecast_default_minutes").value > 15
    found.selectbox(key="forecast_source").select("noise").run()
    assert found.number_input(key="forecast_noise_minutes").value == 30
