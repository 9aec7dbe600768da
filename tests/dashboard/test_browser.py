"""The dashboard in a real browser, click by click, with a tiny model: what runs show, what they give away, a stop.

Needs Streamlit, Playwright and a Chromium (`marsjax[demo,browser]`, and one on the path). The pictures of the pages are
kept in the folder that MARSJAX_SCREENSHOTS names.
"""

import contextlib
import gzip
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd
import pytest

from marsjax import testing
from marsjax.checkpoint import converter_files
from marsjax.checkpoint import folder as checkpoint_folder
from marsjax.core import times
from marsjax.core.records import Kind
from marsjax.core.specs import ModelSpec
from marsjax.core.times import SECOND_NS
from marsjax.data import neutral
from marsjax.model import llama
from tests.helpers import fixture_folder

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytest.importorskip("streamlit", reason="the dashboard needs Streamlit: pip install 'marsjax[demo]'")
sync_api = pytest.importorskip("playwright.sync_api", reason="no browser to click with: pip install 'marsjax[browser]'")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the path")]
ROOT = Path(__file__).parent.parent.parent
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]
PATIENCE_MS = 900_000
"""A cold compilation takes minutes where other programs keep the processor busy."""
QUICKLY = "from tests import quick_compilation\nquick_compilation.switch(True)\n"
DAY_NS = 34_260 * SECOND_NS


class Server(NamedTuple):
    """A dashboard that runs."""

    address: str
    log: Path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One dashboard for all tests, with a model without training and a day of a minute."""
    folder = tmp_path_factory.mktemp("dashboard")
    spec = ModelSpec(embed_dim=8, heads=2, context_length=32)
    checkpoint_folder.save(folder / "model", llama.init(spec, jax.random.key(0)),
                           converter_files.read_folder(fixture_folder() / "converters"), {})
    write_day(folder / "day.csv")
    (folder / "sitecustomize.py").write_text(QUICKLY)  # which Python runs when it starts
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, log = f"http://127.0.0.1:{port}", folder / "log.txt"
    with log.open("w") as said:
        words = ["--port", str(port), "--model", str(folder / "model"), "--data", str(folder / "day.csv"),
                 "--feed", "csv"]
        paths = os.pathsep.join([str(folder), str(ROOT)])
        process = subprocess.Popen([sys.executable, "-m", "marsjax.experiments.dashboard", *words], cwd=folder,
                                   stdout=said, stderr=said,
                                   env={**os.environ, "PYTHONPATH": paths, "HOME": str(folder)})
        try:
            wait_for(f"{address}/_stcore/health", process)
            yield Server(address, log)
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()
            process.wait()
    text = log.read_text()
    assert "Traceback" not in text and "error" not in text.lower(), text


def write_day(path: Path) -> None:
    """Random orders of the minute before DAY_NS, as the feed `csv` has them."""
    orders = testing.random_orders(DAY_NS, around=500_000)
    count = len(orders.kind)
    table = pd.DataFrame({"time_ns": times.to_ns(orders.time), "type": np.array(["S", "B"])[
        (np.asarray(orders.kind) == Kind.BUY).astype(int)], "price": orders.price, "volume": orders.volume,
        "order_id": np.arange(count), "cancel_type": "None", "cancel_id": -1, "agent_id": 0})
    table[list(neutral.COLUMNS)].to_csv(path, index=False)


def wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert process.poll() is None, "the server ended"
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5):
            return
        time.sleep(0.1)
    raise TimeoutError(address)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield found
        found.close()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    found = Path(os.environ.get("MARSJAX_SCREENSHOTS") or tmp_path)
    found.mkdir(parents=True, exist_ok=True)
    return found


class Visitor:
    """Someone with a browser of their own."""

    def __init__(self, browser: Any, server: Server, pictures: Path) -> None:
        self.page = browser.new_context(viewport={"width": 1360, "height": 1000}).new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self._server, self._pictures = server, pictures

    def visit(self, name: str = "") -> None:
        self.page.goto(f"{self._server.address}/{name}")
        self.page.locator("h1").wait_for()
        self.rest()

    def rest(self) -> None:
        """Until the page has been drawn."""
        self.page.wait_for_timeout(300)
        self.page.locator('[data-testid="stApp"][data-test-script-state="notRunning"]').wait_for()

    def fill(self, **values: str) -> None:
        """Fields by their labels, with _ for spaces."""
        for name, value in values.items():
            field = self.page.get_by_label(name.replace("_", " "), exact=True)
            field.fill(value)
            field.press("Enter")
            self.rest()

    def choose(self, label: str, option: str) -> None:
        self.page.get_by_role("combobox", name=label).click()
        self.page.get_by_role("option", name=option).click()
        self.rest()

    def run(self) -> None:
        self.page.get_by_role("button", name="Run", exact=True).click()

    def result(self) -> None:
        self.page.get_by_role("heading", name="Download").wait_for()
        self.rest()

    def text(self) -> str:
        found: str = self.page.locator('[data-testid="stMain"]').inner_text()
        assert "Traceback" not in found
        return found

    def shown_pictures(self) -> int:
        """Pictures of the page, all of which have come."""
        images = self.page.locator('[data-testid="stMain"] img')
        for image in images.all():
            image.scroll_into_view_if_needed()
            assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 300
        return int(images.count())

    def download(self, name: str) -> bytes:
        with self.page.expect_download() as found:
            self.page.get_by_role("button", name=name).click()
        assert found.value.suggested_filename == name
        return Path(found.value.path()).read_bytes()

    def keep(self, name: str) -> None:
        """A picture of the whole page."""
        height = self.page.locator('[data-testid="stMain"]').evaluate("main => main.scrollHeight")
        self.page.set_viewport_size({"width": 1360, "height": min(max(int(height) + 20, 900), 4000)})
        self.page.wait_for_timeout(500)
        self.page.screenshot(path=self._pictures / f"{name}.png")
        self.page.set_viewport_size({"width": 1360, "height": 1000})


@pytest.fixture
def visitor(browser: Any, server: Server, pictures: Path, request: pytest.FixtureRequest) -> Iterator[Visitor]:
    found = Visitor(browser, server, pictures)
    yield found
    found.keep(f"last_of_{request.node.name}")  # what there was to see, if the test failed
    found.page.context.close()


def test_home_leads_to_the_pages(visitor: Visitor) -> None:
    visitor.visit()
    text = visitor.text()
    assert "1 x 8" in text and "cpu" in text and "day.csv" in text
    visitor.keep("home")
    for name in ("Market impact", "Stylized facts", "Detection", "Learning", "Control", "Forecast"):
        visitor.page.get_by_role("link", name=name).click()
        visitor.page.get_by_role("heading", name=name, exact=True).wait_for()


def test_a_forecast_whole_and_its_files(visitor: Visitor, browser: Any, server: Server, pictures: Path) -> None:
    """What the page says is what the files say; another visitor has seen nothing of it."""
    visitor.visit("forecast")
    visitor.fill(Total_minutes="1", Rollouts="6", Kept_whole="2", Seed="4")
    visitor.run()
    visitor.result()
    labels = pd.read_csv(io.BytesIO(visitor.download("labels.csv")))
    metrics = json.loads(visitor.download("metrics.json"))
    assert metrics["is_whole"] and metrics["asked"]["futures"]["seed"] == 4 and metrics["rollouts"]["trajectories"] == 6
    assert labels["trajectory"].tolist() == list(range(6)) and (labels["end"] == "TIME").all()
    shares = {"down": labels["label"] < -metrics["threshold"], "up": labels["label"] > metrics["threshold"]}
    text = visitor.text()
    for name, share in shares.items():
        assert re.search(rf"P\({name}\)\s+{share.mean():.0%}", text), name
    assert f"{labels['label'].mean() * 1e4:+.2f} bp" in text and f"{labels['orders'].sum():,} orders" in text
    orders = pd.read_csv(io.BytesIO(gzip.decompress(visitor.download("orders.csv.gz"))))
    assert orders["trajectory"].unique().tolist() == [0, 1]
    accepted = orders[orders["status"] == "ACCEPTED"].groupby("trajectory").size()
    assert accepted.tolist() == labels["orders"][:2].tolist()
    assert len(pd.read_csv(io.BytesIO(visitor.download("minutes.csv")))) == 6
    assert visitor.shown_pictures() == 3
    visitor.keep("forecast")
    other = Visitor(browser, server, pictures)
    other.visit("forecast")
    assert "then press Run" in other.text() and not other.shown_pictures()


def test_a_forecast_that_is_stopped_shows_what_there_is(visitor: Visitor) -> None:
    visitor.visit("forecast")
    visitor.fill(Total_minutes="200", Rollouts="6", Kept_whole="1")
    visitor.page.get_by_text("More", exact=True).click()
    visitor.fill(Flat_within_basis_points="1.5")
    visitor.run()
    visitor.page.locator('[data-testid="stMain"] img').first.wait_for()
    text = visitor.text()
    assert "a second" in text
    visitor.keep("forecast_running")
    # Streamlit's own toolbar has a Stop of its own while a script runs: this is the page's.
    visitor.page.get_by_test_id("stMain").get_by_role("button", name="Stop", exact=True).click()
    visitor.result()
    assert "Stopped: 0 of 6 futures had ended" in visitor.text() and visitor.shown_pictures() == 2
    assert "nan" not in visitor.text() and "there is no label yet" in visitor.text()
    assert not json.loads(visitor.download("metrics.json"))["is_whole"]
    assert visitor.page.get_by_role("button", name="Run", exact=True).is_enabled()
    visitor.keep("forecast_stopped")


def test_a_forecast_from_a_real_day_that_needs_a_threshold(visitor: Visitor) -> None:
    """A minute of orders is too short to choose a threshold by, and a time past the day's is none: both are said."""
    visitor.visit("forecast")
    visitor.choose("Start", "real day")
    visitor.fill(Start_time="half past nine", Total_minutes="1", Rollouts="2")
    visitor.page.get_by_label("Warm-up minutes", exact=True).fill("1")
    visitor.run()
    visitor.page.get_by_text("Start time: expected HH:MM:SS, as 10:00:00, got 'half past nine'").wait_for()
    visitor.keep("bad_parameter")
    visitor.fill(Start_time="09:30:00")
    visitor.run()
    visitor.page.get_by_text("expected at least 30 past labels").wait_for()
    visitor.page.get_by_text("More", exact=True).click()
    visitor.fill(Flat_within_basis_points="1.5")
    visitor.run()
    visitor.result()
    assert "at 09:31:00" in visitor.text() and visitor.shown_pictures() == 3
    assert json.loads(visitor.download("metrics.json"))["threshold"] == pytest.approx(1.5e-4)


def test_market_impact_whole(visitor: Visitor) -> None:
    visitor.visit("impact")
    visitor.fill(Volume_ratios="0.2, 0.5", Total_minutes="2", Rollouts="3")
    visitor.choose("Strategy", "immediate")
    visitor.run()
    visitor.result()
    executions = pd.read_csv(io.BytesIO(visitor.download("executions.csv")))
    assert sorted(executions["ratio"].unique()) == [0.2, 0.5] and len(executions) == 6
    metrics = json.loads(visitor.download("metrics.json"))
    assert metrics["is_whole"] and [row["rollouts"] for row in metrics["groups"]] == [3, 3]
    assert "12 markets" in visitor.text() and visitor.shown_pictures() == 3
    visitor.keep("impact")


def test_stylized_facts_whole(visitor: Visitor) -> None:
    visitor.visit("facts")
    days = visitor.page.get_by_role("combobox", name="Days")
    for key in ("Backspace", "Backspace", "Escape"):
        days.press(key)
        visitor.rest()
    visitor.fill(Total_minutes="4", Rollouts="3", Resamples="10")
    visitor.run()
    visitor.result()
    bars = pd.read_csv(io.BytesIO(gzip.decompress(visitor.download("bars.csv.gz"))))
    assert set(bars["symbol"]) == {"default"} and bars["rollout"].nunique() == 3
    verdicts = json.loads(visitor.download("metrics.json"))["verdicts"]
    assert [each["fact"] for each in verdicts] == list(range(1, 12))
    assert visitor.shown_pictures() == 12
    visitor.keep("facts")


def test_a_day_with_a_manipulator_is_watched_after_a_file_that_is_none(visitor: Visitor, tmp_path: Path) -> None:
    visitor.visit("detection")
    visitor.choose("Day from", "file")
    (tmp_path / "mine.csv").write_text("when,what\n1,2\n")
    visitor.page.locator('input[type="file"]').set_input_files(tmp_path / "mine.csv")
    visitor.page.get_by_text("mine.csv").first.wait_for()
    visitor.run()
    visitor.page.get_by_test_id("stMain").get_by_text("mine.csv").wait_for()
    visitor.keep("detection_bad_file")
    visitor.choose("Day from", "day of the model")
    visitor.choose("Put into the day", "layering")
    visitor.fill(Minutes_of_an_interval="1", Rollouts="4", First_interval="09:34:00", Last_end="09:38:00")
    visitor.run()
    visitor.result()
    rows = pd.read_csv(io.BytesIO(visitor.download("intervals.csv")))
    assert rows["clock"].tolist() == ["09:34:00", "09:35:00", "09:36:00", "09:37:00"]
    text = visitor.text()
    assert f"{rows['alarm'].sum()} alarms in 4 intervals" in text and "layering from 09:36:01 to 09:37:01" in text
    assert visitor.shown_pictures() == 1
    visitor.keep("detection")


def test_an_agent_learns_and_is_compared(visitor: Visitor) -> None:
    visitor.visit("learning")
    visitor.fill(Steps_of_an_episode="4", Seconds_of_a_step="1", Shares="400", Episodes="16",
                 Steps_of_the_training="1024", Agents="1")
    visitor.run()
    visitor.result()
    rows = pd.read_csv(io.BytesIO(visitor.download("comparison.csv")))
    assert list(dict.fromkeys(rows["contender"])) == ["agent", "twap", "immediate"]
    assert "1 agent, 1,024 steps" in visitor.text() and visitor.shown_pictures() == 2
    visitor.keep("learning")


def test_numbers_that_cannot_be_are_explained(visitor: Visitor) -> None:
    visitor.visit("impact")
    visitor.fill(Rollouts="0")
    visitor.run()
    visitor.page.get_by_text("Rollouts: expected at least 1, got 0").wait_for()
    assert visitor.page.get_by_role("button", name="Run", exact=True).is_enabled()
