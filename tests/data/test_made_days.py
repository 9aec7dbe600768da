"""Days that come with an order model: written, read back, and refused by name where they are damaged."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from marsjax.checkpoint import folder as checkpoint_folder
from marsjax.checkpoint import manifest
from marsjax.core.errors import InputError
from marsjax.core.records import Kind
from marsjax.core.sessions import continuous_session
from marsjax.core.times import SECOND_NS
from marsjax.data import made_days, neutral
from marsjax.data.feed import Venue

BEGIN_NS = 34_200 * SECOND_NS
START_NS = BEGIN_NS + 60 * SECOND_NS
BOOK = pd.DataFrame({"side": ["ask", "bid"], "price": [100_100, 99_900], "volume": [300, 500], "order_id": [0, 1]})
ORDERS = pd.DataFrame([(BEGIN_NS + SECOND_NS, "B", 100_100, 100, 2, "None", -1, 1),
                       (BEGIN_NS + 2 * SECOND_NS, "C", 100_100, 50, 3, "S", 0, 1)], columns=list(neutral.COLUMNS))


def written(folder: Path, name: str = "default") -> Path:
    venue = Venue(continuous_session(BEGIN_NS, BEGIN_NS + 7200 * SECOND_NS), tick=100, capacity=64)
    made_days.write(folder, name, venue, START_NS, (BOOK, ORDERS), {"mid": 100_000})
    return folder / made_days.FOLDER


def test_a_day_is_read_as_it_was_written(tmp_path: Path) -> None:
    written(tmp_path)
    day = made_days.open_day(tmp_path, "default")
    assert (day.start_ns, day.about, day.feed.name) == (START_NS, {"mid": 100_000}, "default")
    assert day.feed.venue.tick == 100 and day.feed.venue.capacity == 64
    (period,) = day.feed.venue.session.periods
    assert (period.start_ns, period.end_ns) == (BEGIN_NS, BEGIN_NS + 7200 * SECOND_NS)
    for _ in range(2):  # it can be read again
        book, orders = day.feed.read()
        assert book.is_synthetic.all() and book.orders.order_id.tolist() == [0, 1]
        assert orders.is_synthetic is None and orders.orders.kind.tolist() == [Kind.BUY, Kind.CANCEL]
        assert orders.orders.cancel_id.tolist() == [-1, 0]


def test_the_manifest_of_a_checkpoint_lists_its_days(tmp_path: Path) -> None:
    written(tmp_path)
    checkpoint_folder.seal(tmp_path)
    assert manifest.check(tmp_path) == [f"{made_days.FOLDER}/default{end}" for end in (".csv.gz", ".json",
                                                                                       "_book.csv.gz")]


def test_the_same_day_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = written(tmp_path / "a"), written(tmp_path / "b")
    names = sorted(path.name for path in first.iterdir())
    assert names == ["default.csv.gz", "default.json", "default_book.csv.gz"]
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names)


@pytest.mark.parametrize(("changes", "message"), [
    ({"format": "marsjax day 0"}, "expected format 'marsjax day 1' and the keys"), ({"more": 1}, "and the keys"),
    ({"about": []}, "and the keys"), ({"session": ["09:30:00"]}, "expected two times of day"),
    ({"session": 5}, "expected two times of day"), ({"session": ["10:00:00", "9"]}, "expected two times of day"),
    ({"start": "09:00:00"}, "start: expected a time in the session"), ({"start": None}, "expected two times of day"),
    ({"tick": 0}, "tick: expected a whole number"), ({"tick": True}, "tick: expected a whole number"),
    ({"capacity": 0}, "capacity"), ({"capacity": "64"}, "capacity"),
])
def test_a_damaged_description_is_refused_by_file_and_key(tmp_path: Path, changes: dict[str, Any], message: str
                                                          ) -> None:
    path = written(tmp_path) / "default.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")
    with pytest.raises(InputError, match=message) as error:
        made_days.open_day(tmp_path, "default")
    assert str(path) in str(error.value)


def test_a_day_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no day 'busy'; found: none"):
        made_days.open_day(tmp_path, "busy")
    place = written(tmp_path, "quiet")
    with pytest.raises(FileNotFoundError, match="no day 'busy'; found: quiet"):
        made_days.open_day(tmp_path, "busy")
    (place / "quiet_book.csv.gz").unlink()
    with pytest.raises(FileNotFoundError, match="quiet_book"):
        made_days.open_day(tmp_path, "quiet")
