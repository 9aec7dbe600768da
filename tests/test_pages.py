"""The pages: their code runs as printed, their commands are ones, names, links and citations lead to what is there."""

import ast
import dataclasses
import importlib
import os
import pkgutil
import posixpath
import re
import shlex
import subprocess
import sys
import types
from html.parser import HTMLParser
from pathlib import Path

import pytest

import marsjax
from marsjax.experiments import command, import_checkpoint, launcher
from tests.test_readme import exists

pytestmark = pytest.mark.quick

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
STUDIES = sorted([*ROOT.glob("experiments/*/README.md"), *ROOT.glob("checkpoints/**/README.md")])
API = sorted((DOCS / "api").glob("*.md"))
SETTINGS = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
NAV = re.findall(r"^ +- (?:[^:\n]+: )?(\S+\.md)$", SETTINGS[SETTINGS.index("\nnav:"):], flags=re.MULTILINE)
OWN_TESTS = {"own_data.md", "how_to/service.md"}
"""Pages whose code other tests run."""


def id_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def printed_after(page: Path, code: str) -> str:
    """The first indented lines after a block, which show what it prints."""
    text = page.read_text(encoding="utf-8")
    found = re.search(r"(?:^    .*\n)+", text[text.index(code) + len(code):], flags=re.MULTILINE)
    assert found is not None
    return "".join(line[4:] for line in found[0].splitlines(keepends=True))


def run_page(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
             ) -> tuple[dict, list[str]]:
    """All blocks of a page, one after the other: what they define, and what each printed."""
    monkeypatch.chdir(folder)
    module = types.ModuleType("page_of_examples")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # dataclasses and NamedTuples look for theirs
    said = []
    for number, code in enumerate(blocks(DOCS / name)):
        exec(compile(code, f"{name}, block {number + 1}", "exec"), module.__dict__)
        said.append(capsys.readouterr().out)
    return vars(module), said


def test_every_page_with_code_is_run_by_a_test() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    for page in PAGES:
        name = page.relative_to(DOCS).as_posix()
        assert not blocks(page) or name in OWN_TESTS or f'"{name}"' in source, name


def test_a_table_of_orders_becomes_a_feed_and_a_table_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                            capsys: pytest.CaptureFixture[str]) -> None:
    names, _ = run_page("feeds.md", tmp_path, monkeypatch, capsys)
    given, back = names["orders"], names["back"]
    assert back["volume"].tolist() == given["size"].tolist()
    assert back["price"][:2].tolist() == given["price"][:2].tolist()


def test_a_loaded_model_says_what_the_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    name = "how_to/published_checkpoints.md"
    _, said = run_page(name, tmp_path, monkeypatch, capsys)
    assert said[0] == printed_after(DOCS / name, blocks(DOCS / name)[0])


@pytest.mark.slow
def test_the_tour_rolls_out_eight_futures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    names, said = run_page("index.md", tmp_path, monkeypatch, capsys)
    assert said[0].startswith("{'TIME': 8}") and names["run"].bars.mid_twice_last.shape == (8, 1)


def test_a_scenario_in_words_becomes_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    names, said = run_page("how_to/scenario_words.md", tmp_path, monkeypatch, capsys)
    assert [line.split()[0] for line in said[0].splitlines()] == ["return_bp", "volume"]
    curve, volume = (target.values for target in names["guide"].targets)
    assert curve[2:] == pytest.approx((-50, -37.5, -25)) and volume == (2e4,) * 5


@pytest.mark.slow
def test_controlled_futures_in_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                      capsys: pytest.CaptureFixture[str]) -> None:
    names, said = run_page("how_to/control.md", tmp_path, monkeypatch, capsys)
    assert said[0] == blocks(DOCS / "how_to/control.md")[0].rsplit("\n# ", 1)[1] and names["run"].ess.shape == (2, 1)


@pytest.mark.slow
def test_rollouts_in_python_and_books_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    names, said = run_page("how_to/rollouts.md", tmp_path, monkeypatch, capsys)
    assert said[0].startswith("{'TIME': 4} True") and "order model" in said[0]
    # It bought what it was to buy, or less at the end of its time; cash was paid for it.
    mine = names["run"].accounts().query("agent == 'twap'")
    assert (mine["holdings"] > 0).all() and (mine["holdings"] <= 1_000).all() and (mine["cash"] < 0).all()
    assert said[1] == blocks(DOCS / "how_to/rollouts.md")[1].rsplit("\n# ", 1)[1]


@pytest.mark.slow
def test_an_environment_buys_a_lot_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    names, _ = run_page("how_to/environment.md", tmp_path, monkeypatch, capsys)
    holdings = names["int64"].to_int32(names["seen"].account.holdings)
    assert names["done"].all() and (holdings > 0).all() and (holdings <= 1_000).all()


@pytest.mark.slow
def test_a_random_learner_in_eight_markets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                           capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gymnax", reason="extra rl")
    names, said = run_page("how_to/learning.md", tmp_path, monkeypatch, capsys)
    assert said == ["True (8, 12)\n", "(4,)\n", "['execution', 'market_making'] False 0\n"]
    assert (names["info"]["unfilled"] > 0).all()


@pytest.mark.slow
def test_a_part_of_the_trajectories_is_that_part_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                        capsys: pytest.CaptureFixture[str]) -> None:
    names, said = run_page("how_to/many_devices.md", tmp_path, monkeypatch, capsys)
    spec, run = names["spec"], names["run"]
    shared, of_part = said
    assert shared == "{'TIME': 8} True\n"
    assert of_part == "{'TIME': 4}\n" and (spec.trajectories, spec.first) == (4, 0)
    other = dataclasses.replace(spec, first=4)
    parts = [run, marsjax.rollout(names["simulator"], names["start"], other)]
    whole = marsjax.rollout(names["simulator"], names["start"], dataclasses.replace(spec, trajectories=8))
    mids = [row for part in parts for row in part.bars.mid_twice_last.tolist()]
    assert mids == whole.bars.mid_twice_last.tolist() and len({tuple(row) for row in mids}) > 1


@pytest.mark.slow
def test_a_momentum_agent_with_latency(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                       capsys: pytest.CaptureFixture[str]) -> None:
    name = "how_to/own_agent.md"
    names, said = run_page(name, tmp_path, monkeypatch, capsys)
    shown = printed_after(DOCS / name, blocks(DOCS / name)[0]).splitlines()
    found = said[0].splitlines()
    assert found[0] == shown[0] and len(found) == len(shown)  # the check is of a model that no training changes
    # Its orders arrive 45 ms after the second at which the market was as it saw it.
    assert found[2].endswith("{'.045000000'}") and shown[2].endswith("{'.045000000'}")
    run, sent, agent = names["run"], names["sent"], names["agent"]
    mine, trades = run.accounts().query("agent == 'momentum'").set_index("trajectory"), run.trades()
    bought = trades[trades["buy_agent_id"] == 2].groupby("trajectory")["volume"].sum()
    sold = trades[trades["sell_agent_id"] == 2].groupby("trajectory")["volume"].sum()
    assert len(sent) > 8 and len(sent) == run.agents["momentum"]["sent"] and not run.agents["momentum"]["refused"]
    assert set(sent["type"]) == {"B", "S"}
    assert (mine["holdings"] == bought.sub(sold, fill_value=0).reindex(mine.index, fill_value=0)).all()
    assert (mine["holdings"].abs() <= agent.most).all() and (mine["bid_orders"] + mine["ask_orders"] == 0).all()
    check_momentum(run, sent, agent)
    heard = ast.literal_eval(said[1])
    assert heard["sent"] > 2 * heard["wakes"] >= 2 * 3 * 8 and not heard["unsent"]  # the market maker


def check_momentum(run, sent, agent) -> None:
    """Each of its orders goes with the move of the mid over its ten seconds, as far as the tables show it."""
    books = run.snapshots("integer")[["trajectory", "time_ns", "ask_price_1", "bid_price_1"]].dropna()
    for row in sent.itertuples():
        saw = row.time_ns - 45_000_000
        past = books[(books["trajectory"] == row.trajectory) & (books["time_ns"] <= saw)]
        then = past[past["time_ns"] <= saw - agent.lookback * 10**9]
        if len(then):
            mids = [frame.iloc[-1][["ask_price_1", "bid_price_1"]].sum() for frame in (then, past)]
            assert (mids[1] - mids[0]) * (1 if row.type == "B" else -1) >= 2 * agent.threshold


@pytest.mark.slow
def test_an_observer_of_the_imbalance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                      capsys: pytest.CaptureFixture[str]) -> None:
    name = "how_to/own_observer.md"
    names, said = run_page(name, tmp_path, monkeypatch, capsys)
    shown = printed_after(DOCS / name, blocks(DOCS / name)[0]).splitlines()
    found = said[0].splitlines()
    assert (found[0], found[2]) == (shown[0], shown[2]) == ("(4, 60) True True", "True True")
    assert len(found[1].split()) == len(shown[1].split())  # the model's own draws
    assert names["imbalance"].std() != 0


@pytest.mark.slow
def test_a_forecast_from_a_csv_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                           capsys: pytest.CaptureFixture[str]) -> None:
    name = "how_to/forecasts.md"
    names, said = run_page(name, tmp_path, monkeypatch, capsys)
    shown = printed_after(DOCS / name, blocks(DOCS / name)[0]).splitlines()
    found = said[0].splitlines()
    assert [line.split() for line in found[:3]] == [line.split() for line in shown[:3]]  # the file and its replay
    assert found[-1] == shown[-1] == "{'TIME': 32} {}"
    result, labels = names["result"], names["labels"]
    assert result.count == 32 and sum(result.probabilities) == pytest.approx(1)
    assert result.quantiles[0.05] <= result.quantiles[0.5] <= result.quantiles[0.95]
    # The last mid of the file is that of the start.
    last = names["replay_day"](names["feed"], names["market"]).orders().iloc[-1]
    assert names["run"].mid_twice_start[0] == round((last["ask"] + last["bid"]) * 10_000)
    assert labels.std() > 0


def commands(page: Path) -> list[list[str]]:
    """Command lines of marsjax in indented and fenced code and in `code`, as words."""
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"\\\n\s*", " ", text)
    lines = re.findall(r"^    (.*)$", text, flags=re.MULTILINE) + re.findall(r"`([^`\n]+)`", text)
    found = []
    for line in lines:
        for part in line.split(" & "):
            words = re.match(r"(?:\w+=\S+ )*(?:python -m marsjax\.experiments\.|(?:docker run .* )?marsjax )([a-z_]+)"
                             r"((?:\s.*)?)$", part.strip())
            if words and words[1] != "command" and "$" not in words[2]:
                rest = re.sub(r"\s#.*$", "", words[2]).replace("[", "").replace("]", "")
                found.append([words[1], *shlex.split(rest)])
    return found


@pytest.mark.parametrize("page", [*PAGES, *STUDIES], ids=id_of)
def test_commands_are_right_to_the_last_key(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for name, *words in commands(page):
        words = [re.sub(r"\b(?:SOURCE)\b", "lobster", word) for word in words if word != "..."]
        module = importlib.import_module(f"marsjax.experiments.{name}")
        if hasattr(module, "_parser"):  # a command line of its own, without a config
            module._parser().parse_args(words)
            continue
        if not words:
            continue
        if name == "import_checkpoint":
            words = import_checkpoint.as_config_flags(words)
        parsed = launcher.parse(name, words)
        assert parsed.config is not None or parsed.text


def test_the_page_on_programs_has_all_of_them() -> None:
    text = (DOCS / "how_to" / "running.md").read_text(encoding="utf-8")
    names = [program.name for group in command.GROUPS.values() for program in group]
    assert [name for name in names if f"`{name}`" not in text] == []


def test_commands_are_found_in_the_pages() -> None:
    assert sum(len(commands(page)) for page in PAGES) > 40
    assert ["forecast", "--config=forecast"] in commands(DOCS / "index.md")


@pytest.mark.parametrize("page", PAGES, ids=id_of)
def test_names_and_links_lead_to_what_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    plain = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    names = set(re.findall(r"\bmarsjax(?:\.\w+)+", plain)) - {"marsjax.experiments.NAME"}
    assert [name for name in sorted(names) if not exists(name)] == []
    for link, anchor in re.findall(r"\]\((?!\w+:)([^)\s#]*)(?:#([^)\s]+))?\)", plain):
        target = (page.parent / link).resolve() if link else page
        assert target.is_file(), link
        if anchor and anchor.startswith("marsjax."):
            assert exists(anchor) and is_shown(anchor, target), anchor
        elif anchor:
            assert anchor in anchors(target), f"{link}#{anchor}"


def is_shown(name: str, page: Path) -> bool:
    """Whether an API page has a module with the name in it, shown with its members."""
    modules = re.findall(r"^::: (\S+)$(?!\n    options:\n      members: \[\])", page.read_text(encoding="utf-8"),
                         flags=re.MULTILINE)
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}


def test_the_navigation_has_every_page() -> None:
    there = {page.relative_to(DOCS).as_posix() for page in PAGES}
    beside = {page.relative_to(ROOT).as_posix() for page in STUDIES}
    assert len(NAV) == len(set(NAV))
    assert there | beside <= set(NAV)
    assert all((DOCS / path).is_file() or (ROOT / path).is_file() for path in NAV)


@pytest.mark.parametrize("page", [page for page in API if page.stem != "index"], ids=id_of)
def test_the_api_has_every_public_name_of_a_room(page: Path) -> None:
    named = re.findall(r"^# (marsjax\S*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(named) == 1
    room = importlib.import_module(named[0])
    missing = set()
    for name in getattr(room, "__all__", ()):
        found = getattr(room, name)
        if isinstance(found, types.ModuleType) and hasattr(found, "__path__"):
            continue  # a room in the room, with a page of its own
        home = getattr(found, "__name__" if isinstance(found, types.ModuleType) else "__module__", "")
        if str(home).startswith("marsjax") and not any(is_shown(str(home), other) for other in API):
            missing.add(f"::: {home}")
    assert not missing, f"add to {id_of(page)}: {sorted(missing)}"


def test_every_room_has_its_page() -> None:
    rooms = {module.name for module in pkgutil.iter_modules(marsjax.__path__)}
    assert rooms <= {page.stem for page in API}


def citations() -> dict[str, str]:
    """What docstrings cite of the reference, and where."""
    found = {}
    for path in sorted((ROOT / "marsjax").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for what in re.findall(r"[( ]reference: ([a-zA-Z]+(?:\s+(?!paper)[a-zA-Z]+)*)", node.value):
                    found[" ".join(what.split())] = path.relative_to(ROOT).as_posix()
    return found


def test_every_citation_of_the_reference_has_its_section() -> None:
    titles, cited = anchors(DOCS / "reference.md"), citations()
    assert len(cited) > 10
    missing = {what: where for what, where in cited.items() if what.lower().replace(" ", "-") not in titles}
    assert not missing


class Links(HTMLParser):
    """Ids, links and what a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.loaded: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.add(given["href"])
        if tag in ("script", "img", "source", "iframe") and "src" in given:
            self.loaded.add(given["src"])
        if tag == "link" and given.get("rel") in ("stylesheet", "preconnect", "icon"):
            self.loaded.add(given.get("href", ""))


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    for needed in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(needed)
    site = tmp_path / "site"
    done = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)], cwd=ROOT,
                          env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, timeout=600,
                          check=False)
    assert done.returncode == 0, done.stderr
    pages = {}
    for path in sorted(site.rglob("*.html")):
        pages[path] = Links()
        pages[path].feed(path.read_text(encoding="utf-8"))
    assert len(pages) >= len(NAV)
    wrong = []
    for path, page in pages.items():
        if path.name == "404.html":
            continue  # its links are from the site's root
        wrong += [f"{path}: loads {url}" for url in page.loaded if re.match(r"(https?:)?//", url)]
        for link in page.links:
            place, _, anchor = link.partition("#")
            if re.match(r"\w+:", link):
                continue
            target = Path(posixpath.normpath(path.parent / place)) if place else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                wrong.append(f"{path}: no {link}")
            elif anchor and target in pages and anchor not in pages[target].ids:
                wrong.append(f"{path}: no anchor {link}")
    assert not wrong, wrong[:10]
