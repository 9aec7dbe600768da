"""The error that is meant for users, and how it shows what it found."""

import numpy as np


class InputError(ValueError):
    """What came from outside does not fit: a file, a config, a checkpoint, an argument, an agent.

    The message names the file, row or key, the value, what was expected, and what to do. Programs show it as one line;
    any other `ValueError` is a fault of marsjax and keeps its traceback.

    Examples:
      >>> import marsjax
      >>> try:
      ...     marsjax.MarketSpec(capacity=0)
      ... except marsjax.InputError as error:
      ...     print(error)
      MarketSpec.capacity: expected 1 to 131072, got 0
    """


def brief(value: object, most: int = 80) -> str:
    """A value from outside, or the message of a library's error, as one line of at most `most` characters.

    Text and numbers are shown as Python writes them, arrays and containers by their kind and size alone: what lies
    inside may be nested so deep, or be so large, that writing it out fails.

    Examples:
      >>> brief("a long text " * 20, most=20)
      "'a long text a lo..."
    """
    if isinstance(value, BaseException):
        text = " ".join(str(value)[: 8 * most].split()) or type(value).__name__
    elif isinstance(value, str | bytes):
        text = repr(value[:most])
    elif isinstance(value, int) and value.bit_length() > 4 * most:
        text = f"an integer of {value.bit_length()} bits"
    elif value is None or isinstance(value, int | float | np.generic):
        text = repr(value)
    elif isinstance(value, np.ndarray):
        text = f"{value.dtype} {list(value.shape)}"
    else:
        size = f" of {len(value)}" if isinstance(value, list | tuple | dict) else ""
        text = f"a {type(value).__name__}{size}"
    text = "".join(letter if letter.isprintable() else "?" for letter in text[: most + 1])
    return text if len(text) <= most else f"{text[: most - 3]}..."
