"""The launcher as its user meets it: exit codes, one line of error, configs by path and by name, also from a wheel."""

import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
from ml_collections import ConfigDict

from marsjax.experiments import config as configs
from marsjax.experiments import config_help, launcher
from tests.experiments.conftest import Launch

ROOT = pathlib.Path(__file__).parent.parent.parent
PROGRAM = ROOT / "tests" / "fixtures" / "experiment.py"
CONFIG = ROOT / "tests" / "fixtures" / "configs" / "example.py"


def start(*arguments: str, cwd: pathlib.Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    # A user's own settings of the compilation cache are what one of the tests is about.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_COMP", "JAX_PERS"))}
    whole = {**inherited, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, str(PROGRAM), *arguments]
    return subprocess.run(command, cwd=cwd, env=whole, capture_output=True, text=True, timeout=120, check=False)


def example(config: ConfigDict) -> int | None:
    """The program's `main`, in this process."""
    spec = importlib.util.spec_from_file_location("example_program", PROGRAM)
    assert spec is not None and spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    return program.main(config)


def ran(out: str) -> dict[str, object]:
    """The config that the program ran under."""
    lines = [line for line in out.splitlines() if line.startswith("config ")]
    assert lines, out
    return json.loads(lines[0].removeprefix("config "))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "expected one --config"),
        (["--config"], "expected one --config"),
        (["--config={}", "--config={}"], "expected one --config"),
        (["--config=configs/absent.py:sse"], "configs/absent.py does not exist"),
        (["--config=absent:sse"], "config 'absent' is unknown"),
        (["--config={}", "--config.boook=1"], "unknown key boook; known here are: agent, book,"),
        (["--config={}", "--config.book.lvls=1"], "unknown key book.lvls; known here are: levels"),
        (["--config={}", "--config.book=1"], "set its keys: book.levels"),
        (["--config={}", "--config.scale.x=1"], "scale is a float, not a section"),
        (["--config={}", "--config.trajectories=1.5"], "expected int like 4, got '1.5'"),
        (["--config={}", "--config.scale=big"], "expected float like 0.5, got 'big'"),
        (["--config={}", "--config.trace=maybe"], "expected bool like False, got 'maybe'"),
        (["--config={}", "--config.minutes=1,x"], "expected tuple like (1, 5), got '1,x'"),
        (["--config={}", "--config.scale"], "expected --config.scale=value"),
        (["--config={}:sse,foo=1"], "'foo=1' is unknown; known are: noise, sse, symbol=, trajectories="),
        (["--config={}:lobster"], "'lobster' is unknown; known are: noise, sse"),
        (["--config={}:trajectories=many"], "expected int like 4, got 'many'"),
        (["--config={}:symbol"], "expected symbol=value"),
        (["--config={}", "--fast"], "unknown argument --fast"),
        (["--config={}", "stray"], "unknown argument stray"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_2(launch: Launch, arguments: list[str], expected: str) -> None:
    result = launch("example", example, *(argument.format(CONFIG) for argument in arguments))
    assert (result.code, result.out) == (2, "")
    assert result.err.count("\n") == 1, result.err
    assert result.err.startswith("error: ")
    assert expected in result.err


def test_a_process_ends_as_the_launcher_says() -> None:
    """What the tests of command lines see in the process of the tests is what the user's shell sees."""
    result = start("--config={}:sse,trace", "stray")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "error: unknown argument stray; known are --config, --config.KEY, --verbose, --help\n"


def parsed(name: str, *words: str) -> launcher.Command:
    return launcher.parse(name, list(words))


@pytest.mark.parametrize(("name", "words", "expected"), [
    ("forecast", ["--config=replay:noise"], "is a config of replay, not of forecast: run marsjax.experiments.replay"),
    ("stylized_facts", [f"--config={ROOT}/configs/simulate.py"], "is a config of simulate, not of stylized_facts"),
    ("forecast", ["--config=mine.py"], "mine.py: is no config of forecast: it lacks trajectories; "),
    ("forecast", ["--config=forecast:noise,time=10:30:00"], "argument 'time=10:30:00' has no effect with noise"),
    ("forecast", ["--config=forecast:symbol=600519"], "argument 'symbol=600519' has no effect with default"),
    ("forecast", ["--config=forecast", "--config.time=10:30:00"], "--config.time=10:30:00 has no effect with default"),
    ("forecast", ["--config=forecast:sse,evaluate,time=10:00:00"], "'time=10:00:00' has no effect with evaluate"),
    ("replay", ["--config=replay:noise,file=x.csv"], "argument 'file=x.csv' has no effect with noise"),
    ("replay", ["--config=replay:csv,symbol=x"], "argument 'symbol=x' has no effect with csv"),
    ("stylized_facts", ["--config=stylized_facts:bars,file=x,trajectories=4"],
     "'trajectories=4' has no effect with bars"),
    ("stylized_facts", ["--config=stylized_facts:sse,model=mine"], "'model=mine' has no effect without trajectories"),
    ("benchmark", ["--config=benchmark:rollout,stream=x"], "argument 'stream=x' has no effect with rollout"),
    ("train", ["--config=train:default,source=csv,folder=x"], "argument folder='x' has no effect with source=csv"),
])
def test_what_would_be_ignored_is_refused(name: str, words: list[str], expected: str, tmp_path: pathlib.Path,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    copied = (ROOT / "configs" / "forecast.py").read_text()
    (tmp_path / "mine.py").write_text(copied.replace("    config.trajectories = ", "    config.futures = "))
    with pytest.raises(configs.UsageError) as caught:
        parsed(name, *words)
    assert expected in str(caught.value)


def test_a_copy_of_a_config_is_one_of_its_experiment(tmp_path: pathlib.Path) -> None:
    for name in ("forecast", "benchmark"):
        path = tmp_path / f"my_{name}.py"
        path.write_text((ROOT / "configs" / f"{name}.py").read_text() + "\n# with a key more\n")
        for argument in ("", ":rollout" if name == "benchmark" else ":sse,time=10:00:00"):
            assert parsed(name, f"--config={path}{argument}").config is not None


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def get_config(:\n", "line 1: invalid syntax"),
        ("config = 1\n", "expected a function get_config(arg)"),
        ("def get_config():\n    return {}\n", "expected get_config to return a ConfigDict, got dict"),
        ("def get_config(arg):\n    raise ValueError('no such day')\n", "no such day"),
    ],
)
def test_a_broken_config_file_is_one_line_and_exit_2(tmp_path: pathlib.Path, launch: Launch, source: str,
                                                     expected: str) -> None:
    (tmp_path / "broken.py").write_text(source)
    result = launch("example", example, "--config=broken.py")
    assert (result.code, result.err.count("\n")) == (2, 1), result.err
    assert "broken.py" in result.err
    assert expected in result.err


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import no_such_module\n", "line 1: ModuleNotFoundError: No module named 'no_such_module'"),
        ("def get_config():\n    return missing\n", "line 2: NameError: name 'missing' is not defined"),
        ("from ml_collections import ConfigDict\n\ndef get_config():\n    config = ConfigDict()\n"
         "    config.b = config.a + 1\n    return config\n", "line 5: AttributeError: \"'a'\""),
        ("def get_config():\n    return {}['key']\n", "line 2: KeyError: 'key'"),
        ("def get_config():\n    return 1 / 0\n", "line 2: ZeroDivisionError"),
        ("def get_config():\n    assert False, 'x' * 10**6\n", "line 2: AssertionError: xxx"),
        ("def get_config():\n    return get_config()\n", "line 2: RecursionError: maximum recursion depth"),
        ("def get_config(a, b):\n    return a\n", "TypeError: get_config() missing 1 required"),
        ("import sys\n\nsys.exit(0)\n", "line 3: SystemExit: 0"),
        ("x = '\0'\n", "null byte"), ("x = 1" + " " * 2**20, "expected at most 1048576 bytes"),
        ("(" * 10_000, "too many nested parentheses"), ("get_config = 1\n", "expected a function get_config(arg)"),
    ],
)
def test_whatever_a_config_file_raises_is_named_by_its_line(tmp_path: pathlib.Path, source: str, expected: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(source)
    with pytest.raises(configs.UsageError, match=re.escape(expected)) as error:
        configs.load(path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)
    assert len(str(error.value)) < len(str(path)) + 250


def test_a_config_that_is_no_plain_file_is_not_opened(tmp_path: pathlib.Path) -> None:
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "bytes.py").write_bytes(b"x = '\xff'\n")
    for name in ("pipe.py", "folder.py"):
        with pytest.raises(configs.UsageError, match=f"{name} is no plain file"):
            configs.find(str(tmp_path / name))
        with pytest.raises(configs.UsageError, match="expected a file, got a"):
            configs.load(tmp_path / name)
    with pytest.raises(configs.UsageError, match="utf-8"):
        configs.load(tmp_path / "bytes.py")


@pytest.mark.parametrize(
    ("symbol", "code", "error"),
    [
        ("600519", 0, ""),
        ("three", 3, ""),
        ("value", 1, "error: two lines\n"),
        ("missing", 1, "error: [Errno 2] No such file: 'day.csv'\n"),
        ("interrupt", 130, "error: interrupted\n"),
    ],
)
def test_exit_code_of_a_run(symbol: str, code: int, error: str) -> None:
    result = start(f"--config={CONFIG}:symbol={symbol}")
    assert (result.returncode, result.stderr) == (code, error)
    assert result.stdout.startswith("example on 1 x cpu (cpu)")


def test_a_bug_keeps_its_traceback() -> None:
    result = start(f"--config={CONFIG}:symbol=bug")
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert "ValueError: a bug" in result.stderr


def test_verbose_shows_the_traceback_of_an_input_error() -> None:
    result = start("--verbose", f"--config={CONFIG}:symbol=value")
    assert result.returncode == 1
    assert "Traceback" in result.stderr


def test_an_absent_device_is_one_line_and_exit_1() -> None:
    result = start(f"--config={CONFIG}", JAX_PLATFORMS="no_such_platform")
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert "no_such_platform" in result.stderr


def test_argument_and_overrides_are_typed(launch: Launch) -> None:
    result = launch("example", example, f"--config={CONFIG}:sse,trajectories=8,trace", "--config.book.levels=5",
                    "--config.scale=2", "--config.minutes=(3,)", "--config.agent.volume=-7")
    assert ran(result.out) == {"mode": "sse", "symbol": "600519", "trajectories": 8, "scale": 2.0, "trace": True,
                           "minutes": [3], "book": {"levels": 5}, "agent": {"volume": -7}}


def test_words_stand_for_numbers_where_they_say_something(launch: Launch) -> None:
    result = launch("example", example, f"--config={CONFIG}:sse,trajectories=auto")
    assert ran(result.out)["trajectories"] == 0
    assert "expected int like" in launch("example", example, f"--config={CONFIG}:sse,symbol=auto,trajectories=all").err


def test_compiled_programs_are_kept_where_the_user_says(tmp_path: pathlib.Path) -> None:
    result = start(f"--config={CONFIG}", XDG_CACHE_HOME=str(tmp_path))
    assert f"cache {tmp_path}/marsjax/jax 0.5\n" in result.stdout
    result = start(f"--config={CONFIG}", XDG_CACHE_HOME=str(tmp_path), JAX_COMPILATION_CACHE_DIR=f"{tmp_path}/mine")
    assert f"cache {tmp_path}/mine 0.5\n" in result.stdout


def test_help_lists_keys_values_and_comments(launch: Launch) -> None:
    result = launch("example", example, f"--config={CONFIG}:sse,help")
    assert (result.code, result.err) == (0, "")
    lines = [" ".join(line.split()) for line in result.out.splitlines()]
    assert lines[0] == "A config for the tests of the launcher."
    assert {
        "noise|sse first, noise unless given",
        "trajectories 4 (int)",
        "--config.mode='sse'",
        "--config.symbol='600519' of the exchange",
        "--config.trajectories=4 how many markets run side by side",
        "--config.scale=0.5 a plain number, without a unit",
        "--config.trace=False",
        "--config.book.levels=10 a side",
        "--config.agent.volume=100 shares",
    } <= set(lines)


@pytest.mark.parametrize("arguments", [[f"--config={CONFIG}:help"], ["--help"], [f"--config={CONFIG}"]])
def test_output_that_nobody_reads_ends_without_a_traceback(arguments: list[str]) -> None:
    """As under `| head`, which closes the pipe when it has read enough."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, str(PROGRAM), *arguments], cwd=ROOT, env=environment, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        assert program.stdout is not None and program.stderr is not None
        program.stdout.close()
        assert program.stderr.read() == ""
    assert program.returncode == launcher.BROKEN_PIPE


def test_usage_text(launch: Launch) -> None:
    result = launch("example", example, "--help")
    assert (result.code, result.err) == (0, "")
    assert "marsjax.experiments.example --config=NAME" in result.out


def test_parse_arg_defaults_and_errors_of_the_author() -> None:
    assert configs.parse_arg(None, ("noise", "sse"), depth=3).to_dict() == {"mode": "noise", "depth": 3}
    assert configs.parse_arg("depth=4, fast=false", depth=3, fast=True).to_dict() == {"depth": 4, "fast": False}
    with pytest.raises(configs.UsageError, match="known are: none"):
        configs.parse_arg("x")
    with pytest.raises(AttributeError):
        configs.parse_arg("", depth=3).detph = 4


def test_a_key_without_a_value_yet_takes_none_and_its_type() -> None:
    import ml_collections

    config = ConfigDict({"seed": ml_collections.config_dict.placeholder(int)})
    configs.override(config, ["--config.seed=none"])
    assert config.seed is None
    configs.override(config, ["--config.seed=5"])
    assert config.seed == 5


def test_comments_above_behind_and_below() -> None:
    source = "if 1:\n    # up\n    # on top\n    c.a = 1\n    c.b.x = 2  # right\n          # on\n    c.d = 3\n"
    assert config_help.key_comments(source) == {"a": "up on top", "b.x": "right on", "d": ""}


def test_configs_of_the_checkout_go_by_name() -> None:
    files = {path.stem for path in (ROOT / "configs").glob("*.py")}
    assert set(configs.named_configs()) == {name for name in files if not name.startswith("_")}
    for path in configs.named_configs().values():
        assert isinstance(configs.load(path), ConfigDict)
        assert "Keys:" in config_help.describe(path, "help")


@pytest.mark.parametrize("name", ["forecast", "market_impact", "realism", "stylized_facts"])
def test_keys_that_configs_share_have_their_comments_in_the_help(name: str) -> None:
    path = configs.named_configs()[name]
    lines = [line.split() for line in config_help.describe(path, "help").splitlines()]
    shown = {line[0].removeprefix("--config.").partition("=")[0]: line[1:] for line in lines if line}
    shared = config_help.shared_comments()
    assert {"model", "rows", "chunk_steps", "rollout_capacity", "tick", "capacity", "interval_s"} <= set(shared)
    for key in configs.load(path):
        if key in shared:
            assert shown[key], key


@pytest.mark.slow
def test_a_wheel_carries_configs_and_checkpoints(tmp_path: pathlib.Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("marsjax", "configs", "checkpoints"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    (source / "configs").mkdir(exist_ok=True)
    shutil.copy(CONFIG, source / "configs" / "wheel_example.py")
    nested = source / "checkpoints" / "tiny" / "params" / "d"
    nested.mkdir(parents=True)
    (nested / "0f3a").write_bytes(b"\0\1")
    (source / "checkpoints" / "tiny" / ".metadata").write_text("{}")

    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    site, away = tmp_path / "site", tmp_path / "away"
    away.mkdir()
    subprocess.run([*pip, "wheel", "--no-deps", "-w", tmp_path, source], check=True, timeout=300)
    subprocess.run([*pip, "install", "--no-deps", "--target", site, *tmp_path.glob("*.whl")], check=True, timeout=300)

    result = start("--config=wheel_example:sse", cwd=away, PYTHONPATH=str(site))
    assert ran(result.stdout)["mode"] == "sse"
    carried = site / "marsjax" / "packaged" / "checkpoints" / "tiny"
    assert (carried / "params" / "d" / "0f3a").read_bytes() == b"\0\1"
    assert (carried / ".metadata").is_file()
    assert (site / "marsjax" / "py.typed").is_file()
    assert not (site / "configs").exists()
