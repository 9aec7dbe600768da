"""What a training of an order model says of itself: in its checkpoint, in the card, in its report."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from marsjax.core import times
from marsjax.core.errors import InputError
from marsjax.studies import order_model
from marsjax.training.distill import Teacher
from marsjax.training.prepare import Prepared
from marsjax.training.split import Span

_WRITTEN, _UNKNOWN = "trained on ", "days not known"
"""How the source in a checkpoint begins that a training wrote; what it says of a teacher without one."""
_MOST_NAMES = 20
"""Days that a line names one by one."""


def source(data: Prepared, teacher: Teacher | None) -> str:
    """All days that a model knows, its teacher's included, as `studies.order_model.trained_days` reads them."""
    own = f"{_WRITTEN}{', '.join(data.names)}"
    return f"{own}; taught by {teacher.name}: {teacher.about.get('source') or _UNKNOWN}" if teacher else own


def trained_until(config: ConfigDict, teacher: Teacher | None) -> str | None:
    """The time HH:MM:SS from which on no order taught the model, nor its teacher; None: not known."""
    own = config.held_from if config.refit else config.validation_from
    if teacher is None:
        return str(own)
    theirs = _until(teacher)
    return None if theirs is None else max(own, theirs, key=times.of_clock)


def _until(teacher: Teacher) -> str | None:
    """`trained_until` of what the teacher's checkpoint says; None where it says none, or no time."""
    training = teacher.about.get("training")
    found = training.get("trained_until") if isinstance(training, Mapping) else None
    try:
        times.of_clock(str(found))
    except InputError:
        return None
    return str(found)


def known_to(teacher: Teacher, config: ConfigDict, data: Prepared) -> str:
    """Which orders that the student is not trained on its teacher may know, in words; empty: none.

    As far as the teacher's checkpoint names its days and hours: `source` and `trained_until` of what a training writes.
    """
    theirs = str(teacher.about.get("source") or "")
    if _WRITTEN not in theirs or re.search(rf"{_UNKNOWN}|\(\d+ days\)", theirs):
        return f"the checkpoint of {teacher.name} does not name all its days; it may know orders that are held out here"

    def shared(spans: Sequence[Span]) -> list[str]:
        return sorted({span.name for span in spans if re.search(rf"(?<!\w){re.escape(span.name)}(?!\w)", theirs)})

    found, until = [], _until(teacher)
    if whole := shared(data.split.held_out_symbols):
        found.append(f"{_short(whole)}, held out whole here")
    if days := shared(data.split.held_out):
        if until is None:
            found.append(f"{_short(days)}, at hours that its checkpoint does not name")
        elif times.of_clock(until) > times.of_clock(config.held_from):
            found.append(f"{_short(days)} until {until}, held out here from {config.held_from}")
        elif times.of_clock(until) > times.of_clock(config.validation_from):
            found.append(f"{_short(days)} until {until}, which here decide when to stop from {config.validation_from}")
    return f"{teacher.name} was trained on {'; on '.join(found)}" if found else ""


def teacher_facts(config: ConfigDict, teacher: Teacher | None, data: Prepared) -> dict[str, Any]:
    """Of the report and the checkpoint: who taught, how much, and what it may know; empty without a teacher."""
    if teacher is None:
        return {}
    return {"teacher": {"name": teacher.name, "sha256": order_model.parameters_hash(teacher.model),
                        "weight": teacher.weight, "temperature": teacher.temperature,
                        "source": str(teacher.about.get("source") or ""), "may_know": known_to(teacher, config, data)}}


def objective(teacher: Teacher | None) -> str:
    """What a step makes small, for a curve; empty where it is the loss on orders that came."""
    if teacher is None:
        return ""
    return f"{1 - teacher.weight:g} nats + {teacher.weight * teacher.temperature**2:g} divergence from the teacher"


def card_facts(config: ConfigDict, size: int, data: Prepared, facts: Mapping[str, Any]) -> dict[str, str]:
    """The lines of the card, by name; `facts` are those of the report."""
    taught, bins = facts.get("teacher"), "fitted on the orders before the held-out part, each day with the same weight"
    return {
        "made by": config.made_by, "data": f"{_short(data.names)}; {data.counts()}",
        "bins": f"those of the teacher, {taught['name']}" if taught else bins,
        **({"teacher": _of_teacher(taught)} if taught else {}),
        "size": f"{size:,} numbers, float32",
        "training": f"kept step {facts['best']['step']} of {facts['steps']}, {config.batch} windows of "
                    f"{config.context_length} orders a step, {facts['dtype']}, {facts['seconds']:.0f} s in all on "
                    f"{facts['device']}, JAX {facts['jax']}" + _told(facts),
        "parts": f"trained on orders before {config.validation_from}, stopped by those from there to "
                 f"{config.held_from}, " + "then trained as long on both (the losses of validation are those "
                 "before); " * bool(config.refit) + "held out from there on"}


def _of_teacher(taught: Mapping[str, Any]) -> str:
    leak = f". **Losses below may be too good: {taught['may_know']}**" if taught["may_know"] else ""
    return (f"{taught['name']} ({taught['source'] or _UNKNOWN}; SHA-256 of its numbers {taught['sha256']}), with "
            f"weight {taught['weight']:g} at temperature {taught['temperature']:g}{leak}")


def _told(facts: Mapping[str, Any]) -> str:
    """What the card says of the model's own futures."""
    if not (own := facts.get("own_futures")):
        return ""
    return (f"; in these {own['rounds']} rounds of its own futures, {own['orders']:,} orders in {own['seconds']:.0f} "
            f"s, held-out loss before them {own['held_out_before']:.3f}")


def _short(names: Sequence[str]) -> str:
    """Days, some of them where they are many."""
    return ", ".join(names if len(names) <= _MOST_NAMES else [*names[:3], f"... {names[-1]} ({len(names)} days)"])
