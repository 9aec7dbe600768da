"""Whose losses a report gives, when the model was trained on the validation part in the end."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from marsjax.core.specs import ComputeSpec, ModelSpec, TokenSpec
from marsjax.training import baselines, evaluate, report
from marsjax.training.prepare import Prepared
from marsjax.training.split import Span, Split

SPEC = ModelSpec(tokens=TokenSpec(2, 2, 2))


@dataclasses.dataclass(frozen=True)
class Model:
    """Stands in for a model trained in bfloat16 whose losses are all one number."""

    loss: float
    spec: ModelSpec = SPEC
    dtype: str = "bfloat16"

    def replace(self, compute: ComputeSpec) -> "Model":
        return dataclasses.replace(self, dtype=compute.dtype)


def test_validation_is_of_the_model_before_the_refit_and_the_rest_of_the_one_after(monkeypatch: pytest.MonkeyPatch
                                                                                  ) -> None:
    day = np.zeros((60, 15), np.int32)
    day[20:40, 0] = 5  # what the validation part alone holds
    split = Split([day[:20]], [day[:40]], [Span("a", day, 20, 40)], [Span("a", day, 40, 60)], [Span("b", day, 30, 40)])

    def losses(model: Model, _: Any) -> dict[str, np.ndarray]:
        assert model.dtype == "float32"
        return dict.fromkeys(evaluate.FIELDS, np.full(1, model.loss))

    monkeypatch.setattr(evaluate, "losses", losses)
    given: Any = Model(2.0), Prepared(split, {}, {}, ())
    stopped: Any = Model(1.0)
    found = report.measure(*given, stopped=stopped)
    assert {part: rows["model"]["all"]["order"] for part, rows in found.items()} == {
        "validation": 1, "held_out": 2, "held_out_symbols": 2}
    few, many = (baselines.marginals(SPEC.tokens, split.training, split.validation, refit)
                 for refit in (None, split.refit))
    for part, spans, counted in (("validation", split.validation, few), ("held_out", split.held_out, many)):
        expected = counted.losses(spans)["order"].mean()
        assert found[part]["frequencies"]["all"]["order"] == pytest.approx(expected)
    alone = report.measure(*given)
    assert all(rows["model"]["all"]["order"] == 2 for rows in alone.values())
    assert alone["held_out"]["frequencies"] != found["held_out"]["frequencies"]


def test_a_card_says_how_a_model_reads_earlier_orders() -> None:
    first = [report.card("A", dataclasses.replace(SPEC, mixer=mixer), {}, {}, ()).splitlines()[2]
             for mixer in ("attention", "linear")]
    assert "heads, 1024 orders of context and 24 classes" in first[0]
    assert "heads, linear attention, trained on windows of 1024 orders and 24 classes" in first[1]


@pytest.mark.parametrize(("given", "expected"), [((), "training"), (("half a law",), "training: half a law")])
def test_a_curve_names_what_a_step_makes_small(given: tuple[str, ...], expected: str) -> None:
    losses = {"validation": {name: {"all": {"order": 1.0}} for name in ("frequencies", "markov")}}
    row = {"step": 1, "loss": 2.0, "validation_loss": 3.0}
    (axes,) = report.curve([row], [row], losses, *given).axes
    labels = [line.get_label() for line in axes.lines]
    assert labels[:2] == [expected, f"{expected}, on the validation part too"]
