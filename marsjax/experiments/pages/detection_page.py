"""The page of detection: a day with its alarms, the table by interval, files."""

from typing import Any

from marsjax.experiments.pages import detection_run, pieces
from marsjax.experiments.pages.detection_run import FILE, MADE, REAL, DetectionAsk, DetectionResult
from marsjax.experiments.pages.workshop import Workshop
from marsjax.studies import manipulations, places
from marsjax.studies.manipulations import Manipulation

_KEY = "detection"
_NOBODY = "nobody"


def page(st: Any, shop: Workshop) -> None:
    """Draws the page; what was run stays in the session."""
    st.title("Detection")
    st.markdown("Which minutes of a day does the order model not account for? Before each interval it writes futures; "
                "what really came is ranked among them. An alarm is no proof of anything.")
    pieces.framed(st, shop, _KEY, lambda: _parameters(st, shop), pieces.Run(detection_run.run, _show))


def _parameters(st: Any, shop: Workshop) -> Any:
    """The choices; returns what makes the request of them all, which may raise InputError."""
    model, device = pieces.model_and_device(st, shop, _KEY)
    kinds = [MADE, *([REAL] if shop.settings.feed else []), FILE]
    source = st.selectbox("Day from", kinds, key=f"{_KEY}_source",
                          help="Days that the model wrote; real days, if the dashboard is started with --data and "
                               "--feed; a CSV of orders of your own, in the form of the feed csv")
    day, content = _day(st, shop, source)
    left, right = st.columns(2)
    minutes = left.number_input("Minutes of an interval", value=2, step=1, key=f"{_KEY}_minutes")
    rollouts = right.number_input("Rollouts", value=24, step=8, key=f"{_KEY}_rollouts",
                                  help="Futures of each interval: with fewer than 19 no alarm at 0.05 is possible")
    first = left.text_input("First interval", "", key=f"{_KEY}_first", help="HH:MM:SS; empty: the second of the day")
    last = right.text_input("Last end", "", key=f"{_KEY}_last", help="HH:MM:SS; empty: the end of the day")
    clean = left.text_input("Clean until", "", key=f"{_KEY}_clean",
                            help="HH:MM:SS: intervals up to here are known to be clean, and the others are ranked "
                                 "among them, which a real day needs; empty: none are")
    seed = right.number_input("Seed", value=0, step=1, key=f"{_KEY}_seed", help="The same seed gives the same futures")
    who = st.selectbox("Put into the day", [_NOBODY, *manipulations.KINDS], key=f"{_KEY}_inject",
                       help="A manipulator whose truth is known; nobody in a recorded day reacts to it")
    inject = None if who == _NOBODY else _manipulator(st)
    is_adapted = source != MADE and st.checkbox(
        "Teach the model this day so far", key=f"{_KEY}_adapt",
        help="40 steps on the orders before the first interval: for symbols that it was not trained on")

    def make() -> DetectionAsk:
        found = Manipulation(who, *inject[1:]) if inject else None
        return DetectionAsk(model, device, source, day, int(minutes), int(rollouts), int(seed), first.strip(),
                            last.strip(), clean.strip(), found, inject[0] if inject else "", 40 if is_adapted else 0,
                            content)

    return make


def _day(st: Any, shop: Workshop, source: str) -> tuple[str, bytes]:
    """A day's name, and of a file its bytes."""
    if source == FILE:
        given = st.file_uploader("CSV of orders", type=["csv"], key=f"{_KEY}_file")
        return (given.name, given.getvalue()) if given else ("", b"")
    names = list(shop.days()) if source == REAL else list(places.MADE)
    return str(st.selectbox("Day", names, key=f"{_KEY}_day_{source == REAL}")), b""


def _manipulator(st: Any) -> tuple[str, int, int, str]:
    """Time, shares, seconds and direction of a manipulation."""
    left, right = st.columns(2)
    at = left.text_input("Its first order", "", key=f"{_KEY}_inject_time",
                         help="HH:MM:SS; empty: in the middle interval that is not clean")
    size = right.number_input("Its shares", value=10_000, step=1_000, key=f"{_KEY}_inject_size",
                              help="Of the false orders, of the pump, or traded with itself")
    seconds = left.number_input("Its seconds", value=60, step=10, key=f"{_KEY}_inject_seconds")
    direction = right.selectbox("Direction", ["buy", "sell"], key=f"{_KEY}_inject_direction",
                                help="buy drives the price up, sell down")
    return at.strip(), int(size), int(seconds), direction


def _show(st: Any, result: DetectionResult) -> None:
    (st.warning if result.notes else st.success)(result.summary)
    pieces.notes(st, result.notes)
    st.image(result.picture, width="stretch")
    st.subheader("Report", divider="gray")
    st.text("\n".join(result.said))
    st.subheader("By interval", divider="gray")
    st.dataframe(result.table, hide_index=True)
    st.caption("p is the rank of an interval's distance among its futures, or among intervals that are known to be "
               "clean. Among futures it is right in the model's own markets alone. intervals.csv has all 19 numbers.")
    pieces.downloads(st, result.files, _KEY)
