"""Records of numbers, text and arrays as JSON."""

import enum
import json
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np


def json_text_of(record: Mapping[str, Any], unwrapped: Callable[[Any], Any] = lambda value: value,
                 indent: int | None = 2) -> str:
    """A record as JSON; arrays become lists, numbers that are not finite (JSON has none) become null.

    Args:
      record: of numbers, text, arrays, members of enums (their names), paths, and lists and mappings of them.
      unwrapped: what is applied to every value first, so that it is one of these.
      indent: of its lines; None: all in one line.

    Raises TypeError with the key of a value that has no form in JSON.
    """
    return json.dumps(_plain(record, "", unwrapped), indent=indent, allow_nan=False, ensure_ascii=False) + "\n"


def _plain(value: Any, key: str, unwrapped: Callable[[Any], Any]) -> Any:
    value = unwrapped(value)
    if isinstance(value, np.generic | np.ndarray | jax.Array):
        value = np.asarray(value).tolist()
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, Mapping):
        return {str(name): _plain(item, f"{key}.{name}".lstrip("."), unwrapped) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{key}[{index}]", unwrapped) for index, item in enumerate(value)]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, pathlib.PurePath):
        return str(value)
    raise TypeError(f"write_json: {key}: expected numbers, text, arrays, lists or dicts, got {type(value).__name__}")
