"""The error that is meant for users."""


class InputError(ValueError):
    """What came from outside does not fit: a file, a config, a checkpoint, an argument, an agent.

    The message names the file, row or key, the value, what was expected, and what to do. Programs show it as one line;
    any other `ValueError` is a fault of marsjax and keeps its traceback.
    """
