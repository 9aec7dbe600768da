"""What figures have in common: colours, plain axes, names at the ends of lines, ticks at times of day."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from marsjax.core.times import SECOND_NS

BEFORE, CAME, MIDDLE, INNER, OUTER, PATH = "#222222", "#c1272d", "#0b3c6f", "#4a90c4", "#b9d6ea", "#5b7083"
"""Of what was before, what really came, a median, bands of 50% and 90%, and single futures."""
BID, ASK = "#1b7837", "#b2182b"
_NAME_POINTS = 11
_TICK_MINUTES = (1, 2, 5, 10, 15, 30, 60, 120)
_MOST_TICKS = 10
_BREAK_MINUTES, _SHOWN_BREAK = 10, 7
_HOUR = 60


def plain(axes: Axes) -> None:
    """A light grid, no frame above and to the right."""
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def name_ends(axes: Axes, x: float, names: Sequence[tuple[float, str, str]]) -> None:
    """Writes names to the right of `x`, at their heights (y, text, colour) but never one upon another.

    The limits and the place of the axes must be final.
    """
    low, high = axes.get_ylim()
    points = axes.get_window_extent().height * 72 / axes.figure.dpi
    least = (high - low) * _NAME_POINTS / points
    kept = sorted(names)
    places = apart(np.clip([y for y, _, _ in kept], low, high), least)
    for (_, text, color), y in zip(kept, places, strict=True):
        axes.annotate(text, (x, y), xytext=(5, 0), textcoords="offset points", va="center", color=color,
                      fontsize="small", annotation_clip=False)


def apart(places: np.ndarray, least: float) -> np.ndarray:
    """Rising numbers [N], moved as little as it takes to lie `least` apart: the least squares fit, in their order."""
    target = np.asarray(places, float) - least * np.arange(len(places))
    blocks: list[tuple[float, int]] = []
    for value in target:
        mean, count = float(value), 1
        while blocks and blocks[-1][0] > mean:
            before, many = blocks.pop()
            mean, count = (before * many + mean * count) / (many + count), many + count
        blocks.append((mean, count))
    return np.concatenate([np.full(count, mean) for mean, count in blocks]) + least * np.arange(len(places)) if (
        blocks) else target


def round_times(begin_ns: int, end_ns: int) -> np.ndarray:
    """At most ten round times of day between two, int64 [N] nanoseconds since midnight; both ends if there are none."""
    steps = [int(10.0**power * digit) for power in range(9) for digit in (1, 2, 5)]
    steps += [seconds * SECOND_NS for seconds in (1, 2, 5, 10, 15, 30)]
    steps += [minutes * _HOUR * SECOND_NS for minutes in (*_TICK_MINUTES, 360)]
    every = next((each for each in steps if (end_ns - begin_ns) / each < _MOST_TICKS), steps[-1])
    found = np.arange(begin_ns + -begin_ns % every, end_ns + 1, every)
    return found if len(found) > 1 else np.array([begin_ns, end_ns])


def clock_ticks(axes: Axes, minutes: np.ndarray) -> np.ndarray:
    """Ticks at round times of day, and the beginning of each stretch of a session.

    Args:
      axes: whose horizontal axis it is.
      minutes: int [N], rising minutes of the day that are drawn.

    Returns where to draw them, float [N]: a break of more than ten minutes takes the room of a few.
    """
    place = _places(minutes)
    length = place[-1] - place[0]
    every = next((each for each in _TICK_MINUTES if length / each <= _MOST_TICKS), _TICK_MINUTES[-1])
    first = minutes[0] + -minutes[0] % every
    wanted = np.arange(first, minutes[-1] + 1, every)
    shown = wanted[np.isin(wanted, minutes)]
    if not len(shown):
        shown = minutes[[0, -1]]
    axes.set_xticks(place[np.searchsorted(minutes, shown)],
                    [f"{minute // _HOUR:02d}:{minute % _HOUR:02d}" for minute in shown.tolist()])
    return place


def mark_breaks(axes: Axes, minutes: np.ndarray, name: str = "") -> None:
    """Shades the breaks of a session, placed as by `clock_ticks`, and writes their name."""
    place = _places(minutes)
    for at in _breaks(minutes):
        axes.axvspan(place[at - 1] + 1, place[at], color="0.9", zorder=0, linewidth=0)
        axes.text((place[at - 1] + 1 + place[at]) / 2, 0.5, name, rotation=90, ha="center", va="center",
                  fontsize="x-small", color="0.5", transform=axes.get_xaxis_transform())


def _places(minutes: np.ndarray) -> np.ndarray:
    step = np.diff(minutes, prepend=minutes[:1])
    step[_breaks(minutes)] = _SHOWN_BREAK
    return np.cumsum(step).astype(float)


def _breaks(minutes: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.diff(minutes, prepend=minutes[:1]) > _BREAK_MINUTES)
