"""Checks of the specs of studies."""

from marsjax.core import limits


def check_numbers(spec: object, **ranges: tuple[int, int]) -> None:
    """InputError that names the first field which is no whole number of its range, the last included."""
    for name, (low, high) in ranges.items():
        limits.check_whole(f"{type(spec).__name__}.{name}", getattr(spec, name), low, high)
