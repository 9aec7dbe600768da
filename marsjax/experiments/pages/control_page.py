"""The page of controlled futures: what is wanted, both kinds of futures beside each other, fit and cost, files."""

from typing import Any

from marsjax.experiments.pages import control_run, pieces
from marsjax.experiments.pages.control_run import WORDS, ControlAsk, ControlResult
from marsjax.experiments.pages.workshop import Workshop
from marsjax.sim.control import ControlSpec, scenarios
from marsjax.studies.futures import FuturesSpec

_KEY = "control"
_WAYS = {"resample": "those that fit are copied", "batch": "each is told its next orders", "both": "told, and copied"}


def page(st: Any, shop: Workshop) -> None:
    """Draws the page; what was run stays in the session."""
    st.title("Control")
    st.markdown("Futures that follow a scenario, while all orders still answer to one another: every minute those that "
                "fit are copied into the places of those that do not, or each is told what its next orders are to be. "
                "Beside them as many that are left alone.")
    pieces.framed(st, shop, _KEY, lambda: _parameters(st, pieces.common(st, shop, _KEY)),
                  pieces.Run(control_run.run, _show))


def _parameters(st: Any, chosen: pieces.Chosen) -> Any:
    """The other choices; returns what makes the request of them all, which may raise InputError."""
    scenario = st.selectbox("Scenario", [*scenarios.SCENARIOS, WORDS], key=f"{_KEY}_scenario",
                            help="What the mid, or the market, is to do; or a sentence of your own")
    text, strength = "", 0.0
    if scenario == WORDS:
        text = st.text_input("In words", "drop 0.2% in 3 minutes, then recover half", key=f"{_KEY}_text",
                             help="Moves, recoveries, holds, and levels as: volume twice")
    else:
        strength = st.number_input("Strength", value=0.0, step=5.0, key=f"{_KEY}_strength",
                                   help="Basis points of drop, rise and reversal; of the others a multiple of the "
                                        "usual; 0: 30 basis points, or a usual multiple")
    way = st.selectbox("Way", list(_WAYS), key=f"{_KEY}_way", format_func=lambda name: f"{name}: {_WAYS[name]}",
                       help="batch and both need a model whose checkpoint has an order-batch model and an ensemble")
    left, right = st.columns(2)
    minutes = left.number_input("Total minutes", value=5, step=1, key=f"{_KEY}_minutes",
                                help="Simulated minutes of each rollout, from the start on")
    rollouts = right.number_input("Rollouts", value=64, step=64, key=f"{_KEY}_rollouts",
                                  help="Of each kind; among few there may be none that fits")
    seed = left.number_input("Seed", value=0, step=1, key=f"{_KEY}_seed", help="The same seed gives the same futures")
    every_s = right.number_input("Seconds between looks", value=60, step=15, key=f"{_KEY}_every",
                                 help="Between two times at which futures are chosen")
    with st.expander("More"):
        island = st.number_input("Island", value=0, step=8, key=f"{_KEY}_island",
                                 help="Futures among which copies are made; 0: all. Islands are independent")
        weight = st.number_input("Weight", value=1.0, step=0.25, key=f"{_KEY}_weight",
                                 help="Of the target: below 1 looser, above 1 tighter")

    def make() -> ControlAsk:
        futures = FuturesSpec(int(rollouts), int(minutes), int(seed))
        how = ControlSpec(int(every_s), int(island), float(weight), way=way)
        return ControlAsk(chosen.model, chosen.device, chosen.where, futures, how, scenario, float(strength), text)

    return make


def _show(st: Any, result: ControlResult) -> None:
    (st.warning if result.notes else st.success)(result.summary)
    pieces.notes(st, result.notes)
    st.image(result.picture, width="stretch")
    st.dataframe(result.table, hide_index=True)
    for line in result.said:
        st.caption(line[0].upper() + line[1:] + ".")
    st.caption(result.remark)
    pieces.downloads(st, result.files, _KEY)
