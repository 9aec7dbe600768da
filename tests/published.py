"""Small published models for tests: folders with config.json and model.safetensors, validation samples, a fake hub."""

import fnmatch
import functools
import json
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
import zstandard
from huggingface_hub.errors import EntryNotFoundError
from safetensors.numpy import load_file, save_file

from marsjax.checkpoint import safetensors as safetensors_layout
from marsjax.core.specs import ModelSpec, TokenSpec
from marsjax.model import llama
from marsjax.model.llama import OrderModel
from marsjax.tokens import encoding

SPEC = ModelSpec(embed_dim=8, layers=2, heads=2, context_length=16, tokens=TokenSpec(8, 8, 4))
"""Its bins are those of the golden folder `converters_small`."""
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@functools.cache
def random_params(spec: ModelSpec = SPEC, seed: int = 0, dtype: str = "float32") -> OrderModel:
    """Parameters of a model that is sure of what it predicts."""
    made = llama.init(spec, jax.random.key(seed), dtype)
    return jax.tree.map(np.asarray, made.replace({
        name: 100 * x for name, x in made.weights().items() if name.partition(".")[0] == "head"}))


def make(folder: Path, spec: ModelSpec = SPEC, params: OrderModel | None = None, *, config: Mapping[str, object] = {},
         tensors: Mapping[str, np.ndarray | None] = {}) -> Path:
    """A published model; `config` and `tensors` replace entries, None takes them away."""
    folder.mkdir(parents=True, exist_ok=True)
    safetensors_layout.write(folder, random_params(spec) if params is None else params, dropout=0.1)
    entries = json.loads((folder / "config.json").read_text()) | dict(config)
    (folder / "config.json").write_text(json.dumps({key: x for key, x in entries.items() if x is not None}))
    found = load_file(folder / "model.safetensors") | dict(tensors)
    save_file({name: x for name, x in found.items() if x is not None}, folder / "model.safetensors")
    return folder


def random_features(spec: ModelSpec = SPEC, count: int = 4, length: int | None = None, seed: int = 0) -> np.ndarray:
    """Features int32 [count, length, 15] in range; `length` is context_length by default."""
    rng, shape = np.random.default_rng(seed), (count, length or spec.context_length)
    columns = [rng.integers(0, spec.tokens.classes, shape), rng.integers(0, 10, shape), rng.integers(0, 10, shape),
               rng.integers(-2000, 2001, shape), rng.integers(0, 14_000, shape)]
    columns += [rng.integers(0, 5, shape) for _ in range(10)]
    return np.stack(columns, axis=-1).astype(np.int32)


def greedy(params: OrderModel, features: np.ndarray) -> np.ndarray:
    """Most likely next tokens int32 [B]."""
    found = params.logits(encoding.from_array(params.spec.tokens, features))
    return np.asarray(found).argmax(axis=-1).astype(np.int32)


def write_samples(folder: Path, features: np.ndarray, labels: np.ndarray, published: np.ndarray | None = None,
                  name: str = "valid-00") -> Path:
    """A folder of validation samples as they are published; labels [B] are put behind some that do not count."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = [(x, np.array([0, 1, label], np.int32)) for x, label in zip(features, labels, strict=True)]
    (folder / f"{name}.zstd").write_bytes(zstandard.compress(pickle.dumps(samples)))
    if published is not None:
        rows = [f"{label},{token}" for label, token in zip(labels, published, strict=False)]
        (folder / f"{name}.output.csv").write_text("\n".join(["label,prediction", *rows, ""]))
    return folder


class FakeHub:
    """Stands in for `huggingface_hub.snapshot_download`: repositories are folders, `calls` is what was asked for."""

    def __init__(self, cache: Path, repositories: Mapping[tuple[str, str], Path]) -> None:
        self.cache, self.repositories, self.calls = cache, repositories, []

    def __call__(self, repo_id: str, *, repo_type: str, revision: str | None, allow_patterns: list[str]) -> str:
        self.calls.append((repo_id, repo_type, revision))
        source = self.repositories[repo_id, repo_type]
        snapshot = self.cache / repo_id.replace("/", "--") / "snapshots" / COMMIT
        for file in sorted(source.rglob("*")):
            name = file.relative_to(source).as_posix()
            if file.is_file() and any(fnmatch.fnmatch(name, pattern) for pattern in allow_patterns):
                (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, snapshot / name)
        return str(snapshot)


    def file(self, repo_id: str, filename: str, *, repo_type: str, revision: str | None) -> str:
        """Stands in for `huggingface_hub.hf_hub_download`."""
        if not (self.repositories[repo_id, repo_type] / filename).is_file():
            raise EntryNotFoundError.__new__(EntryNotFoundError)  # it wants a response to be made with
        return f"{self(repo_id, repo_type=repo_type, revision=revision, allow_patterns=[filename])}/{filename}"


def split(folder: Path, parts: int = 3, name: str = "model-{:05}-of-{:05}.safetensors") -> Path:
    """Turns the weights of a published model into shards with an index."""
    whole = folder / "model.safetensors"
    found, at = load_file(whole), {}
    whole.unlink()
    for i in range(parts):
        file, names = name.format(i + 1, parts), sorted(found)[i::parts]
        save_file({tensor: found[tensor] for tensor in names}, folder / file, {"format": "pt"})
        at |= dict.fromkeys(names, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": at}))
    return folder


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)
