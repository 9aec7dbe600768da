"""Config files: finding one by path or name, its argument, its values, and the overrides on the command line.

A config file has `get_config(arg)` (or `get_config()`), which returns a ConfigDict that declares every key.
"""

import importlib.util
import inspect
import pathlib
import re
import traceback
import types
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags
from ml_collections.config_flags import config_path

import marsjax
from marsjax.core import files
from marsjax.core.errors import InputError, brief

Value = str | int | float | bool
Ignored = Mapping[str, Sequence[str]]
"""Keys by the mode in which they have no effect."""

_WORDS = {"trajectories": {"auto": "0"}, "most_at_once": {"auto": "0"}, "devices": {"all": "0"}}
"""Words that stand for a number, by the last part of a key's name."""
HELP = "help"
"""The word in a config's argument that asks for its keys instead of a run."""


_MOST_BYTES = 2**20
# What running somebody's config file may raise.
_FAULTS = (ArithmeticError, AssertionError, AttributeError, EOFError, ImportError, LookupError, MemoryError, NameError,
           OSError, RuntimeError, SyntaxError, SystemExit, TypeError, ValueError)


class UsageError(InputError):
    """A wrong command line; its message is one line for the user."""


class HelpRequest(Exception):  # noqa: N818 - not an error, it tells the launcher what the argument takes
    """Raised by `parse_arg` on the word `help`; `known` are the argument's parts as (name, text) rows."""

    def __init__(self, known: list[tuple[str, str]]) -> None:
        super().__init__("help was asked for")
        self.known = known


def parse_arg(arg: str | None, modes: Sequence[str] = (), ignored: Ignored = types.MappingProxyType({}), /,
              **defaults: Value) -> ConfigDict:
    """The argument of a config file, `mode,key=value,flag`, as a locked ConfigDict typed like `defaults`.

    `modes` are the words that may stand first, the first of them the default; the one given is the result's `mode`.
    `ignored` are the keys that have no effect in a mode. A key without a value turns a bool on. Raises UsageError with
    the known words where one is unknown, has the wrong type, or no effect.
    """
    words = [word.strip() for word in (arg or "").split(",") if word.strip()]
    if HELP in words:
        rows = [("|".join(modes), f"first, {modes[0]} unless given")] if modes else []
        raise HelpRequest(rows + [(key, f"{value!r} ({type(value).__name__})") for key, value in defaults.items()])
    mode = {"mode": words.pop(0) if words and words[0] in modes else modes[0]} if modes else {}
    config = ConfigDict({**defaults, **mode}).lock()
    for word in words:
        key, given, text = word.partition("=")
        if key not in defaults:
            choices = [*modes, *(f"{name}=" for name in defaults)]
            raise UsageError(f"config argument {word!r} is unknown; known are: {', '.join(choices) or 'none'}")
        if modes and key in ignored.get(config.mode, ()):
            raise _without_effect(f"config argument {word!r}", config.mode)
        if not given and not isinstance(defaults[key], bool):
            raise UsageError(f"config argument {word!r}: expected {key}=value")
        _set(config, key, text if given else "true", f"config argument {key}")
    return config


def _without_effect(word: str, mode: str) -> UsageError:
    return UsageError(f"{word} has no effect with {mode}; leave it out, or name another source first")


def named_configs() -> dict[str, pathlib.Path]:
    """The configs that go by a name: those beside the package in a checkout, those inside it in a wheel."""
    package = pathlib.Path(marsjax.__file__).parent
    for folder in (package / "packaged" / "configs", package.parent / "configs"):
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob("*.py")) if not path.stem.startswith("_")}
    return {}


def find(reference: str) -> tuple[pathlib.Path, str]:
    """`path/to/file.py:arg` or `name:arg` -> the file and the argument, empty if none; UsageError if there is none."""
    by_path = re.fullmatch(r"(.*?\.py)(?::(.*))?", reference)
    if by_path:
        path = pathlib.Path(by_path[1])
        if not path.is_file():
            what = "is no plain file" if path.exists() else "does not exist"
            named = f"{path.stem}:{by_path[2]}" if by_path[2] else path.stem
            meant = f"; the config that comes with marsjax is --config={named}" if path.stem in named_configs() else ""
            raise UsageError(f"config file {by_path[1]} {what} (current folder: {pathlib.Path.cwd()}){meant}")
        return path, by_path[2] or ""
    name, _, arg = reference.partition(":")
    known = named_configs()
    if name not in known:
        raise UsageError(f"config {name!r} is unknown; known: {', '.join(known) or 'none'}, or a path to a .py file")
    return known[name], arg


def load(path: pathlib.Path, arg: str = "") -> ConfigDict:
    """Runs `get_config(arg)` of the file and locks what it returns; UsageError where the file is no config."""
    module = _module(path)
    get_config = getattr(module, "get_config", None)
    if not callable(get_config):
        raise UsageError(f"{path}: expected a function get_config(arg), found none")
    takes_arg = bool(inspect.signature(get_config).parameters)
    if arg and not takes_arg:
        if HELP in arg.split(","):
            raise HelpRequest([])
        raise UsageError(f"{path}: takes no argument, got {arg!r}")
    try:
        config = get_config(arg) if takes_arg else get_config()
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    except _FAULTS as error:
        raise _fault(path, error) from error
    if not isinstance(config, ConfigDict):
        raise UsageError(f"{path}: expected get_config to return a ConfigDict, got {type(config).__name__}")
    return config.lock()


def check_experiment(name: str, path: pathlib.Path, arg: str, config: ConfigDict) -> None:
    """UsageError unless a config is one of the experiment `name`: not another's, and with every key that it reads."""
    known = named_configs()
    own = known.pop(name, None)
    if own is None or path.resolve() == own.resolve():
        return
    other = next((stem for stem, file in known.items() if file.resolve() == path.resolve()), None)
    if other:
        raise UsageError(f"{path}: is a config of {other}, not of {name}: run marsjax.experiments.{other}, or "
                         f"give --config={name}")
    try:
        expected = load(own, arg)
    except UsageError:  # the file has an argument of its own
        expected = load(own)
    missing = [key for key in expected if key not in config]
    if missing:
        raise UsageError(f"{path}: is no config of {name}: it lacks {', '.join(missing[:5])}"
                         f"{', ...' * (len(missing) > 5)}; all that it needs: --config={name}:help")


def check_effect(path: pathlib.Path, config: ConfigDict, arguments: Sequence[str]) -> None:
    """UsageError for a `--config.key=value` that has no effect in the mode of the config, by IGNORED of its file.

    The file says there, as for `parse_arg`, which keys have none, and by MODE which key holds the mode.
    """
    module = _module(path)
    mode = config.get(getattr(module, "MODE", ""), "")
    for argument in arguments:
        if argument.removeprefix("--config.").partition("=")[0] in getattr(module, "IGNORED", {}).get(mode, ()):
            raise _without_effect(argument, mode)


def _module(path: pathlib.Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(f"marsjax_config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path}: cannot be read as a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        files.check_regular(path, _MOST_BYTES)
        spec.loader.exec_module(module)
    except _FAULTS as error:
        raise _fault(path, error) from error
    return module


def _fault(path: pathlib.Path, error: BaseException) -> UsageError:
    """What a config file raised, by the line of it that did so last."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    lines += [error.lineno] if isinstance(error, SyntaxError) and error.lineno else []
    at = f", line {lines[-1]}" if lines else ""
    told = "" if isinstance(error, InputError | SyntaxError) else f"{type(error).__name__}: "
    return UsageError(f"{path}{at}: {told}{brief(error, 160)}")


def override(config: ConfigDict, arguments: Sequence[str]) -> None:
    """Sets `--config.key=value` arguments in `config`, each with the type that the key has; UsageError otherwise."""
    for argument in arguments:
        key, equals, text = argument.removeprefix("--config.").partition("=")
        if not equals:
            raise UsageError(f"{argument}: expected --config.{key}=value")
        _check_key(config, key)
        _set(config, key, text, f"--config.{key}")


def _set(config: ConfigDict, key: str, text: str, name: str) -> None:
    """Sets the dotted `key` from text, as config_flags does; errors call it by `name`."""
    path, _, last = key.rpartition(".")
    section = config_path.get_value(path, config) if path else config
    text = _WORDS.get(last, {}).get(text.lower(), text)
    old, kind = section[last], section.get_type(last)
    if old is None and text.lower() == "none":
        return
    values = flags.FlagValues()
    try:
        flag = f"--config.{key}={_tuple_text(text, old) if kind is tuple else text}"
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=[flag])
        values(["config", flag])
    except (flags.Error, ValueError, TypeError, SyntaxError) as error:
        raise UsageError(f"{name}: expected {kind.__name__} like {old!r}, got {text!r}") from error


def _tuple_text(text: str, old: tuple[Value, ...]) -> str:
    """`1,5`, `(1, 5)` or `buy,sell` as Python spells a tuple whose elements have the type of the first of `old`."""
    words = [word.strip() for word in text.strip("() ").split(",") if word.strip()]
    parsers: dict[type, Any] = {bool: flags.BooleanParser(), int: flags.IntegerParser(), float: flags.FloatParser()}
    parser = parsers.get(type(old[0]), flags.ArgumentParser()) if old else flags.ArgumentParser()
    return repr(tuple(parser.parse(word) for word in words))


def _check_key(config: ConfigDict, key: str) -> None:
    """UsageError unless the dotted `key` is one of the config, and no section."""
    value, at = config, ""
    for part in key.split("."):
        if not isinstance(value, ConfigDict):
            raise UsageError(f"--config.{key}: {at} is a {type(value).__name__}, not a section of keys")
        section, at = value, f"{at}.{part}".strip(".")
        if part not in section:
            raise UsageError(f"--config.{key}: unknown key {at}; known here are: {', '.join(sorted(section))}")
        value = section[part]
    if isinstance(value, ConfigDict):
        inside = ", ".join(f"{key}.{name}" for name in sorted(value))
        raise UsageError(f"--config.{key}: is a section; set its keys: {inside}")
