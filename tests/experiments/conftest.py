"""Programs run in the process of the tests, each test in a folder of its own, and tiny checkpoints."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import pytest
from ml_collections import ConfigDict

from marsjax.checkpoint import converter_files
from marsjax.checkpoint import folder as checkpoint_folder
from marsjax.core.specs import ModelSpec
from marsjax.experiments import launcher
from marsjax.model import llama
from tests.helpers import fixture_folder


class Ran(NamedTuple):
    """How a program ended, and what it said."""

    code: int
    out: str
    err: str


Launch = Callable[..., Ran]


@pytest.fixture
def launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Launch:
    """Runs a program under the words of a command line, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    # What the launcher sets up belongs to a process of its own.
    monkeypatch.setattr(launcher, "set_up_compilation_cache", lambda: None)
    monkeypatch.setattr(launcher, "_set_up_logging", lambda verbose: None)

    def call(name: str, main: Callable[[ConfigDict], int | None], *words: str) -> Ran:
        with pytest.raises(SystemExit) as left:
            launcher.run(name, main, words)
        said = capsys.readouterr()
        return Ran(int(left.value.code or 0), said.out, said.err)

    return call


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, Any]], Path]:
    """Gives a checkpoint of random weights whose `about` is the one given."""
    folder = tmp_path_factory.mktemp("model")
    spec = ModelSpec(embed_dim=8, heads=2, context_length=32)

    def save(about: dict[str, Any]) -> Path:
        path = folder / str(abs(hash(str(about))))
        if not path.exists():
            converters = converter_files.read_folder(fixture_folder() / "converters")
            checkpoint_folder.save(path, llama.init(spec, jax.random.key(0)), converters, about)
        return path

    return save
