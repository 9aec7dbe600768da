"""The training program: from a file of orders to a checkpoint, broken off and taken up again; its errors."""

import json
import pathlib
from typing import Any

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import marsjax
from marsjax.experiments import config as configs
from marsjax.experiments import prepare, train
from marsjax.studies import order_model
from marsjax.training.prepare import Prepared
from tests.training import short_day

pytestmark = pytest.mark.quick

ROOT = pathlib.Path(__file__).parent.parent.parent
SIZES = {"validation_from": "09:33:00", "held_from": "09:33:45", "capacity": 256, "embed_dim": 8, "heads": 2,
         "context_length": 32, "price_bins": 8, "volume_bins": 6, "interval_bins": 4, "level_bins": 8, "steps": 8,
         "batch": 4, "every": 4, "warmup": 2, "whole_cancels": True, "futures_rounds": 0}


def config(output: pathlib.Path, **values: Any) -> ConfigDict:
    """Of a training on a short day, which is written beside the output."""
    orders = short_day.write(output.parent)
    found = configs.load(ROOT / "configs" / "train.py", f"default,source=csv,file={orders},output={output}")
    with found.unlocked():
        found.update({**SIZES, **values})
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, Prepared]:
    """A training without a break: its output, and what it had made of the orders."""
    output = tmp_path_factory.mktemp("whole") / "train"
    made = []
    real = train._prepare
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "_prepare", lambda *arguments: made.append(real(*arguments)) or made[0])
        assert train.main(config(output)) == 0
    return output, made[0]


@pytest.fixture
def prepared(whole: tuple[pathlib.Path, Prepared], monkeypatch: pytest.MonkeyPatch) -> None:
    """The orders need not be replayed again."""
    monkeypatch.setattr(train, "_prepare", lambda *_: whole[1])


def rows(output: pathlib.Path) -> list[dict[str, float]]:
    lines = (output / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in lines]


def arrays(output: pathlib.Path) -> list[np.ndarray]:
    return [np.asarray(x) for x in jax.tree.leaves(marsjax.load_order_model(output / "checkpoint").model)]


@pytest.mark.slow
def test_what_a_training_leaves(whole: tuple[pathlib.Path, Prepared]) -> None:
    output, data = whole
    assert sorted(path.name for path in output.iterdir()) == [
        ".marsjax-run", "checkpoint", "curve.png", "metrics.jsonl", "report.json"]
    assert not output.with_name("train.state").exists()
    best = json.loads((output / "report.json").read_text())["best"]["step"]
    assert [(row["step"], "refit" in row) for row in rows(output)] == [
        (4, False), (8, False), *((step, True) for step in (4, 8) if step <= best)]
    found = marsjax.load_order_model(output / "checkpoint")
    assert (found.spec.embed_dim, found.spec.context_length, found.spec.tokens.classes) == (8, 32, 3 * 8 * 6 * 4)
    losses = json.loads((output / "report.json").read_text())["losses"]
    assert found.about["losses"] == losses
    assert found.spec.whole_cancels
    # The loss of the report is that of the model as it is loaded, on the orders held out.
    span = data.split.held_out[0]
    last = range(span.last - 8, span.last)
    windows = np.stack([span.features[place - 32 : place] for place in last])
    law = jax.nn.log_softmax(found.logits(windows))
    nats = -np.asarray(law)[np.arange(8), [span.features[place, 0] for place in last]]
    assert abs(nats.mean() - losses["held_out"]["model"]["all"]["order"]) < 1.5
    assert losses["held_out"]["frequencies"]["all"]["order"] < np.log(found.spec.tokens.classes)
    card = (output / "checkpoint" / "README.md").read_text()
    assert f"| frequencies | {losses['held_out']['frequencies']['all']['order']:.3f} |" in card


@pytest.mark.slow
def test_broken_off_and_taken_up_it_comes_out_the_same(whole: tuple[pathlib.Path, Prepared], prepared: None,
                                                       tmp_path: pathlib.Path) -> None:
    output = tmp_path / "train"
    assert train.main(config(output, stop_at=4)) == 0
    assert not output.exists()
    with pytest.raises(ValueError, match="was broken off; go on with it"):
        train.main(config(output))
    with pytest.raises(ValueError, match=r"peak_rate: expected 0\.1, found 0\.005"):
        train.main(config(output, resume=True, peak_rate=0.1))
    assert train.main(config(output, resume=True)) == 0
    assert rows(output) == rows(whole[0])
    for a, b in zip(arrays(output), arrays(whole[0]), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_its_own_futures_teach_it_after_all_else(whole: tuple[pathlib.Path, Prepared], prepared: None,
                                                 tmp_path: pathlib.Path) -> None:
    output = tmp_path / "train"
    futures = {"rounds": 2, "every": 1, "starts": 2, "trajectories": 2, "orders": 64, "scored": 16}
    assert train.main(config(output, **{f"futures_{key}": value for key, value in futures.items()})) == 0
    made = rows(output)
    assert [row["round"] for row in made if "own_futures" in row] == [1, 2]
    assert [row for row in made if "own_futures" not in row] == rows(whole[0])
    before = json.loads((whole[0] / "report.json").read_text())["losses"]["held_out"]["model"]["all"]["order"]
    told = json.loads((output / "report.json").read_text())["own_futures"]
    assert told["rounds"] == 2 and told["held_out_before"] == pytest.approx(before)
    assert "in these 2 rounds of its own futures" in (output / "checkpoint" / "README.md").read_text()
    assert any((a != b).any() for a, b in zip(arrays(output), arrays(whole[0]), strict=True))


@pytest.mark.slow
def test_shards_of_the_same_day_teach_the_same(whole: tuple[pathlib.Path, Prepared], tmp_path: pathlib.Path) -> None:
    shards, orders = tmp_path / "shards", short_day.write(tmp_path)
    made = configs.load(ROOT / "configs" / "prepare.py", f"default,source=csv,file={orders},output={shards}")
    with made.unlocked():
        made.update({"workers": 1, **{key: value for key, value in SIZES.items() if key in made}})
    assert prepare.main(made) == 0
    for values, expected in (({"signals": False}, "config.signals: expected True, with which .* was prepared, got F"),
                             ({"held_from": "09:34:00"}, "config.held_from: expected 09:33:45")):
        with pytest.raises(ValueError, match=expected):
            train.main(config(tmp_path / "train", shards=str(shards), **values))
    assert train.main(config(tmp_path / "train", shards=str(shards), stop_at=4)) == 0
    assert train.main(config(tmp_path / "train", shards=str(shards), resume=True)) == 0
    found = rows(tmp_path / "train")
    assert all(row.pop("waited_s") <= row.pop("steps_s") for row in found)
    assert [{name: pytest.approx(value) for name, value in row.items()} for row in rows(whole[0])] == found
    for a, b in zip(arrays(tmp_path / "train"), arrays(whole[0]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)  # the compiler rounds otherwise
    reports = [json.loads((output / "report.json").read_text()) for output in (tmp_path / "train", whole[0])]
    assert reports[0]["feeds"] == reports[1]["feeds"]
    for who in ("frequencies", "markov"):
        assert reports[0]["losses"]["held_out"][who] == reports[1]["losses"]["held_out"][who]


@pytest.mark.parametrize("whole", [False, True])
def test_how_cancels_are_read_is_that_of_the_config(tmp_path: pathlib.Path, whole: bool) -> None:
    assert train._training(config(tmp_path / "train", whole_cancels=whole)).model.whole_cancels is whole


def test_a_linear_model_is_trained_likewise_and_its_checkpoint_says_so(tmp_path: pathlib.Path, prepared: None
                                                                              ) -> None:
    output = tmp_path / "train"
    assert train.main(config(output, mixer="linear", steps=24, every=12, refit=False)) == 0
    curve = [row["validation_loss"] for row in rows(output)]
    assert curve[-1] < curve[0]
    prepared_model = order_model.prepare(marsjax.load_order_model(output / "checkpoint"))
    assert prepared_model.model.spec.mixer == "linear" and prepared_model.cache.mode == "recurrent"


@pytest.mark.slow
def test_a_teacher_gives_its_bins_and_its_law(whole: tuple[pathlib.Path, Prepared], tmp_path: pathlib.Path,
                                              capsys: pytest.CaptureFixture[str]) -> None:
    """A student of another kind and size, on hours that would have other bins; of a teacher alone it learns a law."""
    teacher = marsjax.load_order_model(whole[0] / "checkpoint")
    sizes = {"embed_dim": 4, "mixer": "linear", "refit": False, "steps": 4,
             "validation_from": "09:32:00", "held_from": "09:32:45"}
    given = {"teacher": str(whole[0] / "checkpoint"), "teacher_weight": 1.0, "teacher_temperature": 2.0}
    for name, values in (("taught", given), ("alone", {})):
        assert train.main(config(tmp_path / name, **sizes, **values)) == 0
    student = marsjax.load_order_model(tmp_path / "taught" / "checkpoint")
    for name, bins in teacher.converters.items():
        np.testing.assert_array_equal(student.converters[name].edges, bins.edges)
    alone = marsjax.load_order_model(tmp_path / "alone" / "checkpoint")
    assert any((alone.converters[name].edges != bins.edges).any() for name, bins in teacher.converters.items()), (
        "these hours have other bins")
    assert student.spec.embed_dim == 4 and student.spec.mixer == "linear"
    of = student.about["training"]["teacher"]
    assert (of["name"], of["weight"], of["temperature"]) == (given["teacher"], 1.0, 2.0)
    assert of["sha256"] == order_model.parameters_hash(teacher.model)
    assert "noise_1 until 09:33:45, held out here from 09:32:45" in of["may_know"]
    assert f"warning: losses may come out too good: {of['may_know']}" in capsys.readouterr().out
    card = (tmp_path / "taught" / "checkpoint" / "README.md").read_text()
    assert of["may_know"] in card and of["sha256"] in card and "bins: those of the teacher" in card
    assert student.about["training"]["trained_until"] == "09:33:45"
    assert student.about["source"].endswith(f"taught by {given['teacher']}: trained on noise_1")
    assert "teacher" not in alone.about["training"] and alone.about["training"]["trained_until"] == "09:32:00"
    one, other = (rows(tmp_path / name)[-1] for name in ("taught", "alone"))
    assert one["loss"] < 0.9 * other["loss"], "a divergence from a law, not nats of an order"
    assert one["validation_loss"] == pytest.approx(other["validation_loss"], rel=0.2), "both of the orders that came"


@pytest.mark.parametrize(
    ("values", "expected"),
    [({"head": "tall"}, "config.head: expected structured or joint, got 'tall'"),
     ({"mixer": "mamba"}, "ModelSpec.mixer: expected attention or linear, got 'mamba'"),
     ({"teacher": "default"}, "config.level_bins: expected 32, as the teacher's, got 8"),
     ({"teacher": "default", "level_bins": 32}, "config.teacher: expected as many price_levels as the student's 8"),
     ({"every": 0}, "config.every: expected at least 1, got 0"),
     ({"futures_rounds": 1, "futures_scored": 0}, "config.futures_scored: expected at least 1, got 0"),
     ({"futures_rounds": 1, "signals": False}, "futures: expected head=structured and tokens with signals"),
     ({"shards": "nowhere"}, "nowhere: holds no token shards: make them with marsjax prepare"),
     ({"shards": "nowhere", "futures_rounds": 1}, "config.futures_rounds: expected 0 with config.shards"),
     ({"devices": 99}, r"config.devices: expected 0 \(all\) to \d+, got 99"),
     ({"resume": True}, "config.resume: there is no state of a training in"),
     ({"checkpoint": str(ROOT)}, "config.checkpoint: .* exists"),
     ({"held_out_symbols": "600000"}, "config.held_out_symbols: no day of 600000 among noise_1"),
     ({"held_out_symbols": "noise_1"}, "every day is held out whole"),
     ({"held_from": "9 o'clock"}, "held_from: expected a time HH:MM:SS")],
)
def test_wrong_input_is_one_clear_error(tmp_path: pathlib.Path, values: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        train.main(config(tmp_path / "train", **values))
    assert not (tmp_path / "train").exists()
