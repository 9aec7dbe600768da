"""`marsjax download` against a hub on this machine: what comes, what stays, what is told, and who finds it."""

import os
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest

import marsjax
from marsjax.checkpoint import downloads, hub
from marsjax.core.errors import InputError
from marsjax.experiments import download
from tests import published
from tests.helpers import fixture_folder
from tests.hub_server import COMMIT, Hub, serving

MODEL, ASSETS = "Don-Don/mars-order-2m", "Don-Don/mars-order-assets"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Hub]:
    model = published.make(tmp_path / "model")
    (model / "README.md").write_text("a card")
    assets = tmp_path / "assets"
    (assets / "converters").mkdir(parents=True)
    for file in (fixture_folder() / "converters_small").iterdir():
        (assets / "converters" / file.name).write_bytes(file.read_bytes())
    published.write_samples(assets / "validation-samples", published.random_features(count=2), np.array([1, 2]))
    (assets / "stylized-facts").mkdir()
    (assets / "stylized-facts" / "rollouts.zstd").write_bytes(b"x" * 5000)
    with serving(Hub({(MODEL, "model"): model, (ASSETS, "dataset"): assets})) as found:
        yield found


def run(at: Hub, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The program, in a process of its own: the hub's client reads its address as it is imported."""
    environment = {**os.environ, "HF_ENDPOINT": at.url, "MARSJAX_HOME": str(home), "HF_HUB_DISABLE_XET": "1",
                   "HF_HUB_DISABLE_PROGRESS_BARS": "1", "NO_PROXY": "127.0.0.1", "HF_HOME": str(home / "hf")}
    return subprocess.run([sys.executable, "-m", "marsjax.experiments.download", *words], env=environment,
                          capture_output=True, text=True, timeout=120, check=False)


def test_all_that_belongs_to_a_model_comes_and_is_found(served: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                        ) -> None:
    home = tmp_path / "home"
    first = run(served, home, MODEL)
    assert (first.returncode, first.stderr) == (0, "")
    assert f"{MODEL}: 2 files fetched, 0 were there, 0 missing" in first.stdout
    assert f"marsjax import_checkpoint --source={MODEL}" in first.stdout and "stylized-facts" in first.stdout
    assert not (home / "published" / MODEL / "README.md").exists()
    monkeypatch.setenv("MARSJAX_HOME", str(home))
    assert downloads.downloaded() == [MODEL, ASSETS]
    assert [path.name for path in downloads.facts_files()] == ["rollouts.zstd"]
    # Found without the hub, by its name.
    monkeypatch.setattr(hub, "fetch", None)
    loaded = marsjax.load_order_model(MODEL)
    assert loaded.spec == published.SPEC and len(loaded.converters) == 13
    assert (loaded.about["revision"], loaded.about["assets"]) == (COMMIT, ASSETS)
    assert downloads.find(MODEL, "another") is None
    # A file that was changed since is no part of any result.
    config = home / "published" / MODEL / "config.json"
    was = config.read_bytes()
    config.write_bytes(was + b" ")
    with pytest.raises(InputError, match="is not what was downloaded; run `marsjax download` again"):
        downloads.find(MODEL)
    config.write_bytes(was)
    # Again: nothing is sent, and what the hub has no more is gone.
    (home / "published" / ASSETS / "converters" / "old.zstd").write_bytes(b"old")
    served.sent.clear()
    again = run(served, home, MODEL)
    assert again.returncode == 0 and f"{MODEL}: 0 files fetched, 2 were there" in again.stdout
    assert not [name for name in served.sent if "safetensors" in name]
    assert not (home / "published" / ASSETS / "converters" / "old.zstd").exists()


def test_what_broke_off_goes_on_and_what_cannot_be_got_is_told(served: Hub, tmp_path: Path,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    served.refused.add(f"{MODEL}/model.safetensors")
    served.damaged.add(f"{ASSETS}/stylized-facts/rollouts.zstd")
    broken = run(served, home, MODEL)
    assert broken.returncode == 3
    lines = broken.stderr.strip().splitlines()
    assert len(lines) == 2 and all(line.startswith("error: ") for line in lines)
    assert "model.safetensors: " in lines[0] and "another hash than the hub says" in lines[1]
    assert not (home / "published" / ASSETS / "stylized-facts" / "rollouts.zstd").exists()
    monkeypatch.setenv("MARSJAX_HOME", str(home))
    assert downloads.downloaded() == [] and downloads.find(MODEL) is None
    # A file that is here but was changed is fetched anew; those that are right are not.
    config = home / "published" / MODEL / "config.json"
    config.write_bytes(config.read_bytes()[:-1] + b" ")
    served.refused.clear()
    served.damaged.clear()
    served.sent.clear()
    mended = run(served, home, MODEL)
    assert (mended.returncode, mended.stderr) == (0, "")
    assert f"{MODEL}: 2 files fetched, 0 were there" in mended.stdout
    assert f"{ASSETS}: 1 files fetched" in mended.stdout and downloads.downloaded() == [MODEL, ASSETS]


def test_a_hub_without_the_repository_or_without_an_answer(served: Hub, tmp_path: Path) -> None:
    absent = run(served, tmp_path, "some/model")
    assert absent.returncode == 1 and absent.stderr.count("\n") == 1
    assert "some/model (model on the Hugging Face Hub): no such repository" in absent.stderr
    served.url = "http://127.0.0.1:9"
    silent = run(served, tmp_path, MODEL)
    assert silent.returncode == 1 and silent.stderr.count("\n") == 2 and "Traceback" not in silent.stderr
    assert "the download failed" in silent.stderr


def test_wrong_names_and_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert download.main(["2m"]) == 2
    assert "expected owner/name of a repository on the hub, got '2m'" in capsys.readouterr().err
    place = tmp_path / MODEL
    place.mkdir(parents=True)
    (place / downloads.RECORD).write_text("{}")
    with pytest.raises(InputError, match="run `marsjax download` again"):
        downloads.find(MODEL, folder=tmp_path)


def test_a_name_that_leads_out_of_the_folder_is_refused_and_nothing_is_touched(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = tmp_path / "outside.csv"
    outside.write_text("mine")
    for name in ("validation-samples/../../../outside.csv", "/etc/x", "converters\\..\\x.zstd"):
        sibling = types.SimpleNamespace(rfilename=name, size=1, lfs=None, blob_id="0" * 40)
        info = types.SimpleNamespace(sha=COMMIT, siblings=[sibling])
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda info=info: types.SimpleNamespace(
            model_info=lambda *args, **kwargs: info))
        with pytest.raises(InputError, match="expected names of files in the repository"):
            downloads.download("a/b", "model", tmp_path / "folder")
    assert outside.read_text() == "mine" and not (tmp_path / "folder").exists()


def test_a_model_without_weights_is_not_whole_and_shards_may_have_any_name(served: Hub, tmp_path: Path) -> None:
    folder = served.repositories[MODEL, "model"]
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").unlink()
    bare = run(served, tmp_path / "home", MODEL)
    assert bare.returncode == 3 and f"{MODEL}: model.safetensors: is not in the repository" in bare.stderr
    (folder / "part.safetensors").write_bytes(weights)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"x": "part.safetensors"}}')
    done = run(served, tmp_path / "home", MODEL)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "home" / "published" / MODEL / "part.safetensors").read_bytes() == weights
