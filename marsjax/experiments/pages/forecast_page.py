"""The page of forecasts: a fan that fills while it runs, the labels, a book through time, files."""

from typing import Any

from marsjax.analysis.forecast import Move
from marsjax.experiments.pages import forecast_run, pieces, where
from marsjax.experiments.pages.forecast_run import ForecastAsk, ForecastResult
from marsjax.experiments.pages.workshop import Workshop
from marsjax.studies.futures import FuturesSpec

_KEY = "forecast"


def page(st: Any, shop: Workshop) -> None:
    """Draws the page; what was run stays in the session."""
    st.title("Forecast")
    st.markdown("Many futures of one market, each written order by order by the model and matched by an exchange. "
                "Their spread is the forecast.")
    pieces.framed(st, shop, _KEY, lambda: _parameters(st, pieces.common(st, shop, _KEY)),
                  pieces.Run(forecast_run.run, _show))


def _parameters(st: Any, chosen: pieces.Chosen) -> Any:
    """The other choices; returns what makes the request of them all, which may raise InputError."""
    left, right = st.columns(2)
    minutes = left.number_input("Total minutes", value=5, step=1, key=f"{_KEY}_minutes",
                                help="Simulated minutes of each rollout, from the start on")
    rollouts = right.number_input("Rollouts", value=32, step=16, key=f"{_KEY}_rollouts",
                                  help="Futures of this one start; 128 for good percentiles")
    seed = left.number_input("Seed", value=0, step=1, key=f"{_KEY}_seed", help="The same seed gives the same futures")
    traced = right.number_input("Kept whole", value=1, step=1, key=f"{_KEY}_traced",
                                help="Rollouts, the first ones, whose every order, trade and book is kept: 0 to "
                                     f"{forecast_run.MOST_TRACED}")
    with st.expander("More"):
        threshold = st.number_input("Flat within basis points", value=0.0, step=0.5, key=f"{_KEY}_threshold",
                                    help="Labels beyond are up or down; 0: so that a third of the past was flat")
        temperature = st.number_input("Temperature", value=1.0, step=0.1, key=f"{_KEY}_temperature",
                                      help="Of the model's draws; 1 as it was trained")
        is_adapted = chosen.where.source == where.REAL and st.checkbox(
            "Teach the model this day so far", key=f"{_KEY}_adapt",
            help="40 steps on the orders before the start: for symbols that it was not trained on")

    def make() -> ForecastAsk:
        futures = FuturesSpec(int(rollouts), int(minutes), int(seed), float(temperature))
        return ForecastAsk(chosen.model, chosen.device, chosen.where, futures, int(traced), float(threshold),
                           40 if is_adapted else 0)

    return make


def _show(st: Any, result: ForecastResult) -> None:
    facts, found = result.setting.facts, result.distribution
    (st.success if result.is_whole else st.warning)(result.summary)
    pieces.notes(st, result.notes)
    places = st.columns(5)
    for place, move in zip(places, Move, strict=False):
        share = found.probabilities[move]
        place.metric(f"P({move.name.lower()})", f"{share:.0%}" if found.count else "-", border=True)
    places[3].metric("Mean label", f"{found.mean * 1e4:+.2f} bp" if found.count else "-", border=True,
                     help="Change of the mean mid of the minutes ahead over the mid at the start")
    places[4].metric("Standard deviation", f"{found.standard_deviation * 1e4:.2f} bp" if found.count > 1 else "-",
                     border=True)
    st.image(result.pictures["fan"], width="stretch")
    unit = result.setting.unit
    st.caption(f"Start: {facts['market']} at {facts['time']}, mid {facts['mid'] * unit:g}, spread "
               f"{facts['spread'] * unit:g}, {facts['bids']:,} bids and {facts['asks']:,} asks rest, after "
               f"{facts['orders_before']:,} orders, of which the model sees {facts['orders_seen']:,}.")
    left, right = st.columns([3, 2])
    left.subheader("Label", divider="gray")
    if found.count:
        left.image(result.pictures["label"], width="stretch")
    else:
        left.info("No future had ended: there is no label yet.")
    right.subheader("Percentiles", divider="gray")
    right.dataframe(forecast_run.percentiles(result), hide_index=True)
    right.caption("The label of a future is the change of the mean mid of its minutes over the mid at the start.")
    st.subheader("Book through time", divider="gray")
    books = [name for name in result.pictures if name.startswith("depth_")]
    if books:
        shown = books[0]
        if len(books) > 1:
            shown = st.selectbox("Future", books, key=f"{_KEY}_book", format_func=lambda name: name.split("_")[1])
        st.image(result.pictures[shown], width="stretch")
    else:
        st.info("No rollout was kept whole: choose how many on the left.")
    pieces.downloads(st, result.files, _KEY)
