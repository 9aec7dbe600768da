"""What a training says of its teacher, and of orders held out that the teacher may know."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict

from marsjax import testing
from marsjax.experiments import train, train_record
from marsjax.studies import order_model
from marsjax.training.distill import Teacher
from marsjax.training.prepare import Prepared
from marsjax.training.split import Span, Split

pytestmark = pytest.mark.quick

OWN, OTHER, UNSEEN = "600000_20230711", "600001_20230711", "600002_20230711"
CONFIG = ConfigDict({"validation_from": "10:30:00", "held_from": "10:45:00", "refit": True, "made_by": "me", "batch": 4,
                     "context_length": 8})
DAY = np.zeros((60, 15), np.int32)
DATA = Prepared(Split([DAY[:20]], [DAY[:40]], [Span(OWN, DAY, 20, 40)], [Span(OWN, DAY, 40, 60)],
                      [Span(UNSEEN, DAY, 1, 60)]), {}, {}, (OWN,))
TINY = testing.tiny_model()
KEPT = {"device": "d", "jax": "j", "dtype": "float32", "steps": 2, "best": {"step": 1}, "seconds": 3.0}


def teacher(source: str | None = f"trained on {OTHER}", until: str | None = "10:30:00") -> Teacher:
    """Of a checkpoint with such a source."""
    about = {"source": source, "training": {"trained_until": until}} if until else {"source": source}
    return Teacher(TINY.model, TINY.converters, 0.25, 2.0, "a/teacher", about)


def card(of: Teacher | None) -> dict[str, str]:
    return train_record.card_facts(CONFIG, 5, DATA, KEPT | train_record.teacher_facts(CONFIG, of, DATA))


def test_the_days_of_a_teacher_are_days_that_its_student_knows() -> None:
    assert order_model.trained_days({"source": train_record.source(DATA, None)}) == [OWN]
    first = train_record.source(DATA, teacher())
    assert order_model.trained_days({"source": first}) == [OWN, OTHER]
    again = train_record.source(DATA, teacher(first))  # a student that teaches
    assert order_model.trained_days({"source": again}) == [OWN, OTHER]
    many = dataclasses.replace(DATA, names=tuple(f"6{number:05}_20230711" for number in range(50)))
    assert order_model.trained_days({"source": train_record.source(many, None)}) == list(many.names)


@pytest.mark.parametrize(("of", "expected"), [
    (teacher(), ""), (teacher(until=None), ""), (teacher(f"trained on {OWN}"), ""),
    (teacher(f"trained on {OWN}", "10:40:00"), f"{OWN} until 10:40:00, which here decide when to stop from 10:30:00"),
    (teacher(f"trained on {OWN}", "11:00:00"), f"{OWN} until 11:00:00, held out here from 10:45:00"),
    (teacher(f"trained on {OWN}", None), f"{OWN}, at hours that its checkpoint does not name"),
    (teacher(f"trained on {OWN}", "noon"), f"{OWN}, at hours that its checkpoint does not name"),
    (teacher(f"trained on {OTHER}, {UNSEEN}"), f"was trained on {UNSEEN}, held out whole here"),
    (teacher(f"trained on x{UNSEEN}"), ""),
    (teacher("microsoft/somewhere"), "does not name all its days"), (teacher(None), "does not name all its days"),
    (teacher(f"trained on {OTHER}, ... {OTHER} (40 days)"), "does not name all its days"),
    (teacher(f"trained on {OTHER}; taught by b: {train_record._UNKNOWN}"), "does not name all its days")])
def test_what_a_teacher_may_know_is_said(of: Teacher, expected: str) -> None:
    found = train_record.known_to(of, CONFIG, DATA)
    assert expected in found if expected else not found
    assert ("Losses below may be too good" in card(of)["teacher"]) == bool(expected)


def test_hours_that_a_student_knows_are_also_its_teachers() -> None:
    stopped = ConfigDict(CONFIG.to_dict() | {"refit": False})
    assert train_record.trained_until(CONFIG, None) == "10:45:00"
    assert train_record.trained_until(stopped, None) == "10:30:00"
    assert train_record.trained_until(stopped, teacher(until="9:31")) == "10:30:00"
    assert train_record.trained_until(CONFIG, teacher(until="11:00:00")) == "11:00:00"
    assert train_record.trained_until(CONFIG, teacher(until=None)) is None


def test_a_card_has_the_teacher_and_its_bins() -> None:
    alone, taught = card(None), card(teacher())
    assert "teacher" not in alone and alone["bins"].startswith("fitted on the orders before")
    assert taught["bins"] == "those of the teacher, a/teacher"
    for part in (f"a/teacher (trained on {OTHER}; ", order_model.parameters_hash(TINY.model), "weight 0.25", "re 2"):
        assert part in taught["teacher"]
    assert train_record.objective(None) == ""
    assert train_record.objective(teacher()) == "0.75 nats + 1 divergence from the teacher"


def test_shards_with_other_bins_than_the_teachers_are_refused_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    training: Any = SimpleNamespace(teacher=teacher(), model=TINY.spec)
    config = ConfigDict({"teacher": "a/teacher", "shards": "runs/shards"})
    bins: dict[str, Any] = dict(TINY.converters)
    monkeypatch.setattr(train.token_shards, "opened", lambda _: dataclasses.replace(DATA, converters=bins))
    assert train._opened(config, training).names == (OWN,)
    bins["price-level"] = SimpleNamespace(edges=np.asarray(bins["price-level"].edges) + 1)
    with pytest.raises(ValueError, match=r"config\.teacher, config\.shards: a/teacher and runs/shards: Teacher: its "
                                         r"bins of price-level .* take a teacher that was trained on these shards"):
        train._opened(config, training)
