"""Programs that are ended from outside: exit codes, one line, nothing half-written; killed ones go on to the same."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
SAID = {signal.SIGINT: "error: interrupted\n", signal.SIGTERM: "error: ended by SIGTERM\n",
        signal.SIGHUP: "error: ended by SIGHUP\n"}
PROGRAM = """
import importlib.util, pathlib, sys, threading, time
from marsjax.experiments import interrupts
interrupts.install(is_first=True)
# By its file: the room that it is in imports JAX, which takes seconds.
spec = importlib.util.spec_from_file_location("marsjax.core.unfinished", "marsjax/core/unfinished.py")
sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
half = pathlib.Path(sys.argv[1])
with module.undone_by(half.unlink):
    half.write_text("half")
    print("ready", flush=True)
    {}
interrupts.leave_with(7)
"""
DOES = {"sleeps": "time.sleep(60)", "computes": "while True: pass", "waits for a lock": "threading.Event().wait(60)",
        "catches all": "\n    while True:\n        try: time.sleep(60)\n        except BaseException: pass",
        "is in a call that takes its time": "import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 200_000_000)",
        "reads": "sys.stdin.read()"}


@pytest.fixture(autouse=True)
def _heard() -> Iterator[None]:
    """Children hear the signals also where the tests themselves run under nohup, or in the background of a shell."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in CODES}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def endings() -> ModuleType:
    """The study of experiments/robustness, whose law is the same."""
    spec = importlib.util.spec_from_file_location("endings", ROOT / "experiments" / "robustness" / "endings.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def start(*words: str, **options: object) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT,
                            stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, **options)  # type: ignore[call-overload]


@pytest.mark.parametrize(("does", "number"), [
    *((name, signal.SIGINT) for name in DOES), ("computes", signal.SIGTERM), ("sleeps", signal.SIGHUP)])
def test_a_signal_ends_a_program_whatever_it_does(tmp_path: Path, does: str, number: signal.Signals) -> None:
    half = tmp_path / "half"
    with start("-c", PROGRAM.format(DOES[does]), str(half)) as program:
        assert program.stdout is not None and program.stdout.readline() == "ready\n" and half.exists()
        began = time.monotonic()
        program.send_signal(number)
        _, said = program.communicate(timeout=60)
        assert (program.returncode, said) == (CODES[number], SAID[number])
        assert time.monotonic() - began < 20
    assert not half.exists()


def test_a_program_that_ends_by_itself_has_its_own_code(tmp_path: Path) -> None:
    with start("-c", PROGRAM.format("half.unlink()"), str(tmp_path / "half")) as program:
        assert program.communicate(timeout=60) == ("ready\n", "")
    assert program.returncode == 7


def test_a_signal_that_is_ignored_stays_so(tmp_path: Path) -> None:
    """As under nohup."""
    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with start("-c", PROGRAM.format("time.sleep(60)"), str(tmp_path / "half"), preexec_fn=ignore) as program:
        assert program.stdout is not None and program.stdout.readline() == "ready\n"
        program.send_signal(signal.SIGHUP)
        time.sleep(0.2)
        assert program.poll() is None
        program.send_signal(signal.SIGTERM)
        assert program.wait(60) == 143


@pytest.mark.parametrize("number", list(CODES))
def test_a_signal_during_the_imports_is_one_line(number: signal.Signals) -> None:
    with start("-m", "marsjax.experiments.simulate", "--config=simulate") as program:
        endings()._wait_for_handlers(program)
        program.send_signal(number)
        said = program.communicate(timeout=60)
    assert (program.returncode, said) == (CODES[number], ("", SAID[number]))


def test_importing_the_programs_leaves_signals_alone() -> None:
    program = ("import signal; from marsjax.experiments import interrupts, launcher; "
               "print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, "
               "signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)")
    with start("-c", program) as process:
        assert process.communicate(timeout=120)[0] == "True True\n"


@pytest.mark.slow
def test_killed_forecasts_go_on_to_the_same_bytes(tmp_path: Path) -> None:
    found = endings().kills(tmp_path, 4, seed=0)
    assert found["kills"] == 4 and found["chains"] >= 1


@pytest.mark.slow
@pytest.mark.parametrize(("number", "name"), [
    (signal.SIGINT, "simulate"), (signal.SIGINT, "forecast"), (signal.SIGTERM, "simulate")])
def test_signals_at_random_moments(tmp_path: Path, number: signal.Signals, name: str) -> None:
    assert endings().signals(tmp_path, 4, number, seed=0, name=name)["slowest_s"] < 20
