"""The examples of the README run as they stand."""

import re
from pathlib import Path
from typing import Any

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def block(name: str) -> str:
    """The one example that holds a name."""
    (found,) = (text for text in BLOCKS if name in text)
    return str(found)


def test_the_book_says_what_stands_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    text = block("book.submit(")
    exec(text, {})
    assert capsys.readouterr().out == text.rsplit("\n# ", 1)[1]


@pytest.mark.slow
def test_an_agent_of_under_thirty_lines_keeps_to_the_rules(capsys: pytest.CaptureFixture[str]) -> None:
    text = block("class MarketMaker")
    assert len(text[text.index("@dataclasses"):text.index("print(")].strip().splitlines()) < 30
    exec(text, {"__name__": "example"})
    told = eval(capsys.readouterr().out)
    # It renews two quotes a second, eight seconds long, in three trajectories: none is refused, none too many.
    assert told["sent"] > 2 * told["wakes"] >= 2 * 3 * 8 and not told["unsent"] and not told["late_wakes"]
    assert told["refused"] < told["sent"] / 10


@pytest.mark.slow
def test_ten_lines_drive_eight_markets_from_outside() -> None:
    text = block("env.step(")
    assert len(text[text.index("market, model"):].strip().splitlines()) <= 10
    names: dict[str, Any] = {}
    exec(text, names)
    seen: Any = names["seen"]
    holdings = names["clock"].to_int32(seen.account.holdings)
    # A lot a second; the markets are the same at their start alone.
    assert names["done"].all() and (holdings > 0).all() and (holdings <= 1100).all()
    assert len(set(seen.view.mid_price_twice.tolist())) > 1
