"""The examples of the README run as they stand, and what the READMEs name is there."""

import importlib
import pkgutil
import re
from pathlib import Path
from typing import Any

import pytest

import marsjax

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [path for pattern in ("*.md", "docs/*.md", "experiments/*/README.md", "checkpoints/**/README.md")
         for path in sorted(ROOT.glob(pattern))]
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
    heard = eval(capsys.readouterr().out)
    # It renews two quotes a second, eight seconds long, in three trajectories: none is refused, none too many.
    assert heard["sent"] > 2 * heard["wakes"] >= 2 * 3 * 8 and not heard["unsent"] and not heard["late_wakes"]
    assert heard["refused"] < heard["sent"] / 10


@pytest.mark.slow
def test_ten_lines_drive_eight_markets_from_outside() -> None:
    text = block("env.step(")
    assert len(text[text.index("market, model"):].strip().splitlines()) <= 10
    names: dict[str, Any] = {}
    exec(text, names)
    seen: Any = names["seen"]
    holdings = names["int64"].to_int32(seen.account.holdings)
    # A lot a second; the markets are the same at their start alone.
    assert names["done"].all() and (holdings > 0).all() and (holdings <= 1100).all()
    assert len(set(seen.view.mid_price_twice.tolist())) > 1


def exists(name: str) -> bool:
    """Whether a dotted name is one of a module, or of something in one."""
    parts, found = name.split(".")[1:], marsjax
    for i, part in enumerate(parts):
        try:
            found = importlib.import_module(".".join(["marsjax", *parts[: i + 1]]))
        except ModuleNotFoundError:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_names_of_modules_programs_configs_and_files_are_right(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    wrong = [name for name in re.findall(r"\bmarsjax(?:\.\w+)+", text) if name != "marsjax.experiments.NAME"
             and not exists(name)]
    configs = [name if "/" in name else f"configs/{name}.py"
               for name in re.findall(r"--config=([\w/]+(?:\.py)?)", text)]
    links = re.findall(r"\]\((\w[\w./]+)\)", text)
    files = re.findall(r"(?<![\w/.])(?:tests|configs|marsjax|experiments|checkpoints|docs)/[\w./]*\w", text)
    wrong += [name for name in configs if not (ROOT / name).is_file()]
    wrong += [name for name in links if not (page.parent / name).exists()]
    wrong += [name for name in files if not (ROOT / name).exists() and not name.startswith("checkpoints/2m")]
    assert not wrong


def test_the_layout_of_the_readme_has_every_room() -> None:
    listed = re.findall(r"^      (\w+)(?:/|\.py) ", README[README.index("## Layout"):], flags=re.MULTILINE)
    rooms = [module.name for module in pkgutil.iter_modules(marsjax.__path__)]
    assert sorted(listed) == sorted(rooms)
