"""States' files: whole or not there, of one identity, read together."""

import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from marsjax.core.errors import InputError
from marsjax.studies.fleet import ledger, results

pytest.importorskip("pyarrow")

COLUMNS = {"state": np.arange(3), "market": ["A", "A", "B"], "mids": np.arange(6.0).reshape(3, 2),
           "values": [np.zeros(0), np.ones(1), np.ones(2)]}


def test_what_is_written_is_read_again_and_equal_tables_are_equal_files(tmp_path: Path) -> None:
    books = [ledger.open_ledger(tmp_path / name, {"seed": 1}) for name in ("one", "other")]
    for book in books:
        book.write(7, COLUMNS, ["a side was full"])
        book.write(1_000_007, COLUMNS)
    assert books[0].path(7).read_bytes() == books[1].path(7).read_bytes()
    assert books[0].numbers() == [7, 1_000_007] and books[0].problems(7) == ("a side was full",)
    (first, _) = results.each(books[0])
    assert np.stack(first["mids"].to_list()).tolist() == COLUMNS["mids"].tolist()
    assert [len(each) for each in first["values"]] == [0, 1, 2]
    table = results.read(tmp_path / "one").to_table(columns=["market"]).to_pandas()
    assert table["market"].tolist() == 2 * COLUMNS["market"]


def test_a_file_that_is_cut_off_is_no_state(tmp_path: Path) -> None:
    book = ledger.open_ledger(tmp_path, {})
    book.write(0, COLUMNS)
    whole = book.path(0).read_bytes()
    told: list[int] = []
    book.write(1, COLUMNS)
    for size in (0, 3, len(whole) // 2, len(whole) - 1):
        book.path(0).write_bytes(whole[:size])
        assert results.read(tmp_path).to_table().num_rows == 3 and len(list(results.each(book))) == 1
    book.path(1).unlink()
    with pytest.raises(InputError, match="no state is done yet"):
        results.read(tmp_path)
    for size in (0, 3, len(whole) // 2, len(whole) - 1):
        book.path(0).write_bytes(whole[:size])
        assert not book.is_done(0) and not book.done(2, lambda number, _: told.append(number)).any()
    book.write(0, COLUMNS)
    assert book.done(2, lambda number, _: told.append(number)).tolist() == [True, False] and told == [0]


@pytest.mark.parametrize("call", ["write_bytes", "replace"])
def test_an_error_of_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    book = ledger.open_ledger(tmp_path, {})

    def full(path: Path, given: object) -> None:
        assert not book.path(0).exists()
        path.touch()
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, call, full)
    with pytest.raises(OSError, match="No space left"):
        book.write(0, COLUMNS)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / ledger.MANIFEST]


def test_a_folder_holds_one_identity(tmp_path: Path) -> None:
    record = {"config": {"seed": 1, "times": (1, 2)}, "model": "a"}
    book = ledger.open_ledger(tmp_path / "out", record)
    assert ledger.open_ledger(tmp_path / "out", record) == book == ledger.known_ledger(tmp_path / "out")
    with pytest.raises(InputError, match=r"another fleet: config\.seed was 1, is 2; model was 'a', is 'b': name"):
        ledger.open_ledger(tmp_path / "out", {"config": {"seed": 2, "times": [1, 2]}, "model": "b"})
    other = ledger.open_ledger(tmp_path / "other", {"config": {}})
    other.write(3, COLUMNS)
    book.path(3).parent.mkdir(parents=True)
    other.path(3).rename(book.path(3))
    with pytest.raises(InputError, match=r"3\.parquet: is a state of another fleet"):
        book.is_done(3)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="expected a new or empty folder"):
        ledger.open_ledger(tmp_path, {})
    for call in (ledger.known_ledger, results.read):
        with pytest.raises(InputError, match=r"found no fleet\.json in it"):
            call(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_who_comes_second_keeps_what_the_first_has_written(tmp_path: Path) -> None:
    for text in ("first", "second"):
        ledger._create(tmp_path / "sub" / ledger.MANIFEST, text)
    assert [path.read_text() for path in (tmp_path / "sub").iterdir()] == ["first"]


def test_a_folder_that_another_process_is_opening_is_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f".{ledger.MANIFEST}.0123abcd").write_text("{")
    first = ledger.open_ledger(tmp_path, {"seed": 1})
    assert first.identity == ledger.known_ledger(tmp_path).identity
    # The manifest and a state come after the first look for the manifest.
    first.write(0, COLUMNS)
    exists, looks = Path.exists, list[Path]()

    def late(path: Path) -> bool:
        looks.append(path)
        return len(looks) > 1 and exists(path)

    monkeypatch.setattr(Path, "exists", late)
    assert ledger.open_ledger(tmp_path, {"seed": 1}) == first and looks[0] == tmp_path / ledger.MANIFEST


def test_a_file_system_without_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(part: Path, path: Path) -> None:
        raise PermissionError(1, "Operation not permitted", str(part))

    monkeypatch.setattr(ledger.os, "link", link)
    test_who_comes_second_keeps_what_the_first_has_written(tmp_path)


def opened(folder: Path, number: int) -> str:
    return ledger.open_ledger(folder, {"seed": number % 2}).identity


def test_processes_that_begin_at_once_agree(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        same = pool.starmap(opened, [(tmp_path, 0)] * 6)
        assert len(set(same)) == 1 and [path.name for path in tmp_path.iterdir()] == [ledger.MANIFEST]
        with pytest.raises(InputError, match="seed was 0, is 1"):
            pool.apply(opened, (tmp_path, 1))
