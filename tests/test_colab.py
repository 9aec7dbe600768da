"""The notebooks are thin and hold what they show; they run from their first cell to their last and show it again."""

import ast
import base64
import importlib.util
import itertools
import json
import os
import re
import resource
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import huggingface_hub
import pytest

from tests import published
from tests.helpers import fixture_folder

FOLDER = Path(__file__).parents[1] / "colab"
NAMES = ("control", "detection", "learning", "market_impact", "own_agent", "own_data", "published_checkpoint",
         "quickstart", "stylized_facts")
SAMPLED = "sampled"
"""Tag of cells whose figures may differ on another kind of processor."""
MOST_BYTES, MOST_PICTURE = 300_000, 90_000
MOST_S = float(os.environ.get("MARSJAX_NOTEBOOK_S", "300"))
"""Seconds of a notebook; a machine that is busy may need more."""
MOST_PROCESSOR_S = 2 * 300
"""Of processor time, whatever else the machine does: what two cores have in five minutes."""

each = pytest.mark.parametrize("name", NAMES)


def notebook(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def code(content: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in content["cells"] if cell["cell_type"] == "code"]


def pictures(cell: dict[str, Any]) -> list[bytes]:
    return [base64.b64decode("".join(each["data"]["image/png"])) for each in cell["outputs"]
            if "image/png" in each.get("data", {})]


def texts(cell: dict[str, Any]) -> Iterator[str]:
    """What a cell says, as text; of a picture its size in inches and its axes."""
    for each in cell["outputs"]:
        data = each.get("data", {})
        yield "".join(each["text"] if "text" in each else data.get("text/markdown", data["text/plain"]))


def said(content: dict[str, Any], cell_id: str) -> str:
    (cell,) = (cell for cell in content["cells"] if cell["id"] == cell_id)
    return "\n".join(texts(cell))


def words(text: str) -> list[str]:
    """Of its first line, without numbers."""
    return re.findall(r"[A-Za-z_]{2,}", text.strip().partition("\n")[0])


def runner() -> ModuleType:
    """colab/run.py."""
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    spec = importlib.util.spec_from_file_location("run_notebooks", FOLDER / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_notebooks_are_those_that_are_tested() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == list(NAMES)


@each
def test_the_first_cell_installs_and_is_the_same_everywhere(name: str) -> None:
    first = source(code(notebook(name))[0])
    assert first == source(code(notebook("quickstart"))[0])
    assert first.startswith('REPOSITORY = ""') and "%pip install" in first and 'find_spec("marsjax") is None' in first


@each
def test_a_notebook_is_thin(name: str) -> None:
    content = notebook(name)
    lines = [line for cell in code(content) for line in source(cell).splitlines()]
    defined = [line.split()[0] for line in lines if line.lstrip().startswith(("def ", "class "))]
    assert defined == (["class", "def", "def", "def"] if name == "own_agent" else [])
    assert max(map(len, lines)) <= 120
    assert [cell["id"] for cell in code(content) if len(source(cell).splitlines()) > 22] == (
        ["agent"] if name == "own_agent" else [])


@each
def test_words_stand_before_every_cell(name: str) -> None:
    cells = notebook(name)["cells"]
    kinds = [cell["cell_type"] for cell in cells]
    assert kinds[0] == "markdown" and source(cells[0]).startswith("# ")
    assert all(before == "markdown" for before, kind in itertools.pairwise(kinds) if kind == "code")


@each
def test_a_notebook_holds_the_outputs_of_its_code(name: str) -> None:
    content = notebook(name)
    assert [cell["execution_count"] for cell in code(content)] == list(range(1, len(code(content)) + 1))
    # A cell shows something where it ends in an expression; the first one ends in a magic.
    shows = [cell for cell in code(content)[1:] if isinstance(ast.parse(source(cell)).body[-1], ast.Expr)]
    assert len(shows) >= 4 and all(cell["outputs"] for cell in shows)
    assert len({picture for cell in code(content) for picture in pictures(cell)}) >= 2


@each
def test_the_outputs_are_of_the_code_that_stands_there(name: str) -> None:
    nbformat = pytest.importorskip("nbformat")
    found = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    assert found.metadata["marsjax"]["sha256"] == runner().code_hash(found), "run python colab/run.py"


@each
def test_no_output_is_an_error_a_warning_or_of_one_machine(name: str) -> None:
    content = notebook(name)
    assert set(content["metadata"]) == {"kernelspec", "language_info", "marsjax"}
    for cell in content["cells"]:
        assert set(cell["metadata"]) <= {"tags"} and set(cell["metadata"].get("tags", [])) <= {SAMPLED}
        for each in cell.get("outputs", []):
            assert each["output_type"] in ("stream", "display_data", "execute_result") and each.get("name") != "stderr"
        for text in texts(cell) if cell["cell_type"] == "code" else ():
            assert not re.search(r"/(home|root|tmp|usr|work|content)/|Warning|0x[0-9a-f]{6}", text)


@each
def test_a_notebook_and_its_pictures_are_small(name: str) -> None:
    assert (FOLDER / f"{name}.ipynb").stat().st_size < MOST_BYTES
    for picture in (picture for cell in code(notebook(name)) for picture in pictures(cell)):
        width, height = struct.unpack(">II", picture[16:24])
        assert 300 < width < 1000 and 150 < height < 800 and len(picture) < MOST_PICTURE


def test_what_differs_from_run_to_run_is_not_kept() -> None:
    nbformat = pytest.importorskip("nbformat")
    at = {"iopub.status.busy": "2024-01-01T00:00:00Z"}
    cell = nbformat.v4.new_code_cell("1", metadata={"execution": at, "tags": [SAMPLED]})
    cell.outputs = [nbformat.v4.new_output("stream", name=name, text="x") for name in ("stderr", "stdout")]
    found = nbformat.v4.new_notebook(cells=[cell], metadata={"language_info": {"name": "python", "version": "3.11.7"}})
    tidied = runner().tidy(found)
    assert cell.metadata == {"tags": [SAMPLED]} and [each.name for each in cell.outputs] == ["stdout"]
    assert tidied.metadata["language_info"] == {"name": "python"} and len(tidied.metadata["marsjax"]["sha256"]) == 64


def check_quickstart(content: dict[str, Any]) -> None:
    shares = [float(x) for x in re.findall(r"P\(\w+\) ([\d.]+)", said(content, "label"))]
    assert len(shares) == 3 and sum(shares) == pytest.approx(1, abs=2e-3)
    assert "64 labels (0 trajectories without one)" in said(content, "label")
    assert "ended: {'TIME': 64}" in said(content, "roll")
    assert "500 of 1000 books traded" in said(content, "book")


def check_control(content: dict[str, Any]) -> None:
    # Kind, interval, wanted, mean, error, share within 5 bp, effective share, share with descendants.
    rows = [line.split()[1:] for line in said(content, "compare").splitlines()[1:11]]
    free, held = ([[float(x) for x in row[1:]] for row in rows if row[0] == kind]
                  for kind in ("uncontrolled", "controlled"))
    assert len(free) == len(held) == 5 and all(row[-1] == 1 for row in free)
    assert all(mine[3] < other[3] and mine[4] >= other[4] for mine, other in zip(held, free, strict=True))
    left = [row[-1] for row in held]
    assert left == sorted(left, reverse=True) and 0 < left[-1] < 0.5
    apart = eval(said(content, "islands"))
    assert len(apart["ancestors"]) == 4 and all(1 <= each <= 16 for each in apart["ancestors"])


def check_market_impact(content: dict[str, Any]) -> None:
    # Of each size: target, lost, then a mean with its interval for every column.
    rows = [re.findall(r"[-+\d.e]+", line.replace("[", " ")) for line in said(content, "report").splitlines()[1:4]]
    impacts = [float(row[3 + 3 * 4]) for row in rows]
    assert [int(row[2]) for row in rows] == [0, 0, 0]
    assert 0 < impacts[0] < impacts[2] and [float(row[3]) for row in rows] == pytest.approx([1] * 3, abs=0.02)


def check_stylized_facts(content: dict[str, Any]) -> None:
    table = said(content, "verdict").splitlines()
    assert len(table) == 13 and table[0] == "| fact | Simulation | noise agent | paper |"
    tails = next(row for row in table if "heavy tails" in row)
    assert tails.split("|")[2].strip().startswith("present")
    assert 60 <= int(said(content, "panel").split()[0]) <= 72


def check_own_agent(content: dict[str, Any]) -> None:
    checked, run = (eval(said(content, cell)) for cell in ("check", "run"))
    for did in (*checked.values(), *run.values()):
        assert did["wakes"] >= did["sent"] > 0 and not did["late_wakes"] and not did["unsent"]
    assert run["fast"]["wakes"] == 16 * 61


def check_own_data(content: dict[str, Any]) -> None:
    assert "1894 orders, 885 trades" in said(content, "replay")
    assert "32 files" in said(content, "files")
    holdings = [int(line.split()[2]) for line in said(content, "accounts").splitlines()[1:9]]
    assert all(0 < each <= 2_000 for each in holdings)


def check_published_checkpoint(content: dict[str, Any]) -> None:
    (loss,) = re.findall(r"loss ([\d.]+) nats", said(content, "validate"))
    assert 4 < float(loss) < 9.5  # drawn evenly: 10.8
    assert "the same model: True" in said(content, "keep")


def check_detection(content: dict[str, Any]) -> None:
    report = said(content, "report")
    counts = re.findall(r"(\d+) of (?:its )?(\d+)", report.splitlines()[-1])
    assert [int(of) for _, of in counts] == [1, 12, 11] and "in 24 intervals of 2 minutes" in report
    areas = [[float(x) for x in found] for found in re.findall(r"area ([\d.]+) \(([\d.]+) to ([\d.]+)\)",
                                                             said(content, "roc"))]
    assert len(areas) == 2 and all(low <= value <= high for value, low, high in areas)
    (none, *_), (some, *_) = areas
    assert none < some


def check_learning(content: dict[str, Any]) -> None:
    first = dict(line.split() for line in said(content, "observe").splitlines()[:-1])
    assert float(first["remaining"]) == float(first["time_left"]) == 1 and len(first) == 12
    reward = [float(x) for x in re.findall(r"reward ([-+][\d.]+)", said(content, "train"))]
    assert len(reward) == 8 and reward[-1] > reward[0]
    lines = said(content, "compare").splitlines()
    assert [line.split("arrival")[0].split(None, 1)[1].strip() for line in lines if line] == [
        "agent", "twap", "agent less twap"]
    value, low, high = (float(x) for x in re.findall(r"arrival ([-+\d.]+) \(([-+\d.]+) to ([-+\d.]+)\)", lines[2])[0])
    assert low <= value <= high


CHECKS = {"control": check_control, "detection": check_detection, "learning": check_learning,
          "market_impact": check_market_impact, "own_agent": check_own_agent, "own_data": check_own_data,
          "published_checkpoint": check_published_checkpoint, "quickstart": check_quickstart,
          "stylized_facts": check_stylized_facts}


@each
def test_the_figures_that_a_notebook_holds_keep_to_their_laws(name: str) -> None:
    CHECKS[name](notebook(name))


def processor_s() -> float:
    """Processor time of the processes that this one has started and seen end: kernels of notebooks are such."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.slow
@each
def test_a_notebook_runs_and_shows_what_it_holds(name: str, tmp_path: Path) -> None:
    stored, before_s = notebook(name), processor_s()
    ran = json.loads(json.dumps(runner().execute(FOLDER / f"{name}.ipynb", tmp_path, MOST_S)))
    assert 1 < processor_s() - before_s < MOST_PROCESSOR_S
    for old, new in zip(code(stored), code(ran), strict=True):
        before, after = list(texts(old)), list(texts(new))
        if SAMPLED in old["metadata"].get("tags", []):
            assert list(map(words, before)) == list(map(words, after)), old["id"]
        else:
            assert before == after, old["id"]
        assert len(pictures(old)) == len(pictures(new))
    CHECKS[name](ran)


@pytest.mark.slow
def test_with_its_switch_on_a_notebook_takes_the_model_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                                    capsys: pytest.CaptureFixture[str]) -> None:
    # In the layout of the hub: the model in one repository, converters and samples in another.
    model, assets = published.make(tmp_path / "model"), tmp_path / "assets"
    shutil.copytree(fixture_folder() / "converters_small", assets / "converters")
    features = published.random_features()
    told = published.greedy(published.random_params(), features)
    published.write_samples(assets / "validation-samples", features, told)
    hub = published.FakeHub(tmp_path / "cache", {("Don-Don/mars-order-2m", "model"): model,
                                                 ("Don-Don/mars-order-assets", "dataset"): assets})
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub.file)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for cell in code(notebook("published_checkpoint")):
        if cell["id"] not in ("install", "futures", "fan"):
            exec(source(cell).replace("DOWNLOAD = False", "DOWNLOAD = True"), names)
    assert hub.calls and "top-1 100.0%" in (shown := capsys.readouterr().out) and "the same model: True" in shown
    assert not (tmp_path / "published").exists() and len(names["axes"].patches) == 3 * 8  # kinds and bins of prices
