"""A run's folder appears whole or not at all; JSON takes what the library returns."""

import json
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from marsjax.core.records import Kind
from marsjax.experiments.run_folder import output_folder, write_json


def test_the_folder_appears_when_the_block_ends(tmp_path: pathlib.Path) -> None:
    target = tmp_path / "runs" / "first"
    with output_folder(target) as folder:
        (folder / "a.txt").write_text("a")
        assert folder.name.startswith(".first.")
        assert not target.exists()
    assert [path.name for path in target.iterdir()] == ["a.txt"]
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
    target.mkdir()
    (target / "old.txt").write_text("old")
    with pytest.raises(ValueError, match="exists"), output_folder(target):
        pytest.fail("the block must not run")
    with pytest.raises(ValueError, match="broke"), output_folder(target, overwrite=True):
        raise ValueError("broke")
    assert (target / "old.txt").read_text() == "old"
    with output_folder(target, overwrite=True) as folder:
        (folder / "new.txt").write_text("new")
    assert [path.name for path in target.iterdir()] == ["new.txt"]
    assert list(tmp_path.iterdir()) == [target]


def test_the_old_folder_comes_back_if_the_new_one_cannot_be_put_in_its_place(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "first"
    target.mkdir()
    (target / "old.txt").write_text("old")
    rename = pathlib.Path.rename

    def rename_but_the_new(path: pathlib.Path, to: pathlib.Path) -> pathlib.Path:
        if to == target and (path / "new.txt").exists():
            raise OSError("disk full")
        return rename(path, to)

    monkeypatch.setattr(pathlib.Path, "rename", rename_but_the_new)
    with pytest.raises(OSError, match="disk full"), output_folder(target, overwrite=True) as folder:
        (folder / "new.txt").write_text("new")
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["first", "first/old.txt"]


def test_a_folder_that_another_run_wrote_meanwhile_is_kept(tmp_path: pathlib.Path) -> None:
    target = tmp_path / "first"
    with pytest.raises(ValueError, match="exists"), output_folder(target), output_folder(target) as theirs:
        (theirs / "theirs.txt").write_text("")
    assert list(tmp_path.rglob("*")) == [target, target / "theirs.txt"]


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
