"""The script that Streamlit runs, anew for every click: `python -m marsjax.experiments.dashboard` starts it."""

import importlib
import sys
from collections.abc import Callable
from typing import Any

from marsjax.experiments.pages.settings import Settings
from marsjax.experiments.pages.workshop import Workshop

_PAGES = {"home": ("Home", ":material/home:"), "forecast": ("Forecast", ":material/show_chart:"),
          "control": ("Control", ":material/alt_route:"), "impact": ("Market impact", ":material/moving:"),
          "facts": ("Stylized facts", ":material/fact_check:"), "detection": ("Detection", ":material/troubleshoot:"),
          "learning": ("Learning", ":material/school:")}


def main(st: Any, words: list[str]) -> None:
    """Draws the page that is looked at; `words` are those of the command line."""
    st.set_page_config(page_title="marsjax", page_icon=":material/candlestick_chart:", layout="wide")
    shop = st.cache_resource(_workshop, show_spinner="Starting")(words[0] if words else "")
    pages = [st.Page(_page(st, shop, name), title=title, icon=icon, url_path="" if name == "home" else name,
                     default=name == "home") for name, (title, icon) in _PAGES.items()]
    st.navigation(pages).run()


def _page(st: Any, shop: Workshop, name: str) -> Callable[[], None]:
    def page() -> None:
        importlib.import_module(f"marsjax.experiments.pages.{name}_page").page(st, shop)

    page.__name__ = name
    return page


def _workshop(word: str) -> Workshop:
    return Workshop(Settings.of_words([word] if word else []))


if __name__ == "__main__":
    main(importlib.import_module("streamlit"), sys.argv[1:])
