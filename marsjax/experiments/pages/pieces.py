"""Parts of pages: choices, errors in words, a run under way, pictures, downloads. `st` is Streamlit's module."""

import functools
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, NamedTuple

from marsjax.core.errors import InputError
from marsjax.experiments.pages import where
from marsjax.experiments.pages.files import png
from marsjax.experiments.pages.jobs import Job, Stage
from marsjax.experiments.pages.where import WhereAsk
from marsjax.experiments.pages.workshop import Workshop
from marsjax.studies import places

_NAMES = {
    "FuturesSpec.trajectories": "Rollouts", "FuturesSpec.minutes": "Total minutes", "FuturesSpec.seed": "Seed",
    "FuturesSpec.temperature": "Temperature", "ForecastAsk.traced": "Kept whole",
    "ForecastAsk.adapt_steps": "Adaptation steps", "LabelSpec.minutes": "Total minutes",
    "ExecutionSpec.ratios": "Volume ratios", "ExecutionSpec.after_minutes": "Minutes after it",
    "ExecutionSpec.sides": "Side", "NoiseMarket.seed": "Seed of the noise agent", "StrategySpec.strategy": "Strategy",
    "ControlSpec.every_s": "Seconds between looks", "ControlSpec.island": "Island", "ControlSpec.strength": "Weight",
    "FactsAsk.minutes": "Total minutes", "FactsAsk.days": "Days", "FactsAsk.resamples": "Resamples",
    "DetectionAsk.minutes": "Minutes of an interval", "DetectionAsk.first_time": "First interval",
    "DetectionAsk.last_time": "Last end", "DetectionAsk.clean_until": "Clean until",
    "DetectionAsk.inject_time": "Its first order", "DetectionAsk.content": "CSV of orders",
    "Manipulation.size": "Its shares", "Manipulation.seconds": "Its seconds",
    "minutes, first_time, last_time": "Minutes of an interval, First interval, Last end",
    "clean_until:": "Clean until:",
    **{f"{kind}.{field}": name for kind in ("EpisodeSpec", "MarketMakingSpec") for field, name in (
        ("steps", "Steps of an episode"), ("step_s", "Seconds of a step"), ("target", "Shares"), ("lot", "Lot"),
        ("most_lots", "Most lots"))},
    "config.train_steps": "Steps of the training", "config.rate": "Learning rate", "AgentTraining.seeds": "Agents",
    "AgentTraining.seed": "Seed", "MakerComparisonSpec.episodes": "Episodes", "ComparisonSpec.episodes": "Episodes",
    "LearningAsk.folder": "Agent's folder",
}
"""What the pages call the fields that errors name."""
_LIVE_S = 0.8
"""Between two looks of a page at a run under way."""
_DRAWN_SHARE, _LONGEST_S = 0.3, 2.0
"""Share of the time that is drawn while a run goes on, as both share the processor; the longest wait between two."""
_GONE_S = 20.0
"""After which a session that is not connected is not waited for any more."""
_SOURCES = {"default": "default day", "quiet": "quiet day", "busy": "busy day", where.NOISE: "noise agents",
            where.REAL: "real day"}


class Chosen(NamedTuple):
    """What every run asks for."""

    model: str
    device: str
    where: WhereAsk


class Run(NamedTuple):
    """What a page runs, and how it shows what came of it."""

    work: Callable[[Workshop, Any, Job[Any]], Any]
    show: Callable[[Any, Any], None]


def explained(error: Exception | str) -> str:
    """An error in one line, with the names that the pages have."""
    text = " ".join(str(error).split())
    for field, name in _NAMES.items():
        text = text.replace(field, name)
    return re.sub(r"\b(?:FuturesSpec|ExecutionSpec|StrategySpec)\.", "", text)


def framed(st: Any, shop: Workshop, key: str, parameters: Callable[[], Any], page: "Run") -> None:
    """What every page does below its title: choices, a button, the run under way, and what it came to.

    `parameters` draws the choices and returns what makes a request of them, None where one of them cannot be.
    """
    job: Job[Any] | None = st.session_state.get(key)
    with st.sidebar:
        make = asked(st, parameters)
        is_asked = run_button(st, key, job)
    if is_asked:
        job = begun(st, shop, key, make, lambda ask: functools.partial(page.work, shop, ask))
    if job is None:
        how_to_begin(st, is_asked)
    elif job.stage != Stage.OVER:
        under_way(st, shop, key, job)
    elif (result := outcome(st, job)) is not None:
        page.show(st, result)


def common(st: Any, shop: Workshop, key: str) -> Chosen:
    """The choices of model, device and start, in the order of a form."""
    model, device = model_and_device(st, shop, key)
    return Chosen(model, device, start(st, shop, model, key))


def model_and_device(st: Any, shop: Workshop, key: str) -> tuple[str, str]:
    """The choices of both, by name."""
    model = st.selectbox("Model", shop.settings.models, key=f"{key}_model", format_func=short,
                         help="Those named by --model when the dashboard was started")
    return str(model), str(st.selectbox("Device", list(shop.devices), key=f"{key}_device"))


def short(model: str) -> str:
    """A model's name: of a long path its end."""
    return "/".join(Path(model).parts[-2:])


def start(st: Any, shop: Workshop, model: str, key: str) -> WhereAsk:
    """The choice of a start."""
    sources = [*places.MADE, where.NOISE, *([where.REAL] if shop.settings.feed else [])]
    source = st.selectbox("Start", sources, key=f"{key}_source", format_func=lambda name: _SOURCES[name],
                          help="Days that the model wrote; a market that noise agents made; real days, if the "
                          "dashboard is started with --data and --feed")
    if source == where.REAL:
        return _real(st, shop, key)
    if source == where.NOISE:
        minutes = st.number_input("Warm-up minutes", value=30, step=5, key=f"{key}_noise_minutes",
                                  help="Minutes from 09:30:00 in which the noise agent alone makes the market")
        seed = st.number_input("Seed of the noise agent", value=0, step=1, key=f"{key}_noise_seed")
        return WhereAsk(source, int(minutes), noise_seed=int(seed))
    most = places.warm_up_of(places.made_day(model, source))
    minutes = st.number_input("Warm-up minutes", value=most, step=1, key=f"{key}_{source}_minutes",
                              help=f"Minutes of the day's orders, from its first one on, before the start: 1 to {most}")
    return WhereAsk(source, int(minutes))


def _real(st: Any, shop: Workshop, key: str) -> WhereAsk:
    days = shop.days()
    symbols = sorted({day.symbol for day in days.values()})
    symbol = st.selectbox("Symbol", symbols, key=f"{key}_symbol")
    dates = sorted(name for name, day in days.items() if day.symbol == symbol)
    name = st.selectbox("Date", dates, key=f"{key}_date", format_func=lambda each: days[each].date or each)
    begin = st.text_input("Start time", "10:00:00", key=f"{key}_begin",
                          help="HH:MM:SS. The day is replayed from its first order on; the warm-up begins here")
    minutes = st.number_input("Warm-up minutes", value=30, step=5, key=f"{key}_real_minutes",
                              help="Minutes of real orders from the start time on before the model takes over")
    return WhereAsk(where.REAL, int(minutes), begin.strip(), name)


def asked(st: Any, make: Callable[[], Any]) -> Any:
    """What the page asks for, or None; a number or word that cannot be is explained in the page."""
    try:
        return make()
    except (InputError, OSError) as error:
        st.error(explained(error), icon=":material/error:")
        return None


def wanted(st: Any) -> Callable[[], bool]:
    """Whether the session that asks now is still there; one that is gone for some seconds is not."""
    runtime, context = st.runtime, st.runtime.scriptrunner.get_script_run_ctx()
    if context is None or not runtime.exists():
        return lambda: True
    session, seen = context.session_id, [time.monotonic()]

    def is_there() -> bool:
        server = runtime.get_instance() if runtime.exists() else None
        if server is None or server.state.name in ("STOPPING", "STOPPED"):
            return False
        if server.is_active_session(session):
            seen[0] = time.monotonic()
        return time.monotonic() - seen[0] < _GONE_S

    return is_there


def run_button(st: Any, key: str, job: Job[Any] | None) -> bool:
    """The button that begins a run; it rests while one of this page goes on."""
    is_busy = job is not None and job.stage != Stage.OVER
    return bool(st.button("Run", type="primary", key=f"{key}_run", disabled=is_busy, width="stretch"))


def begun(st: Any, shop: Workshop, key: str, make: Callable[[], Any] | None,
          work: Callable[[Any], Callable[[Job[Any]], Any]]) -> Job[Any] | None:
    """Begins the run that the page asks for, in the place of the last one; None where it cannot be.

    Args:
      st: Streamlit.
      shop: whose queue it waits in.
      key: of the page.
      make: the request, or None where the page has already said why there is none.
      work: of a request.
    """
    ask = asked(st, make) if make else None
    st.session_state[key] = None
    if ask is None:
        return None
    st.session_state[key] = Job(wanted(st)).submit(shop.queue(ask.device), work(ask))
    st.rerun()  # so that the button rests
    return None


def how_to_begin(st: Any, is_asked: bool) -> None:
    """What to do where nothing has been run; nothing after a request that could not be."""
    if not is_asked:
        st.info("Choose on the left, then press Run. The first run of such sizes compiles, which takes up to a minute "
                "on a CPU; the next ones begin at once.", icon=":material/arrow_back:")


def under_way(st: Any, shop: Workshop, key: str, job: Job[Any]) -> None:
    """A run that goes on: its progress, a stop button and what there is of it so far, until it is over."""
    painter = _Painter(shop.painter)

    @st.fragment(run_every=_LIVE_S)  # type: ignore[misc]
    def live() -> None:
        stage = job.stage
        if stage == Stage.OVER:
            st.rerun()
        said = "waiting: another run has the device" if stage == Stage.WAITING else job.said or "beginning"
        bar, button = st.columns([6, 1], vertical_alignment="center")
        bar.progress(min(max(job.share, 0.0), 1.0), text="stopping after this chunk" if job.is_stopping else said)
        button.button("Stop", key=f"{key}_stop", on_click=job.stop, width="stretch",
                      disabled=job.is_stopping or job.share >= 1)
        if (picture := painter.picture(job.latest)) is not None:
            st.image(picture, width="stretch")

    live()


class _Painter:
    """Draws what there is of a run in another thread: a page that waits for a picture would fade meanwhile."""

    def __init__(self, thread: Executor) -> None:
        self._thread = thread
        self._drawing: Future[tuple[bytes | None, float]] | None = None
        self._of: Any = None
        self._picture: bytes | None = None
        self._next_s = 0.0

    def picture(self, latest: Any) -> bytes | None:
        """The newest picture that is done; asks for one of `latest` if it is new and it is time."""
        if self._drawing is not None and self._drawing.done():
            found, took_s = self._drawing.result()
            self._picture, self._drawing = found or self._picture, None
            self._next_s = time.monotonic() + min(took_s * (1 / _DRAWN_SHARE - 1), _LONGEST_S)
        if self._drawing is None and latest is not None and latest is not self._of and time.monotonic() > self._next_s:
            self._of, self._drawing = latest, self._thread.submit(_drawn, latest)
        return self._picture


def _drawn(latest: Any) -> tuple[bytes | None, float]:
    """A picture, and the seconds that it took."""
    began = time.monotonic()
    return png(latest.figure, dpi=100), time.monotonic() - began


def outcome(st: Any, job: Job[Any]) -> Any:
    """The result of a run that is over, or None; why there is none stands in the page."""
    result, why = job.outcome()
    if result is None:
        st.error(explained(why), icon=":material/error:")
    return result


def notes(st: Any, lines: Sequence[str]) -> None:
    """What there is to know of a result."""
    for line in lines:
        st.warning(explained(line), icon=":material/info:")


def downloads(st: Any, files: Mapping[str, bytes], key: str, columns: int = 5) -> None:
    """A button for each file."""
    st.subheader("Download", divider="gray")
    row = st.columns(columns)
    for number, (name, data) in enumerate(files.items()):
        row[number % columns].download_button(name, data, name, key=f"{key}_{name}", on_click="ignore",
                                              icon=":material/download:", width="stretch")
