"""What is handed out works away from the checkout: the wheel makes a forecast, the tests of the sdist run."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUILT = ("build", "dist", "runs", ".git", ".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis",
         "__pycache__", "*.egg-info")
SOME_TESTS = ["tests/test_public_project.py", "tests/core/test_int64_and_times.py", "tests/market/test_orders.py",
              "tests/checkpoint/test_importer.py"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both distributions; the wheel is made of the sdist."""
    folder = tmp_path_factory.mktemp("built")
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*BUILT))
    subprocess.run([sys.executable, "-m", "build", "--outdir", folder, source], check=True, timeout=300,
                   capture_output=True)
    return folder


def run(*words: object, cwd: Path, path: Path, minutes: int = 5) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(path), "JAX_PLATFORMS": "cpu"}
    environment.pop("PYTEST_ADDOPTS", None)
    return subprocess.run([sys.executable, *map(str, words)], cwd=cwd, env=environment, capture_output=True, text=True,
                          timeout=60 * minutes, check=False)


@pytest.mark.slow
def test_the_wheel_makes_the_default_forecast(built: Path, tmp_path: Path) -> None:
    site, away = tmp_path / "site", tmp_path / "away"
    away.mkdir()
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site,
                    *built.glob("*.whl")], check=True, timeout=300)
    assert (site / "bin" / "marsjax").is_file()
    wrong = run("-m", "marsjax.experiments.forecast", "--config=configs/forecast.py", cwd=away, path=site)
    assert wrong.returncode == 2 and "--config=forecast" in wrong.stderr
    done = run("-m", "marsjax.experiments.forecast", "--config=forecast:trajectories=8", cwd=away, path=site)
    assert done.returncode == 0, done.stderr
    folder = away / "runs" / "forecast_default"
    assert {"fan.png", "labels.csv", "metrics.json"} <= {path.name for path in folder.iterdir()}
    assert json.loads((folder / "metrics.json").read_text())["rollouts"]["trajectories"] == 8


@pytest.mark.slow
def test_the_sdist_has_all_that_is_kept_and_its_tests_run(built: Path, tmp_path: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as content:
        content.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    if (ROOT / ".git").exists() and shutil.which("git"):
        kept = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
        assert [name for name in kept if (ROOT / name).is_file() and not (folder / name).is_file()] == []
    done = run("-m", "pytest", "-n", "0", "-p", "no:cacheprovider", *SOME_TESTS, cwd=folder, path=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout or "100%" in done.stdout
