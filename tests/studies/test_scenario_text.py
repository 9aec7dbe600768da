"""Scenarios in words: what is written is read, along straight lines, and what is no scenario is named."""

import contextlib
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as some

from marsjax.core.errors import InputError
from marsjax.observers.features import Features
from marsjax.sim.control import ControlSpec, CurveGuide, guides
from marsjax.studies import scenario_text
from marsjax.studies.scenario_text import LevelPart, PricePart

USUAL = Features(0.0, 0.0, 4.0, 1e4, 0.0, 2.0, 5e4, 120.0)
KEEP = settings(max_examples=80, deadline=None)
UNITS = some.sampled_from([("s", 1), ("second", 1), ("seconds", 1), ("min", 60), ("minute", 60), ("minutes", 60)])
SPACE = some.sampled_from([" ", "  ", "\n"])


@some.composite
def scenario(draw: Any) -> tuple[str, list[PricePart], list[LevelPart]]:
    """Words of the grammar, and what they mean, made without the reader."""
    at, prices, levels, clauses = 0.0, [], [], []
    quantities = draw(some.permutations([("volume", "volume"), ("orders", "orders"), ("volatility", "volatility_bp"),
                                         ("depth", "depth"), ("spread", "spread_ticks")]))
    for _ in range(draw(some.integers(1, 5))):
        kind = draw(some.sampled_from(["move", "recover", "hold", "level"]))
        if kind == "level" and quantities:
            name, feature = quantities.pop()
            word, times = draw(some.sampled_from([("half", 0.5), ("normal", 1.0), ("twice", 2.0), ("triple", 3.0),
                                                  ("1.5 times", 1.5), ("0.25 times", 0.25)]))
            text, part = f"{name} {word}", LevelPart(feature, times)
            if draw(some.booleans()):
                first, length, (unit, of) = draw(some.integers(0, 9)), draw(some.integers(1, 9)), draw(UNITS)
                text += f" from {first} to {first + length} {unit}"
                part = LevelPart(feature, times, first * of, (first + length) * of)
            levels.append(part)
            clauses.append(text)
            continue
        text = "hold"
        if kind == "move":
            verb, sign = draw(some.sampled_from([("drop", -1), ("fall", -1), ("rise", 1), ("gain", 1)]))
            amount, (unit, of) = draw(some.integers(1, 40)), draw(some.sampled_from([("%", 1.0), ("bp", 0.01)]))
            text, at = f"{verb} {amount / 8:g}{unit}", at + sign * (amount / 8) * 100 * of
        if kind == "recover":
            word, share = draw(some.sampled_from([("", 1), (" half", 0.5), (" all", 1), (" fully", 1), (" 25%", 0.25)]))
            text, at = f"recover{word}", at * (1 - share)
        seconds = None
        if draw(some.booleans()):
            number, (unit, of) = draw(some.integers(1, 20)), draw(UNITS)
            text, seconds = f"{text} {draw(some.sampled_from(['in', 'over', 'for']))} {number}{unit}", number * of
        prices.append(PricePart(at, seconds))
        clauses.append(text)
    joins = [draw(some.sampled_from([", ", "; ", " then ", ", then ", " and ", ", and "])) for _ in clauses[1:]]
    text = clauses[0] + "".join(join + clause for join, clause in zip(joins, clauses[1:], strict=True))
    text = text.replace(" ", draw(SPACE))
    return text.upper() if draw(some.booleans()) else text, prices, levels


@KEEP
@given(scenario())
def test_what_is_written_is_read(made: tuple[str, list[PricePart], list[LevelPart]]) -> None:
    text, prices, levels = made
    found = scenario_text.read(text)
    assert [part.seconds for part in found.prices] == [part.seconds for part in prices]
    assert [part.end_bp for part in found.prices] == pytest.approx([part.end_bp for part in prices])
    assert list(found.levels) == levels


@KEEP
@given(scenario())
def test_a_curve_goes_straight_through_the_ends_of_its_parts(made: tuple[str, list[PricePart], list[LevelPart]]
                                                             ) -> None:
    found = scenario_text.read(made[0])
    taken = sum(part.seconds or 0 for part in found.prices)
    left = [part for part in found.prices if part.seconds is None]
    whole = taken + 30.0 * len(left) + (0 if left else 12.0)
    at, before = 0.0, 0.0
    for part in found.prices:
        length = 30.0 if part.seconds is None else part.seconds
        ends = found.curve_bp(np.array([at + length / 2, at + length]), whole)
        assert ends == pytest.approx([(before + part.end_bp) / 2, part.end_bp])
        at, before = at + length, part.end_bp
    if not left:
        assert np.isnan(found.curve_bp(np.array([whole]), whole)).all(), "after the last part any price is fine"
    if found.prices:
        with pytest.raises(InputError, match="the length of the futures"):
            found.curve_bp(np.array([1.0]), taken - 0.5 if not left else taken)


@KEEP
@given(scenario(), some.integers(0, 20), some.sampled_from(["dollars", "7", "then", "-", "%", "wait"]))
def test_a_word_too_many_is_read_or_refused(made: tuple[str, list[PricePart], list[LevelPart]], place: int, word: str
                                          ) -> None:
    words = made[0].split()
    words.insert(place, word)
    # Any other error fails the test.
    with contextlib.suppress(InputError):
        scenario_text.read(" ".join(words))


@pytest.mark.parametrize(("text", "match"), [
    ("", "nothing: expected drop"), ("crash 5%", "word 1, 'crash': expected drop, fall"),
    ("drop", "the end after 'drop': expected a number"), ("drop half", "word 2, 'half': expected a number"),
    ("drop 5", "the end after '5': expected % or bp"), ("drop 5% in", "the end after 'in': expected a number"),
    ("drop 5% in 3 days", "word 6, 'days': expected s, second"), ("drop 5% in 0 minutes", "duration above 0"),
    ("drop 5% volume twice", "word 4, 'volume': expected a comma, a semicolon, then, and or the end"),
    ("drop -5%", "'-' after word 1"),
    ("drop 51%", "within 5000 bp"), ("drop 50% then drop 1bp", "within 5000 bp"), ("recover 101%", "0 to 100"),
    ("volume", "expected half, normal"), ("volume 3", "expected times"), ("volume 0 times", "above 0"),
    ("volume twice from 3 to 2 min", "a time after 3"), ("volume twice from 1 to", "expected a number"),
    ("volume twice, volume half", "volume: expected one multiple at a time"),
    ("depth half from 0 to 2 min, depth twice from 1 to 3 min", "depth: expected one multiple"),
    ("drop 1%,", "the end after ','"), ("drop ½%", "'½' after word 1"),
    ("drop 1% " * 2000, "'1' after word 1000: expected at most"),
])
def test_what_is_no_scenario_is_named(text: str, match: str) -> None:
    with pytest.raises(InputError) as found:
        scenario_text.read(text)
    assert match in str(found.value) and str(found.value).startswith("scenario: ")


def test_a_guide_has_its_levels_where_they_are_wanted_as_multiples_of_what_is_usual_there() -> None:
    usual = Features(*(np.stack([np.full(4, x), np.full(4, 3 * x)], axis=1) * np.arange(1, 5)[:, None] for x in USUAL))
    found = scenario_text.guide("volume twice from 60 to 180 s; spread half; rise 20bp in 2 min", 4, ControlSpec(),
                                usual)
    wanted = guides.wanted(found)
    assert wanted["return_bp"][:2].tolist() == [10.0, 20.0] and np.isnan(wanted["return_bp"][2:]).all()
    assert wanted["volume"][1:3].tolist() == [2 * 2e4 * 2, 2 * 2e4 * 3] and np.isnan(wanted["volume"][[0, 3]]).all()
    assert wanted["spread_ticks"].tolist() == [0.5 * 4.0 * k for k in (1, 2, 3, 4)]
    assert found.intervals == 4


def test_a_scenario_of_prices_alone_is_a_curve_for_any_intervals() -> None:
    found = scenario_text.guide("drop 0.3% then recover", 2, ControlSpec(every_s=45), USUAL)
    assert isinstance(found, CurveGuide) and found.return_bp == pytest.approx((-22.5, -15.0, 0.0))
    assert scenario_text.guide("hold", 2, ControlSpec(every_s=60), USUAL).return_bp == (0.0, 0.0)


@pytest.mark.parametrize("text", ["volume twice from 1 to 2 s",
                                  "rise 1bp, volume half from 5 to 6 min"])
def test_wishes_that_no_interval_sees_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="scenario: expected times that hold"):
        scenario_text.guide(text, 2, ControlSpec(every_s=60), USUAL)


def test_prices_that_end_before_any_look_are_refused_with_how_long_they_are() -> None:
    with pytest.raises(InputError, match=r"moves of prices of 60 s together, or more, .* got 45 s"):
        scenario_text.guide("drop 10bp in 45 s, volume twice", 2, ControlSpec(every_s=60), USUAL)


@KEEP
@given(some.lists(some.integers(1, 600), min_size=2, max_size=8))
@example([1, 427, 1, 1])
def test_durations_that_add_up_but_for_rounding_are_the_whole_future(hundredths: list[int]) -> None:
    last = -sum(hundredths) % 100 + 100
    lengths = [*hundredths, last]
    found = scenario_text.read(", ".join(f"rise 1bp in {length / 100} min" for length in lengths))
    whole = 60.0 * (sum(lengths) // 100)
    assert found.curve_bp(np.array([whole]), whole) == pytest.approx([len(lengths)])


def test_no_number_is_lost_to_rounding_of_what_is_read() -> None:
    assert scenario_text.read("drop 0.1% then drop 0.2%").prices[1].end_bp == pytest.approx(-30)
    assert math.isclose(scenario_text.read("rise 12.5bp").prices[0].end_bp, 12.5)
