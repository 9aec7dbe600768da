"""The launcher that all experiment binaries share: command line, errors and exit codes, JAX's compilation cache.

    def main(config: ml_collections.ConfigDict) -> int | None: ...

    if __name__ == "__main__":
        launcher.run("replay", main)

Exit codes: what `main` returns (None is 0); 1 if the run failed on its input (ValueError, OSError); 2 if the command
line is wrong; 130 if interrupted. Other exceptions are bugs and keep their traceback.
"""

import logging
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

import jax
from absl import flags
from absl import logging as absl_logging
from ml_collections import ConfigDict

from marsjax.experiments import config as configs
from marsjax.experiments import config_help

FAILED = 1
USAGE = 2
INTERRUPTED = 130

USAGE_TEXT = """python -m marsjax.experiments.{name} --config=NAME[:ARGUMENT] [--config.KEY=VALUE ...] [--verbose]

  --config=NAME:ARGUMENT  a config by name or path, with its argument: {name}, configs/{name}.py, {name}:first,key=value
                          known names: {known}
  --config=NAME:help      the config's argument and keys, with their defaults and meaning
  --config.KEY=VALUE      another value for a key of the config (nested keys with dots)
  --verbose               progress of the libraries, and tracebacks of errors
  --help                  this text"""


class Command(NamedTuple):
    """A command line: the config to run (None if only a text was asked for), and how to run it."""

    config: ConfigDict | None
    text: str
    verbose: bool


def run(name: str, main: Callable[[ConfigDict], int | None], argv: Sequence[str] | None = None) -> NoReturn:
    """Runs `main` under the config that the command line names, and exits; `argv` is without the program's name."""
    try:
        command = parse(name, sys.argv[1:] if argv is None else argv)
    except configs.UsageError as error:
        sys.exit(_complain(error, USAGE))
    if command.config is None:
        print(command.text)
        sys.exit(0)
    _set_up_logging(command.verbose)
    set_up_compilation_cache()
    try:
        print(f"{name} on {_devices()}", flush=True)
        code = main(command.config)
    except (ValueError, OSError) as error:
        if command.verbose:
            raise
        sys.exit(_complain(error, FAILED))
    except KeyboardInterrupt:
        sys.exit(_complain("interrupted", INTERRUPTED))
    sys.exit(code or 0)


def parse(name: str, argv: Sequence[str]) -> Command:
    """The command line of the experiment `name`, checked; raises UsageError with one line for the user."""
    references, overrides, verbose = [], [], False
    words = iter(argv)
    for word in words:
        flag, equals, value = word.partition("=")
        if flag == "--config":
            references.append(value if equals else next(words, ""))
        elif flag.startswith("--config."):
            overrides.append(word)
        elif word == "--verbose":
            verbose = True
        elif word in ("--help", "-h"):
            known = ", ".join(configs.named_configs()) or "none"
            return Command(None, USAGE_TEXT.format(name=name, known=known), verbose)
        else:
            raise configs.UsageError(f"unknown argument {word}; known are --config, --config.KEY, --verbose, --help")
    if len(references) != 1 or not references[0]:
        known = ", ".join(configs.named_configs()) or "none"
        raise configs.UsageError(f"expected one --config=NAME or --config=FILE.py, got {len(references)}; "
                                 f"known names are: {known}")
    path, arg = configs.find(references[0])
    if configs.HELP in (part.strip() for part in arg.split(",")):
        return Command(None, config_help.describe(path, arg), verbose)
    config = configs.load(path, arg)
    configs.override(config, overrides)
    return Command(config, "", verbose)


def set_up_compilation_cache() -> None:
    """Keeps compiled programs from run to run, in $XDG_CACHE_HOME/marsjax/jax unless the user's JAX settings say where.

    Only the experiments do so: importing marsjax leaves JAX's settings alone.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(home) / "marsjax" / "jax"))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _devices() -> str:
    try:
        devices = jax.devices()
    except (RuntimeError, AssertionError) as error:  # JAX was told to use an accelerator that it does not find
        raise OSError(f"JAX found no device (JAX_PLATFORMS={os.environ.get('JAX_PLATFORMS', '')}) {error}") from error
    return f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform}), JAX {jax.__version__}"


def _set_up_logging(verbose: bool) -> None:
    flags.FLAGS.mark_as_parsed()  # absl's own flags stay at their defaults: the experiments have none of their own
    level = logging.INFO if verbose else logging.WARNING
    absl_logging.set_verbosity("info" if verbose else "warning")
    logging.root.setLevel(level)  # apart, since basicConfig does nothing where a library has put its handler
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")


def _complain(error: Exception | str, code: int) -> int:
    print("error:", " ".join(str(error).split()) or type(error).__name__, file=sys.stderr)
    return code
