"""The launcher that all programs share: command line, errors and exit codes, JAX's compilation cache.

    def main(config: ml_collections.ConfigDict) -> int | None: ...

    if __name__ == "__main__":
        launcher.run("replay", main)

Exit codes: what `main` returns (None is 0), which is INCOMPLETE where results were written that lack something; FAILED
if the run failed on its input; USAGE if the command line is wrong; INTERRUPTED by the user; BROKEN_PIPE if nobody reads
the output any more. Shown as one line are InputError, OSError and MemoryError; any other exception is a bug and keeps
its traceback.
"""

import functools
import logging
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

import jax
from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict

from marsjax.core.errors import InputError
from marsjax.experiments import config as configs
from marsjax.experiments import config_help, interrupts

FAILED = 1
USAGE = 2
INCOMPLETE = 3
INTERRUPTED = 130
BROKEN_PIPE = 141

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


def run(name: str, main: Callable[[ConfigDict], int | None], argv: Sequence[str] | None = None,
        starts_device: bool = True) -> NoReturn:
    """Runs `main` under the config that the command line names, and exits; `argv` is without the program's name.

    Without `starts_device` no device is started and named before `main`, which may leave the accelerators to others.
    """
    if argv is None:
        interrupts.install()
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        _run(name, main, words, starts_device)
    except SystemExit as left:
        interrupts.leave_with(left.code if isinstance(left.code, int) else 0)
        raise


def _run(name: str, main: Callable[[ConfigDict], int | None], words: list[str], starts_device: bool) -> NoReturn:
    try:
        app.run(functools.partial(_execute, name, main, starts_device), [name, *words],
                flags_parser=lambda arguments: parse(name, arguments[1:]))
    except configs.UsageError as error:
        sys.exit(_show(error, USAGE))
    except BrokenPipeError:
        # What is left in the buffer is not to be written when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(BROKEN_PIPE)
    except (InputError, OSError, MemoryError) as error:
        if "--verbose" in words:
            raise
        sys.exit(_show(error, FAILED))
    except KeyboardInterrupt:
        sys.exit(_show("interrupted", INTERRUPTED))
    raise SystemExit  # `app.run` has exited


def finish(problems: Sequence[str]) -> int:
    """Prints why the results are not complete on stderr, and returns the exit code of the program."""
    print("\n".join(problems), file=sys.stderr, end="\n" if problems else "")
    return INCOMPLETE if problems else 0


def _execute(name: str, main: Callable[[ConfigDict], int | None], starts_device: bool, command: Command) -> int:
    if command.config is None:
        print(command.text, flush=True)
        return 0
    _set_up_logging(command.verbose)
    set_up_compilation_cache()
    if starts_device:
        print(f"{name} on {_devices()}", flush=True)
    code = main(command.config) or 0
    sys.stdout.flush()
    return code


def parse(name: str, argv: Sequence[str]) -> Command:
    """The command line of the program `name`, checked; raises UsageError with one line for the user."""
    flags.FLAGS.mark_as_parsed()  # absl's own flags keep their defaults: the programs have none of them
    values = flags.FlagValues()
    overrides: list[str] = []
    words: list[str] = []
    for word in argv:
        (overrides if word.startswith("--config.") else words).append(word)
    given = flags.DEFINE_multi_string("config", [], "a config by name or path", flag_values=values)
    verbose = flags.DEFINE_boolean("verbose", False, "progress of the libraries", flag_values=values)
    help_text = flags.DEFINE_boolean("help", False, "what can be given", short_name="h", flag_values=values)
    try:
        stray = values([name, *words])[1:]
    except flags.UnrecognizedFlagError as error:
        raise _unknown(f"--{error.flagname}") from error
    except flags.Error as error:  # a --config without a value
        raise _no_config(0) from error
    if help_text.value:
        return Command(None, USAGE_TEXT.format(name=name, known=_known_names()), verbose.value)
    if stray:
        raise _unknown(stray[0])
    if len(given.value) != 1 or not given.value[0]:
        raise _no_config(len(given.value))
    path, arg = configs.find(given.value[0])
    if configs.HELP in (part.strip() for part in arg.split(",")):
        return Command(None, config_help.describe(path, arg), verbose.value)
    config = configs.load(path, arg)
    configs.check_experiment(name, path, arg, config)
    configs.override(config, overrides)
    configs.check_effect(path, config, overrides)
    return Command(config, "", verbose.value)


def _unknown(word: str) -> configs.UsageError:
    return configs.UsageError(f"unknown argument {word}; known are --config, --config.KEY, --verbose, --help")


def _no_config(count: int) -> configs.UsageError:
    return configs.UsageError(f"expected one --config=NAME or --config=FILE.py, got {count}; known names are: "
                              f"{_known_names()}")


def _known_names() -> str:
    return ", ".join(configs.named_configs()) or "none"


def compilation_cache() -> dict[str, str]:
    """Where and from when on compiled programs are kept, as JAX's environment variables that are not set."""
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    own = {"JAX_COMPILATION_CACHE_DIR": str(pathlib.Path(home) / "marsjax" / "jax"),
           "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5"}
    return {name: value for name, value in own.items() if name not in os.environ}


def set_up_compilation_cache() -> None:
    """Keeps compiled programs from run to run, in $XDG_CACHE_HOME/marsjax/jax unless the user's JAX settings say where.

    Only the programs do so: importing marsjax leaves JAX's settings alone.
    """
    for name, value in compilation_cache().items():
        is_number = name.endswith("SECS")
        jax.config.update(name.lower(), float(value) if is_number else value)


def _devices() -> str:
    try:
        devices = jax.devices()
    except (RuntimeError, AssertionError) as error:  # JAX is set to use an accelerator that it does not find
        raise OSError(f"JAX found no device (JAX_PLATFORMS={os.environ.get('JAX_PLATFORMS', '')}) {error}") from error
    return f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform}), JAX {jax.__version__}"


def _set_up_logging(verbose: bool) -> None:
    level = logging.INFO if verbose else logging.WARNING
    absl_logging.set_verbosity("info" if verbose else "warning")
    logging.root.setLevel(level)  # apart, since basicConfig does nothing where a library has put its handler
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")


def _show(error: Exception | str, code: int) -> int:
    print("error:", " ".join(str(error).split()) or type(error).__name__, file=sys.stderr)
    return code
