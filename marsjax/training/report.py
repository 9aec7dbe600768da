"""What came of a training: losses beside the baselines, a picture of the curve, and the checkpoint's card."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from marsjax.core.specs import ModelSpec
from marsjax.model.layers import FLOAT32
from marsjax.model.llama import OrderModel
from marsjax.training import baselines, evaluate
from marsjax.training.days import Tokens
from marsjax.training.evaluate import FIELDS
from marsjax.training.prepare import Prepared
from marsjax.training.split import Span

Losses = Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]
"""Part (held_out, ...) -> who predicts -> `all` or a day -> field -> nats an order."""
MODEL, MARGINALS, MARKOV = "model", "frequencies", "markov"


def measure(model: OrderModel, data: Prepared, stopped: OrderModel | None = None) -> dict[str, dict[str, Any]]:
    """Losses of the model (in float32) and of both baselines on the parts that nothing was trained on.

    If the model is `fit.refit` on the validation part too, `stopped` is the one from before, which that part's losses
    are of; baselines count the same orders as the model beside them.
    """
    of = data.split

    def beside(refit: Sequence[Tokens] | None) -> dict[str, baselines.Marginals | baselines.Markov]:
        given = model.spec.tokens, of.training, of.validation, refit
        return {MARGINALS: baselines.marginals(*given), MARKOV: baselines.markov(*given)}

    before = model if stopped is None else stopped, beside(None)
    after = before if stopped is None else (model, beside(of.refit))
    found: dict[str, dict[str, Any]] = {}
    for part, spans in (("validation", of.validation), ("held_out", of.held_out),
                        ("held_out_symbols", of.held_out_symbols)):
        measured, others = before if part == "validation" else after
        if spans:
            found[part] = {MODEL: _summary(evaluate.losses(measured.replace(compute=FLOAT32), spans), spans),
                           **{name: _summary(other.losses(spans), spans) for name, other in others.items()}}
    return found


def _summary(nats: Mapping[str, np.ndarray], spans: Sequence[Span]) -> dict[str, dict[str, float]]:
    """Mean losses by field: of all orders, and of each span's."""
    rows = {"all": {field: float(np.mean(x, dtype=np.float64)) for field, x in nats.items()}}
    first = 0
    for span in spans:
        part = slice(first, first + span.count)
        rows[span.name] = {field: float(np.mean(x[part], dtype=np.float64)) for field, x in nats.items()}
        first += span.count
    return rows


def table(losses: Losses) -> str:
    """The losses as Markdown, nats an order."""
    lines = []
    for part, by_name in losses.items():
        lines += [f"| {part.replace('_', ' ')} | {' | '.join(FIELDS)} |", "|---" * (len(FIELDS) + 1) + "|"]
        for name, rows in by_name.items():
            for day, row in rows.items():
                if day == "all" or name == MODEL:
                    label = name if day == "all" else f"{name}, {day}"
                    lines.append(f"| {label} | {' | '.join(f'{row[field]:.3f}' for field in FIELDS)} |")
        lines.append("")
    return "\n".join(lines).rstrip()


def curve(rows: Sequence[Mapping[str, float]], refit: Sequence[Mapping[str, float]], losses: Losses,
          objective: str = "") -> Figure:
    """The losses on the way, and where the step that was kept and the baselines stand on the validation part.

    `objective` says what a step makes small, if that is not the loss on orders that came.
    """
    training = f"training: {objective}" if objective else "training"
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    steps = [row["step"] for row in rows]
    axes.plot(steps, [row["loss"] for row in rows], color="tab:gray", label=training)
    if refit:
        axes.plot([row["step"] for row in refit], [row["loss"] for row in refit], color="tab:gray", linestyle=":",
                  label=f"{training}, on the validation part too")
    axes.plot(steps, [row["validation_loss"] for row in rows], color="tab:blue", label="validation, averaged weights")
    best = min(rows, key=lambda row: row["validation_loss"])
    axes.plot([best["step"]], [best["validation_loss"]], "o", color="tab:blue", label="kept")
    for name, color in ((MARGINALS, "tab:red"), (MARKOV, "tab:orange")):
        axes.axhline(losses["validation"][name]["all"]["order"], color=color, linestyle="--", linewidth=1,
                     label=f"{name}, validation")
    axes.set_xlabel("step")
    axes.set_ylabel("nats an order")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure


def card(title: str, spec: ModelSpec, facts: Mapping[str, str], losses: Losses, limits: Sequence[str]) -> str:
    """The card of a checkpoint, Markdown."""
    reads = ("linear attention, trained on windows of {} orders" if spec.mixer == "linear" else "{} orders of context"
             ).format(spec.context_length)
    lines = [f"# {title}", "",
             f"An order model of {spec.layers} layer{'s' if spec.layers > 1 else ''}, width {spec.embed_dim}, "
             f"{spec.heads} heads, {reads} and {spec.tokens.classes} classes of orders.", ""]
    lines += [f"- {name}: {text}" for name, text in facts.items()]
    lines += ["", "Losses in nats an order: of the whole order, and of its fields under the model's joint law, beside "
              "the frequencies of the training orders and a Markov chain of the last two orders' type and price.", "",
              table(losses), "", "What it is not good for:", "", *(f"- {limit}" for limit in limits), ""]
    return "\n".join(lines)
