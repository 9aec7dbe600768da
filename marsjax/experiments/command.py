"""The command `marsjax`: `marsjax forecast ...` for `python -m marsjax.experiments.forecast ...`, and so each program.

Only the standard library is imported here, so that `marsjax --help` answers at once.
"""

import difflib
import runpy
import sys
from collections.abc import Sequence
from typing import NamedTuple

from marsjax import __version__
from marsjax.experiments import interrupts

USAGE = 2
"""Exit code of a wrong command line, as the programs have it."""


class Program(NamedTuple):
    """A program by its name, and what it is for."""

    name: str
    purpose: str


ANALYSES = (
    Program("forecast", "futures of a market from one state, as a distribution and a fan chart"),
    Program("control", "futures that follow a scenario or a curve, while orders still react"),
    Program("market_impact", "what an execution does to the price, and how that decays"),
    Program("stylized_facts", "Cont's eleven facts of futures, or of days"),
    Program("realism", "futures against the minutes that really followed"),
    Program("detect", "which minutes of a day futures do not account for; manipulations put in"),
    Program("fleet", "forecasts, impact or realism of many states, on many machines"))
MARKETS = (
    Program("replay", "days of orders through the exchange, compared with what was published"),
    Program("simulate", "thousands of markets of random orders"),
    Program("make_day", "a day that an order model writes, to start from"))
MODELS = (
    Program("prepare", "days of orders made ready to be trained on, however many"),
    Program("train", "an order model from days of orders"),
    Program("train_control", "a model of whole minutes of orders beside it, by which control can lead"),
    Program("train_agent", "agents that execute orders or make a market, by reinforcement"),
    Program("import_checkpoint", "a published order model as a checkpoint of marsjax"),
    Program("context_length", "what a model's predictions lose with shorter contexts"))
HOUSE = (
    Program("serve", "next orders and futures over HTTP (pip install 'marsjax[serve]')"),
    Program("dashboard", "forecasts, impact, learning in the browser (pip install 'marsjax[demo]')"),
    Program("download", "the published models and their data from the Hugging Face Hub"),
    Program("doctor", "versions, devices, memory, cache, and a test of a few seconds"),
    Program("benchmark", "speed of books and of whole rollouts on this device"))
GROUPS = {"analyses": ANALYSES, "markets": MARKETS, "order models": MODELS, "this machine": HOUSE}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program that the command line names, which exits with a code of its own; returns that of other lines."""
    words = sys.argv[1:] if argv is None else list(argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if words else USAGE
    if words[0] == "--version":
        print(f"marsjax {__version__}")
        return 0
    name = words[0].replace("-", "_")
    known = [program.name for group in GROUPS.values() for program in group]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        meant = f"did you mean {near[0]}? " if near else ""
        print(f"error: unknown program {words[0]!r}; {meant}`marsjax --help` lists all", file=sys.stderr)
        return USAGE
    interrupts.install(is_first=True)
    sys.argv = [f"marsjax {name}", *words[1:]]
    runpy.run_module(f"marsjax.experiments.{name}", run_name="__main__")
    return 0


def usage() -> str:
    """What there is, in a screen."""
    lines = [f"marsjax {__version__}: whole financial markets on one accelerator",
             "  marsjax PROGRAM --config=NAME[:ARGUMENT] [--config.KEY=VALUE ...]", ""]
    for title, group in GROUPS.items():
        lines += [f"{title}:", *(f"  {program.name:<18} {program.purpose}" for program in group)]
    return "\n".join([*lines, "", "start with:  marsjax forecast --config=forecast (all keys: --config=forecast:help)"])


if __name__ == "__main__":
    sys.exit(main())
