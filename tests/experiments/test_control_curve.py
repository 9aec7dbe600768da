"""Curves from files: what they mean, and errors that name the line."""

from pathlib import Path

import numpy as np
import pytest

from marsjax.core.errors import InputError
from marsjax.experiments import control_curve, control_target
from marsjax.observers.features import Features
from marsjax.sim.control import ControlSpec


def written(folder: Path, text: str) -> str:
    path = folder / "curve.csv"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_returns_and_prices_are_one_curve(tmp_path: Path) -> None:
    ends = np.array([1.0, 2.0, 2.5])
    of_returns = control_curve.read(written(tmp_path, "minute,return_bp\n2,-20\n4,-40\n"), 2.5).at(ends)
    of_prices = control_curve.read(written(tmp_path, "price, minute\n50,0\n49.9,2\n49.8,4\n"), 2.5).at(ends)
    assert of_returns == (-10, -20, -25) and of_prices == pytest.approx(of_returns)


def test_a_mark_of_byte_order_is_no_part_of_a_name(tmp_path: Path) -> None:
    path = written(tmp_path, "\ufeffminute,return_bp\n2,-5000\n")
    assert control_curve.read(path, 2).at(np.array([1.0, 2.0])) == (-2500, -5000)


@pytest.mark.parametrize(("text", "expected"), [
    ("", "line 1: expected the columns minute and return_bp"),
    ("minute,volume\n1,2\n", "got 'minute,volume'"),
    ("minute,return_bp\n", "expected a row for a minute at least"),
    ("minute,return_bp\n1,a lot\n", "line 2, column return_bp: expected a number, got 'a lot'"),
    ("minute,return_bp\n1,nan\n", "line 2, column return_bp: expected a number"),
    ("minute,return_bp\n1,2,3\n", "line 2: expected 2 fields"),
    ("minute,return_bp\n2,1\n2,1\n", "row 2, column minute: expected minutes from 0 on that rise, got 2"),
    ("minute,return_bp\n-1,1\n", "row 1, column minute"),
    ("minute,return_bp\n3,1\n", "its last minute is 3, expected 5 at least: add rows, or set minutes=3"),
    ("minute,return_bp\n0,1\n9,1\n", "expected 0 at minute 0"),
    ("minute,price\n1,50\n9,51\n", "expected prices above 0 from minute 0 on"),
    ("minute,price\n0,50\n9,-1\n", "got -1 at least"),
    ("minute,return_bp\n0.5,1\n", "its last minute is 0.5, expected 5 at least: add rows"),
    ("minute,return_bp\n5,-10000\n", "row 1, column return_bp: expected prices within 5000 bp of the start"),
    ("minute,return_bp\n5,5001\n", "got 5001"),
    ("minute,price\n0,50\n1,50\n9,20\n", "row 3, column price: expected prices within 5000 bp"),
    ("minute,price\n0,1e-300\n9,1e300\n", "got 1e+300, inf bp"),
    (f"minute,return_bp\n5,{'1' * 200_000}\n", "line 2: expected CSV: field larger than field limit"),
    ('minute,return_bp\n5,"1\n', "line 2: expected CSV: unexpected end of data"),
])
def test_what_is_no_curve_is_named(tmp_path: Path, text: str, expected: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(InputError) as error:
        control_curve.read(path, 5)
    assert "minutes=0" not in str(error.value)
    assert str(error.value).startswith(path) and expected in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        control_curve.read(str(tmp_path / "none.csv"), 5)


def test_a_scenario_and_the_same_in_words_are_one_curve() -> None:
    how, usual = ControlSpec(every_s=240), Features(0.0, 0.0, 4.0, 1e4, 0.0, 2.0, 5e4, 120.0)
    named = control_target.of_scenario("drop", 30.0, 5, how, 2.5).guide(usual)
    assert named == control_target.of_text("drop 30 bp", 5, how, 2.5).guide(usual)
