"""The programs, `python -m marsjax.experiments.NAME`: a config becomes specs, a call, and files.

The public names are modules, each imported when it is first used.
Programs, each with a config of its name in configs/:
  `forecast`, `forecast_evaluation`: forecasts by rollouts, and the evaluation of many (an argument of the same config).
  `control`: futures that follow a target, beside uncontrolled ones.
  `market_impact`: what an execution does to the price.
  `realism`: rollouts against the real minutes that they begin with.
  `fleet`: forecasts, market impact or realism of many states, on many machines.
  `detect`: intervals of a day that its simulated futures do not explain; manipulations put into days.
  `stylized_facts`: Cont's eleven facts of minute bars.
  `replay`: orders through the exchange.
  `simulate`: noise markets, thousands at once.
  `prepare`: days of real orders made ready to be trained on, however many.
  `train`, `context_length`: an order model from days of real orders; how its predictions depend on its context.
  `train_control`: an order-batch model and an ensemble beside an order model.
  `train_agent`: agents that execute orders or make a market, by reinforcement, compared with rules.
  `make_day`: a day that an order model writes, to start from.
  `import_checkpoint`: a published order model as a checkpoint of marsjax.
  `benchmark`: speed.
  `command`: the command `marsjax`, which runs each of them by its name.
  `download`, `doctor`: published models and data from the hub; what marsjax finds on this machine.
  `serve`: an order model over HTTP; the application is in `service`.
  `dashboard`: pages in a browser, which are in `pages`; it has a command line of its own.
What they share:
  `launcher`: command line, errors, exit codes.
  `interrupts`: the end of a program by a signal.
  `config`, `config_parts`, `config_help`: config files, the keys that several share, and what `:help` prints.
  `setup`, `markets`: a config as specs and an order model; as feeds and their markets.
  `fleet_work`, `fleet_summary`: what a fleet's worker does, and the tables of all its states.
  `control_target`, `control_curve`: what controlled futures are to do; a price curve from a CSV file.
  `run_folder`, `replay_writer`: files of a run, of a replayed market.
  `train_record`: what a training says of itself in its checkpoint, card and report.
  `table_files`, `trace_files`, `csv_text`: tables of a run, the trace of a run, the text of either.
"""

import importlib
from types import ModuleType

from marsjax.experiments import interrupts

__all__ = ["benchmark", "command", "config", "config_help", "config_parts", "context_length", "control",
           "control_curve", "control_target", "csv_text", "dashboard", "detect", "doctor", "download", "fleet",
           "fleet_summary", "fleet_work", "forecast", "forecast_evaluation", "import_checkpoint", "interrupts",
           "launcher", "make_day", "market_impact", "markets", "pages", "prepare", "realism", "replay", "replay_writer",
           "run_folder", "serve", "service", "setup", "simulate", "stylized_facts", "table_files", "trace_files",
           "train", "train_agent", "train_control", "train_record"]

if interrupts.is_program():  # before the imports of the program, which take seconds
    interrupts.install(is_first=True)


def __getattr__(name: str) -> ModuleType:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
