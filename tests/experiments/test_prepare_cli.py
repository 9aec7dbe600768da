"""The program that prepares days: wrong input is one clear error, and leaves nothing; `train` tests what it makes."""

import pathlib
from typing import Any

import pytest

from marsjax.experiments import config as configs
from marsjax.experiments import prepare
from tests.training import short_day

ROOT = pathlib.Path(__file__).parent.parent.parent


@pytest.mark.parametrize(
    ("values", "expected"),
    [({"workers": -1}, "config.workers: expected at least 0, got -1"),
     ({"bins_days": -1}, "config.bins_days: expected at least 0, got -1"),
     ({"level_bins": 1}, "config.level_bins: expected at least 2, got 1"),
     ({"context_length": 0}, "config.context_length: expected at least 1, got 0"),
     ({"validation_from": "14:30:00"}, "config.validation_from: expected a time before config.held_from=14:00:00, got"),
     ({"held_from": "noon"}, "config.held_from: expected a time HH:MM:SS"),
     ({"held_out_symbols": "600000"}, "config.held_out_symbols: no day of 600000 among noise_1"),
     ({"held_out_symbols": "noise_1"}, "every day is held out whole"),
     ({"file": "nowhere.csv"}, "nowhere.csv")])
def test_wrong_input_is_one_clear_error(tmp_path: pathlib.Path, values: dict[str, Any], expected: str) -> None:
    orders = short_day.write(tmp_path)
    config = configs.load(ROOT / "configs" / "prepare.py", f"default,source=csv,file={orders},output={tmp_path}/shards")
    with config.unlocked():
        config.update(values)
    with pytest.raises((ValueError, OSError), match=expected):
        prepare.main(config)
    assert not (tmp_path / "shards").exists()


@pytest.mark.parametrize("arg", ["default,source=csv,folder=data", "default,source=sse,file=a.csv"])
def test_an_argument_without_effect_is_refused(arg: str) -> None:
    with pytest.raises(configs.UsageError, match="has no effect with source="):
        configs.load(ROOT / "configs" / "prepare.py", arg)


def test_shards_take_the_place_of_a_feed() -> None:
    path = ROOT / "configs" / "train.py"
    found = configs.load(path, "default,shards=runs/shards")
    assert (found.shards, found.source, found.futures_rounds) == ("runs/shards", "shards", 0)
    with pytest.raises(configs.UsageError, match=r"folder='data' has no effect with source=shards"):
        configs.load(path, "default,shards=runs/shards,folder=data")
    with pytest.raises(configs.UsageError, match=r"config\.capacity"):
        configs.check_effect(path, found, ["--config.capacity=8"])
