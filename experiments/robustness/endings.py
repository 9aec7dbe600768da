"""Ends small programs at random moments, and looks at what is left.

    python experiments/robustness/endings.py kills --count=50      # kill -9 of a forecast, each time taken up again
    python experiments/robustness/endings.py signals --count=100   # SIGINT; also SIGTERM and SIGHUP, a tenth as often
    python experiments/robustness/endings.py signals --count=100 --program=forecast    # the default is simulate

The forecast has a trace and saves its state after every chunk. Moments are drawn from a seed; what the program is in at
a moment depends on the machine, and is counted. Linux alone (it reads /proc).
"""

import argparse
import collections
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SIZES = ("--config.capacity=128", "--config.rollout_capacity=128", "--config.trade_width=64", "--config.chunk_steps=4",
         "--config.noise_minutes=4", "--config.fit_every_s=2", "--config.picture=false")
SAVED = ("--config.trace=true", "--config.save_folder=state", "--config.save_every_s=0")
FILES = ("labels.csv", "minutes.csv.gz", "trace_orders.csv.gz", "trace_trades.csv.gz")
FACTS = ("forecast", "threshold", "start")
OUTPUT = "out"
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
_LONGEST_S = 900


WORDS = {
    "forecast": (f"{ROOT / 'configs' / 'forecast.py'}:noise,trajectories=4,minutes=1,output={OUTPUT}", *SIZES, *SAVED),
    "simulate": (f"{ROOT / 'configs' / 'simulate.py'}:books=4,minutes=1,output={OUTPUT}", "--config.capacity=64")}
"""The command lines, by the program's name."""


class Program:
    """A program, run in a folder of its own."""

    def __init__(self, folder: Path, name: str = "forecast") -> None:
        self.folder = folder
        first, *others = WORDS[name]
        self._words = [sys.executable, "-m", f"marsjax.experiments.{name}", f"--config={first}", *others]

    def start(self) -> "subprocess.Popen[str]":
        """Starts it."""
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))  # in a checkout, too
        return subprocess.Popen(self._words, cwd=self.folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                env=os.environ | {"PYTHONPATH": path})

    def finish(self) -> float:
        """Runs it to its end; seconds."""
        began, process = time.monotonic(), self.start()
        _, said = process.communicate(timeout=_LONGEST_S)
        expect(process.returncode == 0, f"expected an end without error, got {process.returncode}: {said}")
        return time.monotonic() - began

    def saved(self) -> list[int]:
        """Numbers of the saved states that are whole: their checksums come last."""
        return sorted(int(path.stem) for path in (self.folder / "state").glob("[0-9]*.sha256"))

    def results(self) -> dict[str, Any]:
        """What a run leaves: the bytes of its tables, and its facts but for the times that it took."""
        out = self.folder / OUTPUT
        metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
        return {**{name: (out / name).read_bytes() for name in FILES}, **{key: metrics[key] for key in FACTS}}

    def clear(self) -> None:
        """Removes all that runs left."""
        for path in self.folder.iterdir():
            shutil.rmtree(path)


def expect(holds: bool, message: str) -> None:
    """Ends the study with a message unless something holds."""
    if not holds:
        raise SystemExit(message)


def kills(folder: Path, count: int, seed: int, say: Callable[[str], None] = print) -> dict[str, int]:
    """Kills `count` forecasts in chains: each is taken up until it is killed again or done, then all must be equal.

    Half of the moments are drawn from the whole life of a run, half from the time after its next save. Returns how many
    kills fell before the first save, after it, and how many chains came to their end.
    """
    draw, program, found = random.Random(seed), Program(folder), collections.Counter[str]()
    program.finish()
    whole = program.results()
    program.clear()
    lasted = program.finish()  # what it compiles is cached by now
    _compare(program, whole)
    say(f"a run without a kill: {lasted:.1f} s, states {program.saved()}")
    program.clear()
    while found["kills"] < count:
        process, before = program.start(), program.saved()
        waits_for_save = draw.random() < 0.5
        moment = draw.uniform(0, lasted / 4 if waits_for_save else lasted)
        while waits_for_save and program.saved() == before and process.poll() is None:
            time.sleep(0.01)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moment)
        process.kill()
        _, said = process.communicate()
        expect(process.returncode in (0, -signal.SIGKILL), f"expected a kill, got {process.returncode}: {said}")
        if process.returncode:
            found["kills"] += 1
            found["with a saved state"] += bool(program.saved())
            found["with a newer state"] += program.saved() != before
            say(f"kill {found['kills']}: states {program.saved()}")
        if (folder / OUTPUT).exists():  # also where it was killed just after
            _compare(program, whole)
            found["chains"] += 1
            program.clear()
    if (folder / "state").exists():
        program.finish()
        _compare(program, whole)
        found["chains"] += 1
    return dict(found)


def _compare(program: Program, whole: dict[str, Any]) -> None:
    for name, value in program.results().items():
        expect(value == whole[name], f"{name} is not that of a run without a kill")
    left = sorted(path.name for path in program.folder.iterdir())
    expect(left == [OUTPUT, "state"], f"expected {OUTPUT} and state alone, got {left}")


def signals(folder: Path, count: int, number: signal.Signals, seed: int, name: str = "simulate",
            say: Callable[[str], None] = print) -> dict[str, float]:
    """Sends a signal at `count` random moments of a program's life, from when it has set its handlers on.

    Each must end with the signal's exit code within a few seconds, say one line, and leave no output, no hidden
    folder, and at most whole saved states. Returns the slowest end in seconds, and how many signals came after a save.
    """
    draw, program, found = random.Random(seed), Program(folder, name), {"slowest_s": 0.0, "after_save": 0}
    program.finish()
    program.clear()
    lasted = program.finish()  # what it compiles is cached by now
    sent = 0
    while sent < count:
        program.clear()
        process = program.start()
        _wait_for_handlers(process)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(draw.uniform(0, lasted))
        if process.poll() is not None:  # it was done: another moment
            process.communicate()
            continue
        began = time.monotonic()
        process.send_signal(number)
        _, said = process.communicate(timeout=_LONGEST_S)
        if process.returncode == 0 and (folder / OUTPUT).exists() and not said:
            continue  # it had ended, and was not yet fetched
        sent += 1
        took = time.monotonic() - began
        found["slowest_s"], found["after_save"] = max(found["slowest_s"], took), found["after_save"] + bool(
            program.saved())
        say(f"{number.name} {sent}: exit {process.returncode} after {took:.2f} s: {said.strip()}; {program.saved()}")
        expect(process.returncode == CODES[number], f"expected exit code {CODES[number]}, got {process.returncode}")
        expect(said.startswith("error: ") and said.count("\n") == 1, f"expected one line, got {said!r}")
        expect(not list(_hidden(folder)), f"left behind: {list(_hidden(folder))}")
    return found


def _hidden(folder: Path) -> Iterator[Path]:
    """What should not be left: hidden names, but for the lock of saved states and the marker of a complete output."""
    for path in folder.rglob(".*"):
        if path.name not in (".lock", ".marsjax-run"):
            yield path
    if (folder / OUTPUT).exists() and not (folder / OUTPUT / ".marsjax-run").exists():
        yield folder / OUTPUT


def _wait_for_handlers(process: "subprocess.Popen[str]") -> None:
    """Until the program handles SIGHUP, the last of its handlers: before, it is Python that starts."""
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        caught = next(line for line in status.read_text().splitlines() if line.startswith("SigCgt:"))
        if int(caught.split()[1], 16) >> (signal.SIGHUP - 1) & 1:
            return
        time.sleep(0.001)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("kills", "signals"))
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--program", choices=list(WORDS), default="simulate", help="for signals")
    given = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background a shell has it ignored, and inherited
    with tempfile.TemporaryDirectory() as name:
        if given.what == "kills":
            print(kills(Path(name), given.count, given.seed), flush=True)
            return
        for number, count in ((signal.SIGINT, given.count), (signal.SIGTERM, given.count // 10),
                              (signal.SIGHUP, given.count // 10)):
            print(number.name, count, signals(Path(name), count, number, given.seed, given.program),
                  flush=True)


if __name__ == "__main__":
    main()
