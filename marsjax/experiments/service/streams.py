"""What is told of futures as bytes: lines of JSON, or an Arrow stream."""

from typing import Any, Protocol

import numpy as np

from marsjax.core.json_text import json_text_of
from marsjax.experiments.service import bodies
from marsjax.experiments.service.arrow_tables import ArrowStream
from marsjax.experiments.service.refusals import RefusedError
from marsjax.observers.market_tables import Table
from marsjax.studies.service.whole_futures import Told


class Encoder(Protocol):
    """Of one answer."""

    def encoded(self, one: Told) -> bytes:
        """The next bytes; may be none."""


class JsonLines:
    """A line for everything told: `kind` and the facts, of a part with rows also `rows`, columns by their names."""

    def encoded(self, one: Told) -> bytes:
        """The line."""
        record: dict[str, Any] = {"kind": one.kind} | one.facts
        if one.rows:
            record["rows"] = _lists(one.rows)
        return json_text_of(record, indent=None).encode()


def encoder_of(accept: str) -> tuple[str, Encoder]:
    """The media type that an Accept header asks for, and its encoder; RefusedError (406) for one that is not made."""
    names = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    for name in names:
        if name == bodies.ARROW:
            return name, ArrowStream()
        if name in ("", "*/*", "application/*", bodies.LINES, bodies.JSON):
            return bodies.LINES, JsonLines()
    raise RefusedError(406, f"expected accept {bodies.LINES} or {bodies.ARROW}")


def broken_off(refused: RefusedError) -> Told:
    """What ends a stream that has begun."""
    return Told("error", {"status": refused.status, "error": str(refused)})


def _lists(rows: Table) -> dict[str, list[Any]]:
    """Columns as lists, with None where there is no value."""
    return {name: np.ma.masked_array(column).tolist() for name, column in rows.items()}
