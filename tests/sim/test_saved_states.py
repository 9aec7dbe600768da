"""Saved states: whole or not there, each flipped bit is found, one run at a time, and what lies beside them fits."""

import errno
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax.core import unfinished
from marsjax.core.errors import InputError
from marsjax.sim import saved_states
from marsjax.sim.resume import Saving
from marsjax.sim.saved_states import DamagedError, SavedStates

IDENTITY = {"seed": 3, "numbers": [1, 2]}
ROOT = Path(__file__).parents[2]


def arrays(number: int) -> dict[str, Any]:
    return {"a": jnp.arange(3, dtype=jnp.int32) + number, "b": (jnp.ones((2, 0)), np.array([True, False])),
            "c": jnp.full((), number, jnp.bfloat16), "d": np.arange(5, dtype=np.uint8)}


def shape(x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0]))


def like() -> Any:
    return jax.tree.map(shape, arrays(0))


def save(folder: Path, *numbers: int) -> None:
    with SavedStates(folder, IDENTITY) as states:
        for number in numbers:
            states.save(number, {"steps": number}, arrays(number))


def newest(folder: Path, identity: dict[str, Any] = IDENTITY) -> saved_states.SavedState | None:
    with SavedStates(folder, identity) as states:
        return states.newest(like())


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_state_comes_back_and_two_are_kept(tmp_path: Path) -> None:
    assert newest(tmp_path / "deep" / "state") is None
    folder = tmp_path / "state"
    save(folder, 5, 9, 10)
    assert names(folder) == [".lock", "10", "10.sha256", "9", "9.sha256"]
    found = newest(folder)
    assert found is not None and (found.number, found.record) == (10, {"steps": 10})
    for got, expected in zip(jax.tree.leaves(found.arrays), jax.tree.leaves(arrays(10)), strict=True):
        assert got.dtype == expected.dtype and got.shape == expected.shape
        np.testing.assert_array_equal(got, np.asarray(expected))


def test_every_flipped_bit_and_every_cut_is_found(tmp_path: Path) -> None:
    """A bit of bytes all over every file, and many lengths: the state before is taken up."""
    folder = tmp_path / "state"
    save(folder, 1, 2)
    draw = np.random.default_rng(0)
    paths = [path for path in (folder / "2").rglob("*") if path.is_file()]
    with SavedStates(folder, IDENTITY) as states:
        for path in [*paths, folder / "2.sha256"]:
            whole = path.read_bytes()
            for at in range(0, len(whole), 1 + len(whole) // 60):
                flipped = bytearray(whole)
                flipped[at] ^= 1 << int(draw.integers(8))
                for content in (bytes(flipped), whole[:at], whole[:at] + b"\0" + whole[at:]):
                    path.write_bytes(content)
                    with pytest.raises(DamagedError):
                        states.check_whole(2)
            found = states.newest(like())
            assert found is not None and found.number == 1
            path.write_bytes(whole)
        assert getattr(states.newest(like()), "number", None) == 2


def test_the_newest_whole_state_is_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "state"
    save(folder, 1, 2)
    (folder / "2" / "about" / "metadata").write_bytes(b"damaged")
    found = newest(folder)
    assert found is not None and found.number == 1
    assert "damaged saved state 2: about/metadata does not fit its checksum; taking up 1" in caplog.text
    with SavedStates(folder, IDENTITY) as states:
        states.newest(like())
        states.save(2, {"steps": 2}, arrays(2))  # the same number again, and the whole one before it is kept
        assert states.numbers() == [1, 2]
    assert getattr(newest(folder), "number", None) == 2
    (folder / "3").mkdir()  # a save that was cut off before its checksums
    (folder / "20").mkdir()
    (folder / "20" / "about").symlink_to("/dev/zero")
    (folder / "20.sha256").write_text("{}")
    assert getattr(newest(folder), "number", None) == 2
    for number in (1, 2):
        shutil.rmtree(folder / str(number))
    with pytest.raises(InputError, match=r"state: no saved state is whole \(20: .*about.*\); remove"):
        newest(folder)


def test_states_of_another_run_are_refused_by_their_first_difference(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    save(folder, 1)
    with pytest.raises(InputError, match="saved by another run: seed: expected 4, found 3"):
        newest(folder, {**IDENTITY, "seed": 4})
    long = {**IDENTITY, "simulation": "x" * 5000}
    with pytest.raises(InputError, match="another run: simulation: expected") as caught:
        newest(folder, long)
    assert len(str(caught.value)) < 500 + len(str(folder))
    with SavedStates(folder, IDENTITY) as states, pytest.raises(InputError, match="other shapes or types"):
        states.newest({**like(), "a": shape(np.zeros(4, np.int32))})


PROGRAM = """
import sys
from marsjax.sim.saved_states import SavedStates
with SavedStates(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_run_is_refused_with_the_first_ones_process(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path / "state")], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
                          ) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"state: another run uses these saved states, process {other.pid} on"):
            newest(tmp_path / "state")
        other.kill()
        other.wait()
        assert newest(tmp_path / "state") is None  # the lock dies with its process


def test_a_folder_that_cannot_be_written_is_found_when_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                                    ) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "state"):
        with pytest.raises(NotADirectoryError, match=str(path)), SavedStates(path):
            pytest.fail("the block must not run")
    save(tmp_path / "state", 1)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with SavedStates(tmp_path / "state", IDENTITY) as states:
        monkeypatch.setattr(saved_states.os, "fsync", full)
        with pytest.raises(OSError, match=r"cannot keep saved states: No space left on device: '.*/state'"):
            states.save(2, {}, arrays(2))
        monkeypatch.undo()
        assert names(tmp_path / "state") == [".lock", "1", "1.sha256"]
    monkeypatch.setattr(saved_states.pathlib.Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"cannot keep saved states: No space left on device"), \
            SavedStates(tmp_path / "state"):
        pytest.fail("the block must not run")
    assert names(tmp_path / "state") == [".lock", "1", "1.sha256"]


def test_a_save_that_is_cut_off_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a signal, whose thread undoes it; by a kill, whose remains the next run takes away."""
    folder = tmp_path / "state"
    save(folder, 1)

    def stop(_: Any) -> None:
        unfinished.undo_all()
        raise KeyboardInterrupt

    with SavedStates(folder, IDENTITY) as states, monkeypatch.context() as patch:
        patch.setattr(saved_states.os, "fsync", stop)
        with pytest.raises(KeyboardInterrupt):
            states.save(2, {}, arrays(2))
    assert names(folder) == [".lock", "1", "1.sha256"]
    (folder / "2.orbax-checkpoint-tmp-7").mkdir()
    assert getattr(newest(folder), "number", None) == 1
    save(folder, 2)
    assert "2.orbax-checkpoint-tmp-7" not in names(folder)


@pytest.mark.parametrize("every_s", [float("nan"), float("inf"), -1.0, 1e-310, 1e10])
def test_a_time_between_saves_that_is_none_is_refused(every_s: float) -> None:
    with pytest.raises(InputError, match=r"Saving\.every_s: expected 0, or 0\.001 to 1e\+09 seconds, got"):
        Saving("state", every_s)


@pytest.mark.parametrize(("raised", "expected"), [
    (ValueError("ours"), ValueError), (RuntimeError("ours"), RuntimeError), (KeyError("ours"), KeyError),
    (ValueError("RESOURCE_EXHAUSTED: writing x: No space left on device"), OSError)])
def test_only_a_full_disk_is_told_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: Exception,
                                         expected: type[Exception]) -> None:
    """An error of ours keeps its type; after either nothing is left of the save."""
    folder = tmp_path / "state"
    save(folder, 1)

    def failing(_: Path) -> None:
        raise raised

    with SavedStates(folder, IDENTITY) as states:
        monkeypatch.setattr(saved_states, "_checksums", failing)
        with pytest.raises(expected, match=r"ours|cannot keep saved states: No space left on device"):
            states.save(2, {}, arrays(2))
        assert names(folder) == [".lock", "1", "1.sha256"]


def test_a_rollout_s_other_messages_are_heard_while_states_are_open(tmp_path: Path) -> None:
    logger = logging.getLogger("absl")
    before = logger.level
    with SavedStates(tmp_path / "state", IDENTITY) as states:
        assert logger.level == before
        states.save(1, {}, arrays(1))
        assert logger.level == before
