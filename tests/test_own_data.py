"""The page on data of one's own runs as it stands, in under forty lines."""

import re
import shutil
from pathlib import Path

import matplotlib.image
import pytest

from tests.helpers import fixture_folder

PAGE = (Path(__file__).parents[1] / "docs" / "own_data.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_from_a_csv_to_the_profit_of_an_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                              capsys: pytest.CaptureFixture[str]) -> None:
    (text,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len([line for line in text.splitlines() if line.strip()]) < 40
    shutil.copy(fixture_folder() / "book_noise_orders.csv.gz", tmp_path / "orders.csv.gz")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(text, names)
    said = capsys.readouterr().out
    for word in ("clock", "CONTINUOUS", "ACCEPTED", "bid_shares_ahead", "profit"):
        assert word in said
    picture = matplotlib.image.imread("depth.png")
    assert picture.shape[0] > 400 and picture[..., :3].std() > 0.05
    fills, accounts, own = names["fills"], names["accounts"], names["own"]
    mine = accounts[accounts["agent"] == "twap"].set_index("trajectory")
    bought = fills[fills["buy_agent_id"] == own].groupby("trajectory")["volume"].sum()
    assert len(mine) == 4 and (mine["holdings"] == bought.reindex(mine.index, fill_value=0)).all() and len(bought)
    assert (mine["fees"] >= 0).all() and mine["fees"].sum() > 0 and (mine["status"] == "TIME").all()
