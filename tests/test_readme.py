"""The examples of the README run as they stand, and what the READMEs name is there."""

import gzip
import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import marsjax
from marsjax.checkpoint import downloads
from tests import published
from tests.experiments import synthetic_day

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


def printed_after(text: str) -> str:
    """The indented lines that follow an example and show what it prints."""
    found = re.match(r"```\n\n((?:    .*\n)+)", README[README.index(text) + len(text):])
    assert found is not None
    return re.sub(r"^    ", "", found[1], flags=re.MULTILINE)


@pytest.mark.slow
def test_a_rollout_in_python_says_what_stands_below_it(capsys: pytest.CaptureFixture[str]) -> None:
    text = block("marsjax.rollout(")
    assert len([line for line in text.splitlines() if line and "import" not in line]) <= 10
    exec(text, {})
    numbers = [[float(x) for x in re.findall(r"\d+", line)] for line in (capsys.readouterr().out, printed_after(text))]
    # Another kind of CPU rounds sums of the model otherwise, and then other orders follow; never other prices at large.
    (ended, count, *mids), (_, shown, *others) = numbers
    assert ended == 16 and abs(count / shown - 1) < 0.2 and np.allclose(mids, others, rtol=0.01)


def commands() -> list[str]:
    """Lines of the README that run a program, as they are printed."""
    begins = r"(?:pip install -e \. && )?"
    return re.findall(rf"^    {begins}((?:marsjax|python -m marsjax)\b.*)$", README, flags=re.MULTILINE)


WRITTEN = {"forecast": "fan.png", "market_impact": "impact.png", "stylized_facts": "facts.png",
           "replay": "summary.json", "benchmark": "results.json", "import_checkpoint": "spec.json"}
"""What a program leaves in its folder, among others."""
ON_A_GPU = ("benchmark",)
"""Programs whose commands are meant for a GPU: on a CPU they take hours."""


def test_the_readme_is_short_and_has_its_commands() -> None:
    assert len(README.splitlines()) < 200
    assert len(commands()) >= 7 and {command.split()[1] for command in commands() if command.startswith("marsjax")} >= {
        "forecast", "market_impact", "stylized_facts", "import_checkpoint", "replay"}


@pytest.mark.slow
@pytest.mark.parametrize("command", [line for line in commands() if not any(name in line for name in ON_A_GPU)])
def test_a_command_runs_as_it_is_printed(command: str, tmp_path: Path) -> None:
    """In a folder as a reader's is: `configs/`, a CSV of orders, and what `marsjax download` has fetched."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    synthetic_day.write_traded_day(tmp_path, minutes=65)
    (tmp_path / "orders.csv.gz").write_bytes(gzip.compress((tmp_path / "orders.csv").read_bytes()))
    model = tmp_path / "home" / "published" / "Don-Don" / "mars-order-2m"
    if "Don-Don" in command:
        published.make(model)
        (model / downloads.RECORD).write_text(json.dumps({"commit": "0" * 40, "files": []}))
        assets = model.with_name("mars-order-assets")
        shutil.copytree(ROOT / "tests" / "fixtures" / "golden" / "converters_small", assets / "converters")
        (assets / downloads.RECORD).write_text(json.dumps({"commit": "0" * 40, "files": []}))
    words = shlex.split(command)
    started = ["-c", "import sys; from marsjax.experiments.command import main; sys.exit(main())"]
    line = [*started, *words[1:]] if words[0] == "marsjax" else words[1:]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MARSJAX_HOME": str(tmp_path / "home")}
    done = subprocess.run([sys.executable, *line], cwd=tmp_path, env=environment, capture_output=True, text=True,
                          timeout=1200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    program = words[1] if words[0] == "marsjax" else words[2].rpartition(".")[2]
    folder = next((Path(word.partition("=")[2]) for word in words if word.startswith("--output=")), None)
    (folder,) = (tmp_path / "runs").iterdir() if folder is None else [tmp_path / folder]
    assert (folder / WRITTEN[program]).is_file(), list(folder.iterdir())


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
