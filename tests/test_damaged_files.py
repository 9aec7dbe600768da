"""Every reader of a file that is no feed, given damaged and hostile ones: a line that names the file, or what it says.

Never a traceback, a wait without end, memory above 2 GB, nor anything that is run.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.damaged_readers import CASES, study

ROOT = Path(__file__).parent.parent
MOST_BYTES, MOST_SECONDS = 2 * 10**9, 10


def alone(module: str, *arguments: str, folder: Path) -> dict[str, Any]:
    """What a module of the tests prints, run in a process of its own, whose memory is then its own too."""
    done = subprocess.run([sys.executable, "-m", module, *arguments], cwd=folder, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("reader", CASES)
def test_a_damaged_file_is_named_or_read_as_what_it_says(tmp_path: Path, reader: str) -> None:
    found = study(reader, 98, tmp_path / "files")
    assert found["faults"] == []
    assert found["refused"] > 40 and found["read"] + found["refused"] == 98


@pytest.mark.slow
def test_a_thousand_damaged_files_of_each_reader(tmp_path: Path) -> None:
    found = alone("tests.damaged_readers", "1000", str(tmp_path / "files"), folder=tmp_path)
    assert set(found) == set(CASES)
    assert {reader: one["faults"] for reader, one in found.items() if one["faults"]} == {}
    assert max(one["most_bytes"] for one in found.values()) < MOST_BYTES
    assert max(one["longest_s"] for one in found.values()) < MOST_SECONDS


@pytest.mark.parametrize("weight", ["light", pytest.param("heavy", marks=pytest.mark.slow)])
def test_hostile_files_are_refused_soon_and_in_little_memory(tmp_path: Path, weight: str) -> None:
    found = alone("tests.hostile_files", str(tmp_path / "files"), weight, folder=tmp_path)
    assert [(name, fault) for name, _, fault in found["cases"] if fault] == []
    assert len(found["cases"]) > 100
    assert max(seconds for _, seconds, _ in found["cases"]) < MOST_SECONDS
    assert found["most_bytes"] < MOST_BYTES
    assert not (tmp_path / "canary").exists()
