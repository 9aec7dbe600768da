"""Checks of the specs of studies."""


from marsjax.core.errors import InputError


def check_least(spec: object, **least: int) -> None:
    """InputError that names the first field which is below its least value."""
    for name, low in least.items():
        if getattr(spec, name) < low:
            raise InputError(f"{type(spec).__name__}.{name}: expected at least {low}, got {getattr(spec, name)}")
