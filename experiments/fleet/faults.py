"""A fleet of 40 states with faults: a worker killed by its process id, then the driver killed and started again.

    PYTHONPATH=. python experiments/fleet/faults.py --folder=data/sse

Runs a fleet without faults, then one with them, and compares their files byte by byte. Needs Linux (/proc).
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMAND = (sys.executable, "-m", "marsjax.experiments.fleet")


def command(folder: str, output: Path) -> list[str]:
    """The fleet's command line."""
    return [*COMMAND, f"--config=fleet:forecast,source=sse,folder={folder},symbol=601825+600761,every=10,"
            f"trajectories=4,minutes=1,output={output}", "--config.adapt_steps=0", "--config.workers=2",
            "--config.batch=5"]


def states(output: Path) -> dict[str, Path]:
    """The files of the states that are done."""
    return {path.name: path for path in sorted(output.glob("states/*/[0-9]*.parquet"))}


def workers(driver: int) -> list[int]:
    """Processes of Ray's workers that make states, below a driver."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            title = (place / "cmdline").read_bytes()
            parents = [int(place.name)]
            while parents[-1] > 1:
                status = Path(f"/proc/{parents[-1]}/stat").read_text()
                parents.append(int(status.rpartition(")")[2].split()[1]))
        except (OSError, ValueError):
            continue
        if title.startswith(b"ray::_RemoteWorker") and driver in parents:
            found.append(int(place.name))
    return found


def wait_for(output: Path, count: int, driver: subprocess.Popen) -> None:
    """Until so many states are done."""
    while len(states(output)) < count and driver.poll() is None:
        time.sleep(0.05)


def timed(words: list[str]) -> str:
    """Runs a fleet to its end; its line of counts."""
    began = time.perf_counter()
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    line = next((line for line in done.stdout.splitlines() if "states made" in line), done.stdout + done.stderr)
    return f"exit code {done.returncode} after {time.perf_counter() - began:.0f} s: {line}"


def main() -> None:
    """Runs both, and tells what came of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="data/sse")
    folder = parser.parse_args().folder
    with tempfile.TemporaryDirectory() as place:
        whole, faulty = Path(place) / "whole", Path(place) / "faulty"
        print("without faults:", timed(command(folder, whole)), flush=True)
        with subprocess.Popen(command(folder, faulty), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as driver:
            wait_for(faulty, 7, driver)
            victim = workers(driver.pid)[0]
            os.kill(victim, signal.SIGKILL)
            print(f"worker {victim} killed when {len(states(faulty))} states were done", flush=True)
            wait_for(faulty, 22, driver)
            driver.kill()
        before = {name: (path.stat().st_mtime_ns, path.stat().st_ino) for name, path in states(faulty).items()}
        print(f"driver killed when {len(before)} states were done", flush=True)
        time.sleep(5)
        print("started again:", timed(command(folder, faulty)), flush=True)
        ours, theirs = states(faulty), states(whole)
        same = [name for name in theirs if name in ours and ours[name].read_bytes() == theirs[name].read_bytes()]
        after = {name: (path.stat().st_mtime_ns, path.stat().st_ino) for name, path in ours.items()}
        kept = [name for name, was in before.items() if after[name] == was]
        tables = [(output / "forecasts.csv").read_bytes() for output in (whole, faulty)]
        print(f"{len(ours)} states, {len(same)} of {len(theirs)} files equal byte by byte; {len(kept)} of {len(before)}"
              f" done before the kill not written again; forecasts.csv equal: {tables[0] == tables[1]}")


if __name__ == "__main__":
    main()
