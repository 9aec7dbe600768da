"""The page of stylized facts: verdicts, figures, files."""

from typing import Any

from marsjax.analysis import fact_plots
from marsjax.experiments.pages import facts_run, pieces
from marsjax.experiments.pages.facts_run import FactsAsk, FactsResult
from marsjax.experiments.pages.workshop import Workshop
from marsjax.studies import places

_KEY = "facts"
_COLUMNS = 3


def page(st: Any, shop: Workshop) -> None:
    """Draws the page; what was run stays in the session."""
    st.title("Stylized facts")
    st.markdown("Returns of real markets have much in common (Cont 2001). Which of these eleven facts do minute bars "
                "of the model's markets show?")
    pieces.framed(st, shop, _KEY, lambda: _parameters(st, shop), pieces.Run(facts_run.run, _show))


def _parameters(st: Any, shop: Workshop) -> Any:
    """The choices; returns what makes the request of them all, which may raise InputError."""
    model, device = pieces.model_and_device(st, shop, _KEY)
    kinds = ["days that the model wrote", *(["real days"] if shop.settings.feed else [])]
    is_real = st.selectbox("Bars of", kinds, key=f"{_KEY}_kind") == "real days"
    known = list(shop.days()) if is_real else list(places.MADE)
    days = st.multiselect("Days", known, known[:1] if is_real else known, key=f"{_KEY}_days_{is_real}",
                          help="Of real days their stretches, too. Those of one symbol are put together")
    left, right = st.columns(2)
    minutes = left.number_input("Total minutes", value=26, step=1, key=f"{_KEY}_minutes",
                                help="Bars of a rollout, at least 3; the facts look at lags of up to 20 minutes")
    rollouts = right.number_input("Rollouts", value=16, step=8, key=f"{_KEY}_rollouts",
                                  help="Of each day; of a real day of each stretch, 0 for none")
    seed = left.number_input("Seed", value=0, step=1, key=f"{_KEY}_seed", help="The same seed gives the same futures")
    resamples = right.number_input("Resamples", value=200, step=100, key=f"{_KEY}_resamples", help="Of the bootstrap")

    def make() -> FactsAsk:
        return FactsAsk(model, device, () if is_real else tuple(days), tuple(days) if is_real else (), int(minutes),
                        int(rollouts), int(seed), int(resamples))

    return make


def _show(st: Any, result: FactsResult) -> None:
    (st.success if result.is_whole else st.warning)(result.summary)
    pieces.notes(st, result.notes)
    for source, counts in result.counts.items():
        for place, (answer, count) in zip(st.columns(len(counts)), counts.items(), strict=True):
            place.metric(f"{source}: {answer}", count, border=True)
    st.image(result.pictures["verdicts"], width="stretch")
    st.caption("Green is present, red absent, grey cannot be told from so few rollouts. The effect is what is left "
               "after that of Gaussian returns in the same rollouts; an arrow points to one beyond the picture.")
    with st.expander("Verdicts in numbers"):
        st.markdown("\n".join(result.table))
    st.subheader("The eleven facts", divider="gray")
    names = [f"fact_{fact:02d}" for fact in fact_plots.FACTS]
    for first in range(0, len(names), _COLUMNS):
        for place, name in zip(st.columns(_COLUMNS), names[first : first + _COLUMNS], strict=False):
            place.image(result.pictures[name], width="stretch")
    pieces.downloads(st, result.files, _KEY)
