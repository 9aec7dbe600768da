"""The dashboard: pages in a browser that run what the programs run (Streamlit).

`python -m marsjax.experiments.dashboard` starts it. The public names are modules, each imported when it is first used;
Streamlit, which is an extra, is imported by the script alone and handed to the pages.
What the pages share:
  `settings`: what the dashboard was started with.
  `workshop`: order models, devices and days, each opened once; a queue of runs for each device.
  `jobs`: a run in a thread of its own, with its progress, what there is of it so far, and a way to stop it.
  `where`: where futures start, as a page asks for it.
  `files`: figures and tables as the bytes of files.
  `pieces`: parts of pages: choices, errors in words, a run under way, pictures, downloads.
Runs, without a page: from what is asked for to pictures, tables and files:
  `forecast_run`, `control_run`, `impact_run`, `facts_run`, `detection_run`, `learning_run`.
Pages:
  `home_page`, `forecast_page`, `control_page`, `impact_page`, `facts_page`, `detection_page`,
  `learning_page`.
  `app`: the script that Streamlit runs.
"""

import importlib
from types import ModuleType

__all__ = ["app", "control_page", "control_run", "detection_page", "detection_run", "facts_page", "facts_run", "files",
           "forecast_page", "forecast_run", "home_page", "impact_page", "impact_run", "jobs", "learning_page",
           "learning_run", "pieces", "settings", "where", "workshop"]


def __getattr__(name: str) -> ModuleType:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
