"""The grid of `experiments/scaling`: what is read again, which futures are asked for, and what there is no time for."""

import argparse
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from marsjax.core.specs import TokenSpec
from marsjax.studies import scaling
from marsjax.studies.scaling import SIZES, Orders, ScalingSpec

PROGRAM = Path(__file__).parents[2] / "experiments" / "scaling" / "measure.py"


@pytest.fixture(scope="module")
def grid() -> ModuleType:
    spec = importlib.util.spec_from_file_location("scaling_measure", PROGRAM)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def given(grid: ModuleType, monkeypatch: pytest.MonkeyPatch, *flags: str) -> argparse.Namespace:
    monkeypatch.setattr("sys.argv", ["measure.py", *flags])
    found: argparse.Namespace = grid.flags()
    return found


def test_a_fit_reads_lines_of_any_settings_but_a_training_goes_on_with_its_own_alone(
        grid: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    same = grid.settings(given(grid, monkeypatch, "x"))
    for name, count in (("h200", 29), ("cpu", 10)):
        path = PROGRAM.with_name(f"{name}.jsonl")
        assert len(grid.lines(path, same, is_fit=True)) == count and grid.lines(path, same) == []
    mixed = tmp_path / "mixed.jsonl"
    mixed.write_text("".join(json.dumps({"settings": settings}) + "\n" for settings in (same, {"seed": 1})))
    assert grid.lines(mixed, same, is_fit=True) == grid.lines(mixed, same) == [{"settings": same}]
    assert grid.lines(tmp_path / "none", same, is_fit=True) == []


def test_futures_held_out_have_the_same_numbers_for_all_amounts(grid: ModuleType,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    (few, _), (many, rest) = (grid.written(given(grid, monkeypatch, "x", f"--amounts={amounts}"))
                              for amounts in ("64", "64,4096"))
    assert few == many and many.first == 0 and many.futures >= 128 + scaling.MOST_VALIDATING
    assert rest.first == many.futures and rest.futures >= 4096


def test_the_time_of_a_training_is_expected_by_the_size_next_to_it(grid: ModuleType) -> None:
    taken = grid.taken([{"of": "orders"}, {"size": "a", "numbers": 100, "seconds": 3.0},
                        {"size": "a", "numbers": 100, "seconds": 5.0}, {"size": "b", "numbers": 1000, "seconds": 8.0}])
    assert taken == {100: 5.0, 1000: 8.0}
    assert [grid.expected(taken, numbers) for numbers in (50, 100, 200, 900, 3000)] == [5, 5, 10, 8, 24]
    assert grid.expected({}, 100) == 0


def test_a_grid_goes_on_and_passes_over_what_there_is_no_time_for(
        grid: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "losses.jsonl"
    asked = given(grid, monkeypatch, str(path), "--sizes=17M,9k", "--amounts=1,2", "--seconds=100")
    same, tokens = grid.settings(asked), TokenSpec(4, 4, 2)
    device = grid.jax.devices()[0].device_kind
    numbers = {name: scaling.numbers(SIZES[name], tokens) for name in asked.sizes}

    def line(name: str, seconds: float, kind: str) -> str:
        return json.dumps({"size": name, "amount": 1, "numbers": numbers[name], "seconds": seconds, "settings": same,
                           "device": kind}) + "\n"

    def trained(spec: ScalingSpec, name: str, *rest: Any) -> dict[str, Any]:
        return {"size": name}

    def ran() -> Iterator[tuple[str, int]]:
        for found in grid.measured(asked, same, grid.time.perf_counter()):
            if "size" in found:
                yield found["size"], found["amount"]

    monkeypatch.setattr(grid.load, "load_order_model", lambda: None)
    monkeypatch.setattr(grid.order_model, "prepare", lambda model: None)
    monkeypatch.setattr(grid, "orders_of", lambda *of: (Orders(tokens, [], []), {}))
    monkeypatch.setattr(grid, "writer", lambda *of: None)
    monkeypatch.setattr(grid, "trained", trained)
    path.write_text(line("17M", 1000.0, device) + line("9k", 1.0, device))
    assert list(ran()) == [("9k", 2)]
    path.write_text(line("17M", 1000.0, "another device") + line("9k", 1.0, "another device"))
    assert list(ran()) == [("17M", 2), ("9k", 2)]
