"""A run's folder appears whole or not at all; JSON takes what the library returns."""

import errno
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from marsjax.core import unfinished
from marsjax.core.errors import InputError
from marsjax.core.records import Kind
from marsjax.experiments import run_folder
from marsjax.experiments.run_folder import MARKER, output_folder, write_json


def names(folder: pathlib.Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def make_run(target: pathlib.Path) -> None:
    """As an earlier run left it."""
    with output_folder(target) as folder:
        (folder / "old.txt").write_text("old")


def test_the_folder_appears_when_the_block_ends(tmp_path: pathlib.Path) -> None:
    target = tmp_path / "runs" / "first"
    with output_folder(target) as folder:
        (folder / "a.txt").write_text("a")
        assert folder.name.startswith(".first.")
        assert not target.exists()
    assert names(target) == [MARKER, "a.txt"]
    assert list(target.parent.iterdir()) == [target]


def write_and_raise(folder: pathlib.Path, error: BaseException) -> None:
    (folder / "a.txt").write_text("a")
    raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_broken_run_leaves_nothing(tmp_path: pathlib.Path, error: type[BaseException]) -> None:
    with pytest.raises(error), output_folder(tmp_path / "runs" / "deep" / "first") as folder:
        write_and_raise(folder, error())
    assert list(tmp_path.iterdir()) == []


def test_a_broken_run_leaves_the_parents_that_it_did_not_make(tmp_path: pathlib.Path) -> None:
    (tmp_path / "runs").mkdir()
    with pytest.raises(ValueError), output_folder(tmp_path / "runs" / "first"):
        raise ValueError
    assert (tmp_path / "runs").is_dir()


def test_an_existing_folder_is_kept_unless_overwritten(tmp_path: pathlib.Path) -> None:
    target = tmp_path / "first"
    make_run(target)
    with pytest.raises(ValueError, match=r"first exists.*\(old.txt\); replace it by --config.overwrite=true"), \
            output_folder(target):
        pytest.fail("the block must not run")
    with pytest.raises(ValueError, match="broke"), output_folder(target, overwrite=True):
        raise ValueError("broke")
    assert (target / "old.txt").read_text() == "old"
    with output_folder(target, overwrite=True) as folder:
        (folder / "new.txt").write_text("new")
    assert names(target) == [MARKER, "new.txt"]
    assert list(tmp_path.iterdir()) == [target]


def test_the_old_folder_comes_back_if_the_new_one_cannot_be_put_in_its_place(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "first"
    make_run(target)
    rename = pathlib.Path.rename

    def rename_but_the_new(path: pathlib.Path, to: pathlib.Path) -> pathlib.Path:
        if to == target and (path / "new.txt").exists():
            raise OSError("disk full")
        return rename(path, to)

    monkeypatch.setattr(pathlib.Path, "rename", rename_but_the_new)
    with pytest.raises(OSError, match="disk full"), output_folder(target, overwrite=True) as folder:
        (folder / "new.txt").write_text("new")
    assert names(tmp_path) == ["first"] and names(target) == [MARKER, "old.txt"]


def test_a_folder_that_another_run_wrote_meanwhile_is_kept(tmp_path: pathlib.Path) -> None:
    target = tmp_path / "first"
    with pytest.raises(ValueError, match="exists"), output_folder(target), output_folder(target) as theirs:
        (theirs / "theirs.txt").write_text("")
    assert names(tmp_path) == ["first"] and names(target) == [MARKER, "theirs.txt"]


def test_what_is_no_result_is_not_overwritten(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    inside = tmp_path / "work" / "inside"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    for target in ("../../file", ".", "..", tmp_path / "work"):
        with pytest.raises(ValueError, match="overwrite"), output_folder(target, overwrite=True):
            pytest.fail("the block must not run")


def test_json_of_arrays_and_scalars(tmp_path: pathlib.Path) -> None:
    record = {"n": np.int64(2**40), "x": np.float32(0.5), "on": np.bool_(True), "rows": jnp.arange(3), "kind": Kind.BUY,
              "nan": float("nan"), "deep": {"inf": np.array([1.0, np.inf])}, "path": pathlib.Path("a/b"), "none": None,
              "config": ConfigDict({"a": (1, 2)})}
    write_json(tmp_path / "a.json", record)
    assert json.loads((tmp_path / "a.json").read_text()) == {
        "n": 2**40, "x": 0.5, "on": True, "rows": [0, 1, 2], "kind": "BUY", "nan": None, "deep": {"inf": [1.0, None]},
        "path": "a/b", "none": None, "config": {"a": [1, 2]},
    }  # fmt: skip
    with pytest.raises(TypeError, match=r"deep\.rows\[1\]: .* got set"):
        write_json(tmp_path / "b.json", {"deep": {"rows": [1, {2}]}})
    assert not (tmp_path / "b.json").exists()


def test_a_folder_that_names_none_is_numbered(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = ConfigDict({"output": "", "overwrite": False})
    for expected in ("runs/noise", "runs/noise_2", "runs/noise_3"):
        output = run_folder.of_config(config, "noise")
        with output as folder:
            (folder / "a.txt").write_text(expected)
        assert str(output.path) == expected and (tmp_path / expected / "a.txt").read_text() == expected
    # Two that run at once do not get in each other's way.
    outputs = [run_folder.of_config(config, "noise") for _ in range(2)]
    with outputs[0], outputs[1]:
        pass
    assert {str(output.path) for output in outputs} == {"runs/noise_4", "runs/noise_5"}
    config.overwrite = True
    output = run_folder.of_config(config, "noise")
    with output:
        pass
    assert str(output.path) == "runs/noise" and names(tmp_path / "runs" / "noise") == [MARKER]
    config.output = "runs/noise_2"
    config.overwrite = False
    with pytest.raises(InputError, match=r"config\.output: runs/noise_2 exists"), run_folder.of_config(config, "noise"):
        pytest.fail("one that is named is not numbered")


@pytest.mark.parametrize("spoil", [
    lambda folder: (folder / "thesis.tex").write_text("mine"), lambda folder: (folder / MARKER).unlink(),
    lambda folder: (folder / MARKER).write_text("{"), lambda folder: (folder / MARKER).write_text('["old.txt"]'),
    lambda folder: (folder / MARKER).write_text('{"written_by": "me", "files": ["old.txt"]}'),
    lambda folder: (folder / "deep").mkdir() or (folder / "deep" / "old.txt").write_text("mine"),
    lambda folder: (folder / "link").symlink_to("/")])
def test_only_what_a_run_wrote_is_replaced(tmp_path: pathlib.Path, spoil: Callable[[pathlib.Path], Any]) -> None:
    target = tmp_path / "first"
    make_run(target)
    spoil(target)
    before = sorted((path, path.read_bytes() if path.is_file() else b"") for path in tmp_path.rglob("*"))
    with pytest.raises(InputError, match=r"did not write there.*which --config.overwrite=true does not"), \
            output_folder(target, overwrite=True):
        pytest.fail("the block must not run")
    assert sorted((path, path.read_bytes() if path.is_file() else b"") for path in tmp_path.rglob("*")) == before


def test_an_empty_folder_is_taken(tmp_path: pathlib.Path) -> None:
    with output_folder(tmp_path / "first") as folder:
        (tmp_path / "first").mkdir()
        (folder / "a.txt").write_text("a")
    assert names(tmp_path / "first") == [MARKER, "a.txt"] and names(tmp_path) == ["first"]


def test_errors_of_writing_name_the_path_that_was_asked_for(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
                                                            ) -> None:
    monkeypatch.chdir(tmp_path)

    def write(error: Exception, folder: pathlib.Path) -> None:
        if isinstance(error, OSError) and error.filename:
            error.filename = str(folder / error.filename)
        raise InputError(f"{folder}/a.csv: broken") if isinstance(error, InputError) else error

    def fail(error: Exception) -> str:
        with pytest.raises((OSError, InputError)) as caught, output_folder("runs/first") as folder:
            write(error, folder)
        assert list(tmp_path.iterdir()) == []
        return str(caught.value)

    full = "[Errno 28] config.output: cannot write: No space left on device"
    assert fail(OSError(errno.ENOSPC, "No space left on device", "a.csv")) == f"{full}: 'runs/first/a.csv'"
    assert fail(OSError(errno.ENOSPC, "No space left on device")) == f"{full}: 'runs/first'"
    assert fail(ValueError("INTERNAL: write failed: No space left on device\nmore\nlines")) == f"{full}: 'runs/first'"
    assert fail(InputError("")) == "runs/first/a.csv: broken"
    with pytest.raises(FileNotFoundError, match=r"'other\.csv'"), output_folder("runs/first"):
        raise FileNotFoundError(errno.ENOENT, "No such file", "other.csv")  # not of the output: as it is


def test_a_file_where_a_folder_should_be(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    for path in ("file/out", "file/deep/out"):
        with pytest.raises(NotADirectoryError, match=f"config.output: expected a folder where the file .*/file is: "
                                                     f"'{path}'"), output_folder(path):
            pytest.fail("the block must not run")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_place_that_may_not_be_written_to(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(PermissionError, match=r"config\.output: cannot write into .*'closed/out'"), \
            output_folder("closed/out"):
        pytest.fail("the block must not run")


def test_what_a_killed_run_left_is_taken_away_and_what_a_living_one_holds_is_not(tmp_path: pathlib.Path) -> None:
    target = tmp_path / "first"
    make_run(target)
    dead, moved = tmp_path / ".first.0123abcd", tmp_path / ".first.4567cdef.old"
    dead.mkdir()
    (dead / MARKER).write_text("")
    (tmp_path / ".first.notours").mkdir()
    with output_folder(tmp_path / "first", overwrite=True) as folder:
        (folder / "a.txt").write_text("a")
        assert not dead.exists()
        with output_folder(tmp_path / "first", overwrite=True):
            assert len(list(tmp_path.glob(".first.????????"))) == 2
    # Killed between the two renames of a replacement: the old result is put back.
    target.rename(moved)
    with pytest.raises(InputError, match="exists"), output_folder(target):
        pytest.fail("the block must not run")
    assert names(tmp_path) == [".first.notours", "first"]


def test_a_signal_at_any_moment_leaves_what_was_there(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the thread of the signals does, at each step of a replacement."""
    target = tmp_path / "first"
    make_run(target)
    rename, seen = pathlib.Path.rename, []

    def stop(path: pathlib.Path, to: pathlib.Path) -> pathlib.Path:
        done = rename(path, to)
        seen.append(path.name)
        if len(seen) == stop_at:
            monkeypatch.setattr(pathlib.Path, "rename", rename)
            unfinished.undo_all()
            raise KeyboardInterrupt
        return done

    # After the rename of the marker: the old is aside; the new is there.
    for stop_at, left in ((2, "old.txt"), (3, "new.txt")):  # noqa: B007 - `stop` reads it
        seen.clear()
        monkeypatch.setattr(pathlib.Path, "rename", stop)
        with pytest.raises(KeyboardInterrupt), output_folder(target, overwrite=True) as folder:
            (folder / "new.txt").write_text("new")
        assert names(tmp_path) == ["first"] and left in names(target)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "card.md"
    path.write_text("old")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "replace", full)
        with pytest.raises(OSError, match=r"No space left on device: '.*card\.md'"):
            run_folder.write_whole(path, "new")
    assert names(tmp_path) == ["card.md"] and path.read_text() == "old"
    run_folder.write_whole(path, "new")
    assert names(tmp_path) == ["card.md"] and path.read_text() == "new"
