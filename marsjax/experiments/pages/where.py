"""Where futures start, as a page asks for it."""

import dataclasses

from marsjax.core import times
from marsjax.core.errors import InputError
from marsjax.experiments.pages.workshop import Workshop
from marsjax.studies import places
from marsjax.studies.order_model import PreparedModel
from marsjax.studies.places import Place

NOISE, REAL = "noise", "real day"


@dataclasses.dataclass(frozen=True)
class WhereAsk:
    """A start: orders of a day are played from its beginning (real days: `begin`) for the minutes of the warm-up."""

    source: str
    """A day that comes with the model (`places.MADE`), NOISE or REAL."""
    warm_up_minutes: int
    begin: str = ""
    """HH:MM:SS, of a real day."""
    day: str = ""
    """Name of a real day."""
    noise_seed: int = 0


def place(shop: Workshop, prepared: PreparedModel, model: str, ask: WhereAsk, minutes: int, accounts: int) -> Place:
    """The place that is asked for, from which `minutes` are to be simulated; InputError where there is none."""
    if ask.source in places.MADE:
        return places.in_made_day(prepared, places.made_day(model, ask.source), ask.warm_up_minutes, accounts)
    if ask.source == NOISE:
        return places.after_noise(prepared, ask.warm_up_minutes, ask.noise_seed, accounts)
    days = shop.days()
    if ask.day not in days:
        raise InputError(f"day: expected one of {', '.join(list(days)[:20]) or 'none'}, got {ask.day!r}")
    try:
        begin_ns = times.of_clock(ask.begin)
    except InputError as error:
        raise InputError(f"Start time: expected HH:MM:SS, as 10:00:00, got {ask.begin!r}") from error
    return places.in_real_day(prepared, days[ask.day], begin_ns, ask.warm_up_minutes, minutes, accounts)
