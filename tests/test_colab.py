"""The notebooks run, from their first cell to their last."""

import json
import pathlib

import pytest

FOLDER = pathlib.Path(__file__).parent.parent / "colab"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def cells(path: pathlib.Path) -> list[str]:
    """The code of a notebook; cells of magics, which install it, are left out."""
    content = json.loads(path.read_text(encoding="utf-8"))
    code = ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == "code"]
    return [source for source in code if not source.startswith("%")]


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch,
                       capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    for source in cells(path):
        exec(compile(source, str(path), "exec"), names)
    if path.stem == "noise_market":
        printed = capsys.readouterr().out
        assert "1894 orders, 885 trades" in printed
        assert "500 of 1000 books traded" in printed


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_thin_and_holds_no_results(path: pathlib.Path) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    assert not any(cell.get("outputs") for cell in content["cells"])
    assert not any(line.startswith(("def ", "class ")) for source in cells(path) for line in source.splitlines())
