"""What the dashboard was started with."""

import dataclasses
import json
from collections.abc import Sequence

from marsjax.core.errors import InputError


@dataclasses.dataclass(frozen=True)
class Settings:
    """Made by the program, read by the script: the one word of its command line, in JSON."""

    models: tuple[str, ...] = ("default",)
    """Names of the order models to choose from, the first one chosen."""
    feed: str = ""
    """Kind of the feed whose days can be started from; empty: none can."""
    data: str = ""
    """Its folder, or its file."""
    version: str = ""
    """Of marsjax, for the files of results."""

    @classmethod
    def of_words(cls, words: Sequence[str]) -> "Settings":
        """From a command line without its program, JSON of the fields; none: the defaults. InputError for others."""
        if not words:
            return cls()
        try:
            found = json.loads(words[0])
            return cls(**found | {"models": tuple(found["models"])})
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"dashboard: expected settings in JSON, got {words[0][:80]!r}: start it by python -m "
                             "marsjax.experiments.dashboard") from error
