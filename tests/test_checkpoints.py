"""Checkpoints: what is read, refused, restored, chosen and predicted. Numbers of the reference: tests/parity."""

import dataclasses
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import huggingface_hub
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zstandard
from huggingface_hub import errors
from safetensors.numpy import save_file

import marsjax
from marsjax import bins, checkpoints, hub, importer, model, safetensors_layout, validation
from marsjax.specs import ModelSpec, TokenSpec
from tests import published
from tests.helpers import fixture_folder
from tests.published import SPEC

ROOT = Path(__file__).parent.parent
A, B = (f"order_info_tokenizer.{name}.weight" for name in ("emb_first", "emb_second"))


@pytest.fixture(scope="module")
def converters() -> dict[str, bins.Converter]:
    return bins.read_folder(fixture_folder() / "converters_small")


def assert_same(got: model.Params, expected: model.Params) -> None:
    """Bitwise, dtypes included."""
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


# --- config.json and model.safetensors


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"emb_dim": None}, "expected the keys emb_dim, found"),
        ({"emb_dim": "8"}, "emb_dim: expected an integer, got '8'"),
        ({"emb_dim": 8.0}, "emb_dim: expected an integer, got 8.0"),
        ({"num_layers": True}, "num_layers: expected an integer, got True"),
        ({"num_layers": 0}, "num_layers: expected 1 to 1024, got 0"),
        ({"num_layers": 10**9}, "num_layers: expected 1 to 1024, got 1000000000"),
        ({"num_heads": 3}, "emb_dim: expected a multiple of 2 x heads=3"),
        ({"num_bins_price_level": -1}, "num_bins_price_level: expected 1 to 1024, got -1"),
        ({"dropout": "no"}, "dropout: expected a number from 0 to below 1, got 'no'"),
        ({"dropout": float("nan")}, "dropout: expected a number from 0 to below 1, got nan"),
        ({"num_experts": 4}, "num_experts=4: unknown key; expected emb_dim, num_bins"),
        ({"num_layers": 3}, "decoder.model.layers.2.input_layernorm.weight is missing"),
        ({"num_layers": 1}, "decoder.model.layers.1.input_layernorm.weight [8] is unexpected"),
        ({"num_bins_order_interval": 8}, "emb_order_interval.weight is [4, 8], expected [8, 8]"),
    ],
)
def test_a_wrong_config_is_named(tmp_path: Path, config: dict[str, object], expected: str) -> None:
    published.make(tmp_path, config=config)
    with pytest.raises(ValueError) as error:
        safetensors_layout.read(tmp_path)
    assert str(error.value).startswith(str(tmp_path))
    assert " ".join(str(error.value).split()).find(expected) > 0, str(error.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"emb_dim": ' + "9" * 5000 + "}", " " * 2**21])
def test_a_config_that_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    published.make(tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json: (not a JSON file|expected)"):
        safetensors_layout.read(tmp_path)


def test_keys_that_only_describe_are_passed_over_and_listed(tmp_path: Path) -> None:
    published.make(tmp_path, config={"model_type": "mars", "card": 7})
    with pytest.raises(ValueError, match=r"card=7: unknown key.*name it in ignore_keys"):
        safetensors_layout.read(tmp_path)
    imported = safetensors_layout.read(tmp_path, ignore_keys=["card"])
    assert imported.described == ("card", "model_type")
    assert imported.spec == SPEC
    assert imported.dropout == 0.1


def test_all_tensors_that_do_not_fit_are_in_one_error(tmp_path: Path) -> None:
    zeros = np.zeros((3, 8), np.float32)
    published.make(tmp_path, tensors={
        "decoder.lm_head.weight": None, "decoder.model.norm.weight": np.zeros(9, np.float32), "odd.weight": zeros,
        "linear_head.1.bias": zeros, "order_info_tokenizer.emb_order_type.weight": zeros.astype(np.int32)})
    with pytest.raises(ValueError, match="5 tensors do not fit") as error:
        safetensors_layout.read(tmp_path)
    for part in ("decoder.lm_head.weight is missing", "decoder.model.norm.weight is [9], expected [8]",
                 "odd.weight [3, 8] is unexpected", "linear_head.1.bias is [3, 8], expected [768]",
                 "emb_order_type.weight is I32, expected F32, F16, BF16"):
        assert part in str(error.value)


def test_what_the_reference_never_reads_may_be_missing(tmp_path: Path) -> None:
    published.make(tmp_path, tensors={"decoder.model.embed_tokens.weight": None})
    assert len(safetensors_layout.read(tmp_path).unused) == 4


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, bad: float) -> None:
    published.make(tmp_path, tensors={"decoder.model.norm.weight": np.array([1] * 7 + [bad], np.float32)})
    with pytest.raises(ValueError, match=r"decoder\.model\.norm\.weight: expected finite numbers"):
        safetensors_layout.read(tmp_path)


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def damaged(kind: str, whole: bytes, trap: Path) -> bytes:
    length = struct.unpack("<Q", whole[:8])[0]
    bomb = b"{" + b" " * 2**23
    return {
        "empty": b"", "no header": whole[:5], "half a header": whole[:100], "half the data": whole[: len(whole) // 2],
        "one byte less": whole[:-1], "one byte more": whole + b"\0",
        "huge header": struct.pack("<Q", 2**40) + whole[8:], "bomb": struct.pack("<Q", len(bomb)) + bomb + whole,
        "no JSON": whole[:8] + b"x" * length + whole[8 + length :],
        "shape too large": whole.replace(b'"shape":[8]', b'"shape":[9]'),
        "pickle": pickle.dumps(Trap(trap)), "zip": b"PK\3\4" + pickle.dumps(Trap(trap)),
    }[kind]


@pytest.mark.parametrize("kind", ["empty", "no header", "half a header", "half the data", "one byte less", "pickle",
                                  "one byte more", "huge header", "bomb", "no JSON", "shape too large", "zip"])
def test_a_file_that_is_no_whole_safetensors_is_refused(tmp_path: Path, kind: str) -> None:
    weights = published.make(tmp_path / "model") / "model.safetensors"
    weights.write_bytes(damaged(kind, weights.read_bytes(), tmp_path / "trap"))
    with pytest.raises(ValueError) as error:
        importer.import_published(tmp_path / "model")
    assert str(error.value).startswith(f"{weights}: ")
    reason = {"pickle": "got a pickle", "zip": "got a pickle", "bomb": "header of at most"}
    assert reason.get(kind, "safetensors") in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    (published.make(tmp_path) / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"no file model\.safetensors"):
        safetensors_layout.read(tmp_path)


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_half_precision_files(tmp_path: Path, kind: str, dtype: str) -> None:
    params = jax.tree.map(lambda x: np.asarray(x.astype(jnp.dtype(kind))), published.random_params())
    views = {name: np.ascontiguousarray(view) for name, view in safetensors_layout.tensors(SPEC, params)}
    published.make(tmp_path)
    save_file(views, tmp_path / "model.safetensors")
    imported = safetensors_layout.read(tmp_path, dtype)
    assert_same(imported.params, jax.tree.map(lambda x: x.astype(jnp.dtype(dtype)), params))


@pytest.mark.parametrize("spec", [SPEC, dataclasses.replace(SPEC, ratio_embeddings=True), ModelSpec(
    width=12, layers=3, heads=3, max_orders=5, tokens=TokenSpec(2, 3, 5))])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_export_and_import_are_inverse(tmp_path: Path, spec: ModelSpec, dtype: str) -> None:
    params = published.random_params(spec, dtype=dtype)
    safetensors_layout.write(tmp_path, spec, params, 0.25)
    imported = safetensors_layout.read(tmp_path, dtype)
    assert (imported.spec, imported.dropout, imported.ratio_tables) == (spec, 0.25, {})
    assert_same(imported.params, params)


def test_import_holds_one_copy_and_one_tensor(tmp_path: Path) -> None:
    spec = ModelSpec(width=256, layers=8, heads=4, tokens=TokenSpec(2, 2, 2))
    shapes = safetensors_layout.abstract(spec)
    safetensors_layout.write(tmp_path, spec, jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes))
    size = (tmp_path / "model.safetensors").stat().st_size
    tracemalloc.start()
    imported = safetensors_layout.read(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(x.nbytes for x in jax.tree.leaves(imported.params)) > 0.9 * size
    # Two copies of one tensor of the file (4.2 of 42 MB) come on top.
    assert peak < 1.3 * size


# --- folders of marsjax


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("ratio", [False, True])
def test_save_and_restore(tmp_path: Path, converters: dict[str, bins.Converter], dtype: str, ratio: bool) -> None:
    spec = dataclasses.replace(SPEC, ratio_embeddings=ratio)
    params = published.random_params(spec, dtype=dtype)
    about = {"source": "Ünï", "revision": None, "losses": {"sum": 1.5}}
    checkpoints.save(tmp_path / "deep" / "one", spec, params, converters, about)
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["one"]
    found = checkpoints.restore(tmp_path / "deep" / "one")
    assert (found.spec, found.about, list(found.converters)) == (spec, about, list(bins.NAMES))
    assert_same(found.params, params)
    assert all(isinstance(x, jax.Array) and len(x.devices()) == 1 for x in jax.tree.leaves(found.params))
    for name, converter in converters.items():
        np.testing.assert_array_equal(found.converters[name].edges, converter.edges)


SAVE_ON_EIGHT = """
import sys, jax
from jax.sharding import NamedSharding, PartitionSpec
from marsjax import checkpoints
from tests import published
assert len(jax.devices()) == 8
mesh = jax.make_mesh((8,), ("x",))
params = published.random_params(seed=3)
def place(x):
    axis = next((i for i, n in enumerate(x.shape) if n % 8 == 0), None)
    return jax.device_put(x, NamedSharding(mesh, PartitionSpec(*([None] * axis + ["x"] if axis is not None else []))))
sharded = jax.tree.map(place, params)
assert not sharded.head.is_fully_replicated
checkpoints.save(sys.argv[1], published.SPEC, sharded, {}, {})
back = checkpoints.restore(sys.argv[1], jax.tree.map(lambda x: x.sharding, sharded))
assert back.params.head.sharding == sharded.head.sharding
"""


def test_saved_on_eight_devices_restored_on_one(tmp_path: Path) -> None:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT),
                   "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    subprocess.run([sys.executable, "-c", SAVE_ON_EIGHT, tmp_path / "saved"], env=environment, check=True, timeout=120)
    found = checkpoints.restore(tmp_path / "saved")
    assert len(found.params.head.devices()) == 1
    assert_same(found.params, published.random_params(seed=3))


def test_nothing_is_left_of_a_save_that_fails(tmp_path: Path, converters: dict[str, bins.Converter]) -> None:
    params = published.random_params()
    with pytest.raises(ValueError, match=r"params\.norm: the spec asks for \(\(8,\), 'float32'\), got \(\(7,\)"):
        checkpoints.save(tmp_path / "a", SPEC, dataclasses.replace(params, norm=np.ones(7, np.float32)), {}, {})
    with pytest.raises(ValueError, match="price-level: expected 8 bins, got 32"):
        checkpoints.save(tmp_path / "a", SPEC, params, bins.read_folder(fixture_folder() / "converters"), {})
    with pytest.raises(ValueError, match=r"missing or unknown: price$"):
        checkpoints.save(tmp_path / "a", SPEC, params, {k: x for k, x in converters.items() if k != "price"}, {})
    with pytest.raises(TypeError):
        checkpoints.save(tmp_path / "a", SPEC, params, {}, {"what": object()})
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a").mkdir()
    with pytest.raises(FileExistsError, match="a exists"):
        checkpoints.save(tmp_path / "a", SPEC, params, {}, {})


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, converters: dict[str, bins.Converter]) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / "saved"
    checkpoints.save(folder, SPEC, published.random_params(), converters, {"source": "test"})
    return folder


@pytest.mark.parametrize(
    ("part", "expected"),
    [("spec.json", "no checkpoint of marsjax"), ("about.json", "incomplete checkpoint: about.json is missing"),
     ("params", "incomplete checkpoint: params is missing"),
     ("converters", "incomplete checkpoint: converters is missing"),
     ("converters/price.npz", "no .zstd or .npz file of these converters: price"),
     ("params/manifest.ocdbt", "incomplete checkpoint: params/manifest.ocdbt is missing"),
     ("params/d", "incomplete checkpoint: params/d/"),
     ("params/_METADATA", "incomplete checkpoint: params/_METADATA is missing")],
)
def test_a_missing_part_is_named(tmp_path: Path, saved: Path, part: str, expected: str) -> None:
    broken = Path(shutil.copytree(saved, tmp_path / "broken"))
    shutil.rmtree(broken / part) if (broken / part).is_dir() else (broken / part).unlink()
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        checkpoints.restore(broken)
    assert str(broken) in str(error.value)
    assert expected in str(error.value)


@pytest.mark.parametrize("change", ["cut", "empty", "one bit"])
def test_damaged_arrays_are_seen(tmp_path: Path, saved: Path, change: str) -> None:
    broken = Path(shutil.copytree(saved, tmp_path / "broken"))
    largest = max((path for path in (broken / "params").rglob("*") if path.is_file()), key=lambda x: x.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "one bit": data}[change])
    with pytest.raises(ValueError, match=f"{largest.name}: cut off or changed"):
        checkpoints.restore(broken)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [("format", "other", "format: expected 'marsjax checkpoint 1', got 'other'"),
     ("dtype", "float64", "files: expected float32 or bfloat16, a list"),
     ("converters", None, "a list and an object"), ("model", [], "model: expected the keys heads, layers"),
     ("model.width", 16, "embedding.change: spec.json asks for ((4001, 16), 'float32'), stored is ((4001, 8), 'fl"),
     ("model.layers", 3, "layers.attention_norm: spec.json asks for ((3, 8)"),
     ("dtype", "bfloat16", "'bfloat16'), stored is"),
     ("model.ratio_embeddings", True, "embedding.trade_ratio: spec.json asks for ((11, 8), 'float32'), stored is N"),
     ("model.width", 7, "ModelSpec.width: expected a multiple of"), ("model.depth", 7, "model: expected the keys"),
     ("model.tokens", {"volumes": 8}, "model.tokens: expected the keys intervals, price_levels, volumes"),
     ("model.tokens.volumes", 4, "order-volume: expected 4 bins, got 8")],
)
def test_a_spec_that_does_not_fit_is_named(tmp_path: Path, saved: Path, key: str, value: object, expected: str) -> None:
    broken = Path(shutil.copytree(saved, tmp_path / "broken"))
    record = json.loads((broken / "spec.json").read_text())
    *path, last = key.split(".")
    section = record
    for name in path:
        section = section[name]
    section[last] = value
    (broken / "spec.json").write_text(json.dumps(record))
    with pytest.raises(ValueError) as error:
        checkpoints.restore(broken)
    assert str(broken) in str(error.value)
    assert expected in str(error.value)


# --- tables of unknown use


def with_tables(folder: Path, truth: str, names: tuple[str, str] = (A, B), samples: int = 64) -> Path:
    """A published model with two more tables, and samples labelled by the variant `truth`."""
    base = published.random_params()
    first, second = (np.random.default_rng(i).standard_normal((11, SPEC.width), np.float32) for i in (1, 2))
    published.make(folder / "model", params=base, tensors=dict(zip(names, (first, second), strict=True)))
    spec, params = dataclasses.replace(SPEC, ratio_embeddings=True), base
    if truth != "ignore":
        one, two = (first, second) if truth == "sum" else (second, first)
        params = dataclasses.replace(base, embedding=dataclasses.replace(
            base.embedding, volume_ratio=one, trade_ratio=two))
    features = published.random_features(count=samples)
    labels = published.greedy(spec, params, features)
    published.write_samples(folder / "validation-samples", features, labels, labels)
    return folder / "model"


@pytest.mark.parametrize("truth", importer.VARIANTS)
def test_auto_finds_the_truth(tmp_path: Path, truth: str) -> None:
    found = importer.import_published(with_tables(tmp_path, truth))
    report = found.about["import"]
    assert report["ratio_embeddings"] == truth
    assert set(report["losses"]) == set(importer.VARIANTS)
    assert min(report["losses"], key=report["losses"].get) == truth
    assert found.spec.ratio_embeddings is (truth != "ignore")
    scores = validation.validate(marsjax.LoadedModel(found.spec, found.params, {}, {}), tmp_path / "validation-samples")
    assert (scores.top1, scores.agreement) == (1.0, 1.0)
    assert scores.loss == pytest.approx(report["losses"][truth], abs=1e-6)


def test_the_other_choices(tmp_path: Path) -> None:
    folder = with_tables(tmp_path, "swapped")
    first, second = (np.random.default_rng(i).standard_normal((11, SPEC.width), np.float32) for i in (1, 2))
    by_samples = importer.import_published(folder, ratio_embeddings="sum")
    np.testing.assert_array_equal(by_samples.params.embedding.volume_ratio, second)
    shutil.rmtree(tmp_path / "validation-samples")
    for choice, expected in {"sum": (first, second), "swapped": (second, first), "ignore": (None, None)}.items():
        found = importer.import_published(folder, ratio_embeddings=choice)
        embedding = found.params.embedding
        for got, table in zip((embedding.volume_ratio, embedding.trade_ratio), expected, strict=True):
            assert (got is None and table is None) or np.array_equal(got, table)
        assert any("alphabet" in note for note in found.about["import"]["notes"]) is (choice == "sum")
    with pytest.raises(ValueError, match=r"emb_first.*--config\.validation=FOLDER.*ratio_embeddings=ignore"):
        importer.import_published(folder)
    with pytest.raises(ValueError, match="expected auto, ignore, sum, swapped, got 'both'"):
        importer.import_published(folder, ratio_embeddings="both")
    with pytest.raises(ValueError, match=r"has no two tables \[11, 8\]"):
        importer.import_published(published.make(tmp_path / "plain"), ratio_embeddings="sum")


def test_names_that_tell_the_tables_apart(tmp_path: Path) -> None:
    names = ("order_info_tokenizer.emb_trans_part.weight", "order_info_tokenizer.emb_volume_part.weight")
    folder = with_tables(tmp_path, "ignore", names)
    found = importer.import_published(folder, ratio_embeddings="sum")
    assert found.about["import"]["ratio_tables"] == list(reversed(names))
    assert found.about["import"]["losses"] == {}
    np.testing.assert_array_equal(found.params.embedding.trade_ratio,
                                  np.random.default_rng(1).standard_normal((11, SPEC.width), np.float32))


def test_one_table_three_or_elsewhere_are_unexpected(tmp_path: Path) -> None:
    table = np.zeros((11, SPEC.width), np.float32)
    for i, names in enumerate([(A,), (A, B, A + "c"), (A, "decoder.x.weight")]):
        folder = published.make(tmp_path / str(i), tensors=dict.fromkeys(names, table))
        with pytest.raises(ValueError, match=rf"{len(names)} tensors do not fit.*is unexpected"):
            safetensors_layout.read(folder)


# --- the hub


def test_one_repository_with_model_and_assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = published.make(tmp_path / "repo")
    shutil.copytree(fixture_folder() / "converters_small", source / "converters")
    published.write_samples(source / "validation-samples", published.random_features(count=2), np.array([1, 2]))
    (source / "pytorch_model.bin").write_bytes(b"large")
    fake = published.FakeHub(tmp_path / "cache", {("microsoft/mars-order-model", "model"): source})
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake)
    found = hub.fetch("microsoft/mars-order-model", "main")
    assert fake.calls == [("microsoft/mars-order-model", "model", "main")]
    assert (found.revision, found.assets, found.samples) == (published.COMMIT, None, None)
    assert sorted(path.name for path in found.model.iterdir()) == ["config.json", "converters", "model.safetensors"]
    assert {path.stem for path in found.model.glob("converters/*")} == set(bins.NAMES)
    assert hub.fetch("microsoft/mars-order-model", samples=True).samples == found.model / "validation-samples"


def test_models_with_a_shared_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model_folder = with_tables(tmp_path, "sum")
    assets = tmp_path / "assets"
    shutil.copytree(fixture_folder() / "converters_small", assets / "converters")
    shutil.copytree(tmp_path / "validation-samples", assets / "validation-samples")
    (assets / "stylized-facts").mkdir()
    (assets / "stylized-facts" / "large.zstd").write_bytes(b"large")
    fake = published.FakeHub(tmp_path / "cache", {("Don-Don/mars-order-2m", "model"): model_folder,
                                                  ("Don-Don/mars-order-assets", "dataset"): assets})
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake)
    found = importer.import_published("Don-Don/mars-order-2m", ratio_embeddings="ignore")
    assert [call[:2] for call in fake.calls] == list(fake.repositories)
    assert not (tmp_path / "cache" / "Don-Don--mars-order-assets" / "snapshots" / published.COMMIT /
                "stylized-facts").exists()
    assert not list((tmp_path / "cache").rglob("validation-samples"))
    assert found.about["revision"] == found.about["assets_revision"] == published.COMMIT
    assert found.about["assets"] == "Don-Don/mars-order-assets"
    assert set(found.about["sha256"]) == {"config.json", "model.safetensors", *(f"{name}.zstd" for name in bins.NAMES)}
    loaded = marsjax.load_order_model("Don-Don/mars-order-2m", revision="v1")  # fetches samples to choose by
    assert fake.calls[2] == ("Don-Don/mars-order-2m", "model", "v1")
    assert loaded.about["import"]["ratio_embeddings"] == "sum"
    assert set(loaded.converters) == set(bins.NAMES)


@pytest.mark.parametrize(
    ("error", "kind", "expected"),
    [(errors.GatedRepoError, PermissionError, "gated: accept its terms at https://huggingface.co/some/model"),
     (errors.RepositoryNotFoundError, FileNotFoundError, "no such repository, or a private one"),
     (errors.RevisionNotFoundError, FileNotFoundError, "no revision 'v9'"),
     (errors.LocalEntryNotFoundError, ConnectionError, "the hub cannot be reached"),
     (errors.OfflineModeIsEnabled, ConnectionError, "the hub cannot be reached"),
     (errors.HfHubHTTPError, ConnectionError, "the download failed"),
     (errors.HFValidationError, ValueError, "some/model"), (TimeoutError, ConnectionError, "the download failed")],
)
def test_errors_of_the_hub_are_one_line(monkeypatch: pytest.MonkeyPatch, error: type[Exception], kind: type[Exception],
                                        expected: str) -> None:
    def fails(*args: object, **kwargs: object) -> str:
        raised = error.__new__(error)  # some want a response to be made with
        raised.args = ("two\nlines",)
        raise raised

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fails)
    with pytest.raises(kind) as found:
        marsjax.load_order_model("some/model", revision="v9")
    assert expected in str(found.value)
    assert "\n" not in str(found.value)


def test_a_repository_without_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "config.json").write_text("{}")
    fake = published.FakeHub(tmp_path / "cache", {("some/model", "model"): tmp_path / "repo"})
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake)
    with pytest.raises(FileNotFoundError, match=r"some/model: the repository has no file model\.safetensors"):
        hub.fetch("some/model")
    with pytest.raises(ValueError, match="expected a folder, or owner/name"):
        hub.fetch("../model")


# --- validation samples


def test_scores(tmp_path: Path) -> None:
    params = published.random_params()
    features = published.random_features(count=21)
    greedy = published.greedy(SPEC, params, features)
    labels, told = greedy.copy(), greedy[:10].copy()
    labels[:7] = (labels[:7] + 1) % SPEC.tokens.classes
    told[:3] = 0
    published.write_samples(tmp_path, features, labels, told)
    loaded = marsjax.LoadedModel(SPEC, params, {}, {})
    scores = validation.validate(loaded, tmp_path)
    logits = np.asarray(loaded.logits(features), np.float64)
    expected = np.log(np.exp(logits - logits.max(axis=-1, keepdims=True)).sum(axis=-1)) + logits.max(axis=-1)
    expected = float(np.mean(expected - logits[np.arange(21), labels]))
    assert scores.loss == pytest.approx(expected, rel=1e-5)
    assert (scores.samples, scores.top1) == (21, pytest.approx(14 / 21))
    assert (scores.compared, scores.agreement) == (10, pytest.approx(np.mean(told == greedy[:10])))
    assert validation.validate(loaded, tmp_path, max_samples=4).compared == 4
    published.write_samples(tmp_path, features[:2], labels[:2], name="valid-01")
    assert validation.validate(loaded, tmp_path).samples == 23


@pytest.mark.parametrize(
    ("text", "expected"),
    [("label,pred\n5,1\n6,2\n", [1, 2, -1]), (",label,greedy\n0,5,1\n1,6,2\n", [1, 2, -1]),
     ("5,1\n6,2\n7,3", [1, 2, 3]), ("pred,label\n1,5\n", [1, -1, -1]), ("label,pred\n", [-1] * 3), ("", [-1] * 3)],
)
def test_the_csv_beside_the_samples(tmp_path: Path, text: str, expected: list[int]) -> None:
    published.write_samples(tmp_path, published.random_features(count=3), np.array([5, 6, 7]))
    (tmp_path / "any.csv").write_text(text)
    assert validation.read(tmp_path, SPEC).published.tolist() == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("label,pred\n4,1\n", r"row 1 has label 4 and prediction 1; expected label 5"),
     ("label,pred\n5,768\n", "a prediction below 768"), ("label,pred\n5\n", "expected a header, then rows"),
     ("label,pred\n5,x\n", "expected a header, then rows"), ("label,pred\n5,1e40\n", "expected a header, then rows"),
     ("label,pred\n5," + "9" * 30 + "\n", "expected a header, then rows")],
)
def test_a_csv_that_does_not_fit(tmp_path: Path, text: str, expected: str) -> None:
    published.write_samples(tmp_path, published.random_features(count=2), np.array([5, 6]))
    (tmp_path / "valid-00.output.csv").write_text(text)
    with pytest.raises(ValueError, match=r"valid-00\.output\.csv: .*" + expected):
        validation.read(tmp_path, SPEC)


def bad_samples() -> dict[str, tuple[object, str]]:
    good = published.random_features(count=1)[0]
    outside = good.copy()
    outside[3, 0] = 768
    label = np.array([1], np.int32)
    return {
        "no list": ({"a": 1}, "expected a list of samples, got a dict"),
        "none": ([], "expected a list of samples, got a list without any"),
        "no pair": ([(good,)], "sample 0: expected a pair"), "no array": ([([1], label)], "sample 0: expected a pair"),
        "label": ([(good, np.array([768]))], "sample 0: expected a last label from 0 to 767"),
        "no label": ([(good, np.zeros(0, np.int32))], "sample 0: expected a last label"),
        "float label": ([(good, np.array([1.0]))], "sample 0: expected a last label"),
        "text label": ([(good, "1")], "sample 0: expected a last label"),
        "columns": ([(good[:, :14], label)], r"sample 0: expected features of one shape"),
        "one number": ([(np.array(1), label)], "sample 0: expected features of one shape"),
        "long": ([(np.concatenate([good, good]), label)], r"sample 0: expected features of one shape, \[1 to 16, 15\]"),
        "lengths": ([(good, label), (good[:5], label)], "sample 1: expected features of one shape"),
        "floats": ([(good.astype(np.float32), label)], "features: expected integers"),
        "turned": ([(good.T[:15, :15][:, :14], label)], "sample 0: expected features of one shape"),
        "outside": ([(outside, label)], r"features\[0, 3, 0\]: expected 0 to 767, got 768"),
    }


@pytest.mark.parametrize("case", bad_samples())
def test_samples_that_are_none(tmp_path: Path, case: str) -> None:
    record, expected = bad_samples()[case]
    (tmp_path / "x.zstd").write_bytes(zstandard.compress(pickle.dumps(record)))
    with pytest.raises(ValueError, match=r"x\.zstd: " + expected) as error:
        validation.read(tmp_path, SPEC)
    assert len(str(error.value)) < 500


def test_malicious_samples(tmp_path: Path) -> None:
    file = tmp_path / "x.zstd"
    cases = {
        "refused global 'pathlib": zstandard.compress(pickle.dumps([Trap(tmp_path / "trap")])),
        "more than 67108864 bytes when decompressed": zstandard.compress(bytes(2**27)),
        "is cut off": zstandard.compress(pickle.dumps([1] * 1000))[:-5], "not a zstd file": b"PK\3\4 zip"}
    for expected, data in cases.items():
        file.write_bytes(data)
        with pytest.raises(ValueError, match=expected):
            validation.read(tmp_path, SPEC)
    assert [path.name for path in tmp_path.iterdir()] == ["x.zstd"]
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"no \.zstd file"):
        validation.read(tmp_path, SPEC)


# --- the front door


def test_every_kind_of_source_gives_the_same_model(tmp_path: Path, saved: Path,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    folder = published.make(tmp_path / "model")
    shutil.copytree(fixture_folder() / "converters_small", folder / "converters")
    monkeypatch.setattr(huggingface_hub, "snapshot_download",
                        published.FakeHub(tmp_path / "cache", {("some/model", "model"): folder}))
    features = published.random_features()
    expected = np.asarray(marsjax.load_order_model(saved).logits(features))
    for source in (str(saved), folder, "some/model"):
        loaded = marsjax.load_order_model(source)
        assert loaded.spec == SPEC
        assert set(loaded.converters) == set(bins.NAMES)
        np.testing.assert_array_equal(loaded.logits(features), expected)
    half = marsjax.load_order_model(saved, dtype="bfloat16")
    assert half.params.head.dtype == jnp.bfloat16
    assert 0 < np.abs(half.logits(features) - expected).max() < 0.1 * np.abs(expected).max()


def test_predictions(saved: Path) -> None:
    loaded = marsjax.load_order_model(saved)
    features = published.random_features(count=3, length=7)
    logits = np.asarray(loaded.logits(features))
    assert (logits.shape, logits.dtype) == ((3, 768), np.float32)
    np.testing.assert_array_equal(loaded.logits(features.reshape(3, 105)), logits)
    np.testing.assert_array_equal(loaded.top(features), logits.argmax(axis=-1))
    np.testing.assert_array_equal(loaded.sample(jax.random.key(0), features, temperature=1e-6), logits.argmax(axis=-1))
    far = features.copy()
    far[..., 3] = np.where(far[..., 3] > 0, 2000, -2000)
    np.testing.assert_array_equal(loaded.logits(far), loaded.logits(far + 300 * np.sign(far) * (np.arange(15) == 3)))


def test_samples_follow_the_softmax_and_do_not_depend_on_other_rows(saved: Path) -> None:
    loaded = marsjax.load_order_model(saved)
    loaded = dataclasses.replace(loaded, params=dataclasses.replace(loaded.params, head=loaded.params.head / 40))
    features = np.repeat(published.random_features(count=1, length=2), 2048, axis=0)
    for temperature in (0.5, 2.0):
        drawn = np.asarray(loaded.sample(jax.random.key(1), features, temperature))
        law = np.asarray(jax.nn.softmax(loaded.logits(features[:1])[0] / temperature))
        largest = np.argsort(-law)[:60]
        share, chance = np.isin(drawn, largest).mean(), law[largest].sum()
        assert 0.01 < chance < 0.99
        assert abs(share - chance) < 5 * np.sqrt(chance * (1 - chance) / 2048)
        np.testing.assert_array_equal(loaded.sample(jax.random.key(1), features[:5], temperature), drawn[:5])
    assert not np.array_equal(loaded.sample(jax.random.key(2), features), drawn)


@pytest.mark.parametrize(
    ("features", "expected"),
    [(np.zeros((2, 17, 15), np.int32), "at most max_orders=16 tokens, got 17"),
     (np.zeros((2, 16, 14), np.int32), r"expected .*\[2, 16, 14\]|expected .*\(2, 16, 14\)"),
     (np.zeros((2, 44), np.int32), "expected integers"), (np.zeros((2, 0), np.int32), "expected integers"),
     (np.zeros(15, np.int32), "expected integers"), (np.zeros((0, 4, 15), np.int32), "expected integers"),
     (np.zeros((2, 4, 15)), "expected integers"), (np.zeros((2, 4, 30), np.int32), "expected"),
     (np.full((1, 1, 15), 768, np.int32), r"features\[0, 0, 0\]: expected 0 to 767, got 768"),
     (np.full((1, 1, 15), -1, np.int32), "expected 0 to 767, got -1"),
     (np.eye(15, dtype=np.int32)[None, 6:7] * 33, r"features\[0, 0, 6\]: expected 0 to \d+, got 33")],
)
def test_wrong_features_are_refused(saved: Path, features: np.ndarray, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        marsjax.load_order_model(saved).logits(features)


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), float("inf"), True])
def test_a_wrong_temperature_is_refused(saved: Path, temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature: expected a number above 0"):
        marsjax.load_order_model(saved).sample(jax.random.key(0), published.random_features(), temperature)


def test_sources_that_are_none(tmp_path: Path, saved: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected a folder with"):
        marsjax.load_order_model(tmp_path / "no" / "such" / "folder")
    with pytest.raises(FileNotFoundError, match=r"no file config\.json"):
        marsjax.load_order_model(tmp_path)
    for folder in (saved, published.make(tmp_path / "model")):
        with pytest.raises(ValueError, match="revision: expected none for a folder"):
            marsjax.load_order_model(folder, revision="main")
        with pytest.raises(ValueError, match="dtype: expected float32 or bfloat16, got 'float16'"):
            marsjax.load_order_model(folder, dtype="float16")


def test_converters_that_are_given_must_fit_and_those_beside_are_left_out(tmp_path: Path) -> None:
    folder = published.make(tmp_path / "model")
    assert marsjax.load_order_model(folder).converters == {}
    shutil.copytree(fixture_folder() / "converters", tmp_path / "converters")
    beside = marsjax.load_order_model(folder)
    assert beside.converters == {}
    assert "left out the converters beside the model" in beside.about["import"]["notes"][0]
    with pytest.raises(ValueError, match="price-level: expected 8 bins, got 32"):
        marsjax.load_order_model(folder, converters=tmp_path / "converters")
    given = marsjax.load_order_model(folder, converters=fixture_folder() / "converters_small")
    assert set(given.converters) == set(bins.NAMES)


def test_the_default_comes_with_the_package_or_says_that_it_does_not(tmp_path: Path, saved: Path,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    from marsjax import order_model

    monkeypatch.setattr(order_model, "__file__", str(tmp_path / "marsjax" / "order_model.py"))
    with pytest.raises(FileNotFoundError, match="no checkpoint 'default' comes with this copy of marsjax"):
        marsjax.load_order_model()
    for place in ("checkpoints", "marsjax/packaged/checkpoints"):
        shutil.copytree(saved, tmp_path / place / "default")
        assert marsjax.load_order_model().spec == SPEC
        shutil.rmtree(tmp_path / place)


def test_importing_marsjax_imports_nothing_heavy() -> None:
    program = ("import sys, marsjax; print([name for name in ('jax', 'orbax', 'huggingface_hub') if name in "
               "sys.modules]); print(marsjax.load_order_model.__module__)")
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60,
                            env={**os.environ, "JAX_PLATFORMS": "no_such_platform", "PYTHONPATH": str(ROOT)})
    assert result.stdout.split() == ["[]", "marsjax.order_model"]
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        marsjax.nothing  # noqa: B018
