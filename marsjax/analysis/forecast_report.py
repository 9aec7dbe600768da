"""A forecast as a record for files, and as text."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from marsjax.analysis.forecast import Distribution, Move


def record(result: Distribution) -> dict[str, Any]:
    """The distribution as plain numbers, counts and probabilities by class."""
    names = [move.name.lower() for move in Move]
    return dataclasses.asdict(result) | {"counts": dict(zip(names, result.counts, strict=True)),
                                         "probabilities": dict(zip(names, result.probabilities, strict=True))}


def lines(result: Distribution, threshold: float, realized: Mapping[str, Any] | None) -> list[str]:
    """The distribution as text, and what really came (its `label` and `class`), if that is known."""
    quantiles = ", ".join(f"{level:.0%} {value * 1e4:+.3f}" for level, value in result.quantiles.items())
    shares = ", ".join(f"P({move.name.lower()}) {p:.3f}" for move, p in zip(Move, result.probabilities, strict=True))
    found = [f"{result.count} labels ({result.without} trajectories without one): mean {result.mean * 1e4:+.3f} bp, "
             f"standard deviation {result.standard_deviation * 1e4:.3f} bp; quantiles in bp: {quantiles}",
             f"{shares} by a threshold of {threshold * 1e4:.3f} bp"]
    if realized:
        label = "none, no order came" if realized["class"] is None else (f"{realized['label'] * 1e4:+.3f} bp, "
                                                                          f"{realized['class'].lower()}")
        found.append(f"what came: {label}")
    return found
