"""import_checkpoint as its user meets it: flags, report, files, exit codes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import marsjax
from marsjax.checkpoint import safetensors as safetensors_layout
from marsjax.experiments import config as configs
from marsjax.experiments import import_checkpoint, launcher
from tests import published
from tests.helpers import fixture_folder

ROOT = Path(__file__).parent.parent.parent


def launch(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "marsjax.experiments.import_checkpoint", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with two more tables, samples labelled by the model that adds them, and converters beside it."""
    folder = tmp_path_factory.mktemp("source")
    first, second = (np.random.default_rng(i).standard_normal((11, 8), np.float32) for i in (1, 2))
    tables = {"order_info_tokenizer.x.weight": first, "order_info_tokenizer.y.weight": second}
    imported = safetensors_layout.read(published.make(folder / "model", tensors=tables))
    features = published.random_features(count=32)
    labels = published.greedy(imported.variant("sum"), features)
    published.write_samples(folder / "samples", features, labels, labels[:8])
    shutil.copytree(fixture_folder() / "converters_small", folder / "converters")
    return folder


def test_from_flags_to_a_model(tmp_path: Path, source: Path) -> None:
    result = launch(f"--source={source / 'model'}", "--output", tmp_path / "out", f"--validation={source / 'samples'}",
                    f"--config.export={tmp_path / 'exported'}")
    assert (result.returncode, result.stderr) == (0, "")
    for part in ("2 layers of width 8, 2 heads, 16 orders, 768 classes", "tensors: 30 used; stored and never read: "
                 "decoder.model.embed_tokens.weight, linear_head.0.weight", "order_info_tokenizer.y.weight): sum; nats",
                 "converters: 13", "sum beats ", "top-1 100.00% on 32 samples, 100.00% of 8 greedy predictions",
                 f"checkpoint in {tmp_path / 'out'}", f"exported to {tmp_path / 'exported'}"):
        assert part in result.stdout, result.stdout
    about = json.loads((tmp_path / "out" / "about.json").read_text())
    assert about["import"]["ratio_embeddings"] == "sum"
    assert about["validation"]["top1"] == 1.0
    assert set(about["import"]["losses"]) == {"ignore", "sum", "swapped"}
    features = published.random_features()
    expected = marsjax.load_order_model(tmp_path / "out").logits(features)
    np.testing.assert_array_equal(marsjax.load_order_model(tmp_path / "exported").logits(features), expected)


def run(*arguments: object) -> tuple[int, Path]:
    """In this process: the exit code and the output folder."""
    argv = import_checkpoint.as_config_flags([str(word) for word in arguments])
    references = [word.removeprefix("--config=") for word in argv if word.startswith("--config=")]
    config = configs.load(*configs.find(references[0]))
    configs.override(config, [word for word in argv if word.startswith("--config.")])
    return import_checkpoint.main(config), Path(config.output)


def test_other_command_lines(tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    code, folder = run(f"--config=import_checkpoint:{source / 'model'},ratio_embeddings=ignore,output={out}")
    assert (code, folder) == (0, out)
    assert "validation:" not in capsys.readouterr().out
    with pytest.raises(ValueError, match="exists"):
        run(f"--source={source / 'model'}", f"--output={out}", "--ratio_embeddings=ignore")
    code, _ = run(f"--source={source / 'model'}", f"--output={out}", "--ratio_embeddings=sum", "--overwrite",
                  "--dtype", "bfloat16")
    assert code == 0
    assert "x.weight, order_info_tokenizer.y.weight: taken for features 1 and 2" in capsys.readouterr().out
    assert json.loads((out / "spec.json").read_text())["dtype"] == "bfloat16"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


@pytest.mark.parametrize(
    ("argv", "expected"),
    [(["--source=a", "--verbose"], ["--config=import_checkpoint", "--config.source=a", "--verbose"]),
     (["--config=x.py:b", "--output", "c=d"], ["--config=x.py:b", "--config.output=c=d"]),
     (["--overwrite", "--source", "a"], ["--config=import_checkpoint", "--config.overwrite=true", "--config.source=a"]),
     (["--help"], ["--help"]), (["--sauce=a"], ["--sauce=a"]), ([], [])],
)
def test_plain_flags(argv: list[str], expected: list[str]) -> None:
    assert import_checkpoint.as_config_flags(argv) == expected


def test_the_argument_of_the_config() -> None:
    path, _ = configs.find("import_checkpoint")
    config = configs.load(path, "Don-Don/mars-order-2m,revision=abc,overwrite")
    assert (config.source, config.revision, config.overwrite) == ("Don-Don/mars-order-2m", "abc", True)
    assert configs.load(path, "output=x").source == ""
    with pytest.raises(configs.UsageError, match="'odd=1' is unknown"):
        configs.load(path, "folder,odd=1")


def test_a_run_that_fails_leaves_nothing(tmp_path: Path, source: Path) -> None:
    result = launch(f"--source={source / 'model'}", f"--output={tmp_path / 'out'}", "--export", tmp_path / "exported")
    assert (result.returncode, result.stderr.count("\n")) == (1, 1), result.stderr
    assert result.stderr.startswith("error: ")
    assert "give validation samples to choose by" in result.stderr
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(configs.UsageError, match="expected int like 256, got 'many'"):
        launcher.parse(import_checkpoint.NAME, import_checkpoint.as_config_flags(["--source=x", "--max_samples=many"]))
    with pytest.raises(ValueError, match=r"config\.source: expected a folder"):
        run(f"--output={tmp_path / 'out'}")
