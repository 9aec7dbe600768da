"""The first page: what this is, on which device, which model, and what the other pages do."""

from typing import Any

from marsjax.experiments.pages import pieces
from marsjax.experiments.pages.workshop import Workshop
from marsjax.studies import order_model

_PAGES = {
    "Forecast": "From a state of a market, many futures; their fan while it fills, the probabilities of down, flat and "
                "up, and the book of single ones through time.",
    "Control": "Futures that follow a scenario or a sentence, beside as many that are left alone.",
    "Market impact": "The same markets with and without an execution: what it got done, what the price did, and how "
                     "that grows with the size.",
    "Stylized facts": "Cont's eleven facts of returns: which of them the model's markets show, with intervals.",
    "Detection": "A day, with or without a manipulator in it: which of its minutes the model's futures do not account "
                 "for.",
    "Learning": "A small agent that learns to execute an order or to make a market, beside rules in the same episodes.",
}
_COLUMNS = 3


def page(st: Any, shop: Workshop) -> None:
    """Draws the page."""
    st.title("marsjax")
    st.markdown("##### Whole financial markets on an accelerator: a model writes the orders, an exchange matches them, "
                "and thousands of such markets run at once.")
    device, model = st.columns([2, 3])
    with device.container(border=True):
        st.markdown("**Device**")
        st.markdown("\n".join(f"- {name}" for name in shop.devices))
    with model.container(border=True):
        st.markdown("**Model**")
        name = shop.settings.models[0]
        said = pieces.asked(st, lambda: order_model.headline(
            shop.model(name, next(iter(shop.devices))), pieces.short(name)))
        if said:
            about, _, loss = said.partition("; ")
            st.markdown(f"{about[0].upper()}{about[1:]}.  \n{loss[0].upper()}{loss[1:]}.")
    st.subheader("Pages", divider="gray")
    places = [place for _ in range(0, len(_PAGES), _COLUMNS) for place in st.columns(_COLUMNS)]
    for place, (title, about) in zip(places, _PAGES.items(), strict=True):
        with place.container(border=True):
            st.markdown(f"**{title}**  \n{about}")
    st.subheader("Where futures start", divider="gray")
    real = (f"- Real days of `{shop.settings.data}` ({shop.settings.feed}): a symbol, a date, a start time."
            if shop.settings.feed else
            "- Real days of your own: start the dashboard with `--data FOLDER --feed NAME`.")
    st.markdown("- Days that the model wrote and that come with it: default, quiet, busy. No order of an exchange is "
                f"in them.\n- A market that noise agents alone have made, thin and wild.\n{real}")
    st.caption("Nothing here is advice on investments. What the model has learnt, and what it has not, stands in its "
               "card beside its files.")
