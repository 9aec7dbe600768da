"""The page of market impact: volume done against the target, price with and without, impact against size, files."""

from typing import Any

from marsjax.experiments.pages import impact_run, pieces
from marsjax.experiments.pages.impact_run import ImpactAsk, ImpactResult
from marsjax.experiments.pages.workshop import Workshop
from marsjax.studies import executions
from marsjax.studies.executions import ExecutionSpec, StrategySpec
from marsjax.studies.futures import FuturesSpec

_KEY = "impact"
_SIDES = {"buy": ("buy",), "sell": ("sell",), "both": ("buy", "sell")}
_HEADINGS = {"volume": "Volume done against the target", "price": "Price with and without the execution",
             "impact": "Impact against size, and minute by minute"}


def page(st: Any, shop: Workshop) -> None:
    """Draws the page; what was run stays in the session."""
    st.title("Market impact")
    st.markdown("The same markets twice, of the same random numbers: without an execution and with it. What differs is "
                "its doing. The targets are shares of the mean volume without it.")
    pieces.framed(st, shop, _KEY, lambda: _parameters(st, pieces.common(st, shop, _KEY)),
                  pieces.Run(impact_run.run, _show))


def _parameters(st: Any, chosen: pieces.Chosen) -> Any:
    """The other choices; returns what makes the request of them all, which may raise InputError."""
    left, right = st.columns(2)
    strategy = left.selectbox("Strategy", list(executions.STRATEGIES), key=f"{_KEY}_strategy")
    side = right.selectbox("Side", list(_SIDES), key=f"{_KEY}_side")
    ratios = st.text_input("Volume ratios", "0.1, 0.3, 0.5", key=f"{_KEY}_ratios",
                           help="Targets over the mean volume of the same minutes without the execution")
    left, right = st.columns(2)
    minutes = left.number_input("Total minutes", value=5, step=1, key=f"{_KEY}_minutes",
                                help="Simulated minutes of the execution, from the start on")
    after = right.number_input("Minutes after it", value=0, step=1, key=f"{_KEY}_after",
                               help="That the rollouts go on, to see the impact decay")
    rollouts = left.number_input("Rollouts", value=16, step=8, key=f"{_KEY}_rollouts",
                                 help="Of each side and ratio, and as many and as many again without; 100 for narrow "
                                      "intervals")
    seed = right.number_input("Seed", value=0, step=1, key=f"{_KEY}_seed", help="The same seed gives the same markets")

    def make() -> ImpactAsk:
        spec = ExecutionSpec(StrategySpec(strategy), FuturesSpec(int(rollouts), int(minutes), int(seed)), seeds=1,
                             sides=_SIDES[side], ratios=impact_run.ratios_of(ratios), after_minutes=int(after))
        return ImpactAsk(chosen.model, chosen.device, chosen.where, spec)

    return make


def _show(st: Any, result: ImpactResult) -> None:
    (st.success if result.is_whole else st.warning)(result.summary)
    pieces.notes(st, result.notes)
    st.dataframe(impact_run.table_of(result.rows), hide_index=True)
    st.caption(f"Start: {result.start}. Means with 95% intervals over rollouts, in brackets; bp are basis points of "
               "the mid at the start, against the same market without the execution.")
    for name, heading in _HEADINGS.items():
        st.subheader(heading, divider="gray")
        st.image(result.pictures[name], width="stretch")
        if name == "impact":
            st.caption("; ".join(result.laws))
    pieces.downloads(st, result.files, _KEY)
