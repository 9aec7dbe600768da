"""Checkpoints: what is read, refused, restored and predicted. Numbers of the reference: tests/parity."""

import dataclasses
import json
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import huggingface_hub
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import marsjax
from marsjax.checkpoint import converter_files, importer, manifest
from marsjax.checkpoint import folder as checkpoint_folder
from marsjax.checkpoint import safetensors as safetensors_layout
from marsjax.core.errors import InputError
from marsjax.core.specs import ModelSpec, TokenSpec
from marsjax.model import sampling
from marsjax.model.llama import OrderModel
from marsjax.tokens import bins
from tests import published
from tests.helpers import fixture_folder
from tests.published import SPEC

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def converters() -> dict[str, bins.Converter]:
    return converter_files.read_folder(fixture_folder() / "converters_small")


def assert_same(got: OrderModel, expected: OrderModel) -> None:
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
    assert imported.model.spec == SPEC
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


def damaged(kind: str, whole: bytes, trap: Path) -> bytes:
    length = struct.unpack("<Q", whole[:8])[0]
    bomb = b"{" + b" " * 2**23
    return {
        "empty": b"", "no header": whole[:5], "half a header": whole[:100], "half the data": whole[: len(whole) // 2],
        "one byte less": whole[:-1], "one byte more": whole + b"\0",
        "huge header": struct.pack("<Q", 2**40) + whole[8:], "bomb": struct.pack("<Q", len(bomb)) + bomb + whole,
        "no JSON": whole[:8] + b"x" * length + whole[8 + length :],
        "shape too large": whole.replace(b'"shape":[8]', b'"shape":[9]'),
        "pickle": pickle.dumps(published.Trap(trap)), "zip": b"PK\3\4" + pickle.dumps(published.Trap(trap)),
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
    views = {name: np.ascontiguousarray(view) for name, view in safetensors_layout.tensors(SPEC, params.weights())}
    published.make(tmp_path)
    save_file(views, tmp_path / "model.safetensors")
    imported = safetensors_layout.read(tmp_path, dtype)
    assert_same(imported.model, jax.tree.map(lambda x: x.astype(jnp.dtype(dtype)), params))


@pytest.mark.parametrize("spec", [SPEC, dataclasses.replace(SPEC, ratio_embeddings=True), dataclasses.replace(
    SPEC, whole_cancels=True), dataclasses.replace(SPEC, ratio_embeddings=True, whole_cancels=True), ModelSpec(
    embed_dim=12, layers=3, heads=3, context_length=5, tokens=TokenSpec(2, 3, 5))])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_export_and_import_are_inverse(tmp_path: Path, spec: ModelSpec, dtype: str) -> None:
    params = published.random_params(spec, dtype=dtype)
    safetensors_layout.write(tmp_path, params, 0.25)
    imported = safetensors_layout.read(tmp_path, dtype)
    assert (imported.model.spec, imported.dropout, imported.ratio_tables) == (spec, 0.25, {})
    assert_same(imported.model, params)


def test_import_holds_one_copy_and_one_tensor(tmp_path: Path) -> None:
    spec = ModelSpec(embed_dim=256, layers=8, heads=4, tokens=TokenSpec(2, 2, 2))
    shapes = safetensors_layout.abstract(spec)
    zeros = {name: np.zeros(x.shape, x.dtype) for name, x in shapes.items()}
    safetensors_layout.write(tmp_path, OrderModel(spec, zeros))
    size = (tmp_path / "model.safetensors").stat().st_size
    tracemalloc.start()
    imported = safetensors_layout.read(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(x.nbytes for x in jax.tree.leaves(imported.model)) > 0.9 * size
    # Two copies of one tensor of the file (4.2 of 42 MB) come on top.
    assert peak < 1.3 * size


# --- folders of marsjax


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("ratio", [False, True])
def test_save_and_restore(tmp_path: Path, converters: dict[str, bins.Converter], dtype: str, ratio: bool) -> None:
    spec = dataclasses.replace(SPEC, ratio_embeddings=ratio)
    params = published.random_params(spec, dtype=dtype)
    about = {"source": "Ünï", "revision": None, "losses": {"sum": 1.5}}
    checkpoint_folder.save(tmp_path / "deep" / "one", params, converters, about)
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["one"]
    found = checkpoint_folder.restore(tmp_path / "deep" / "one")
    assert (found.model.spec, found.about, list(found.converters)) == (spec, about, list(bins.NAMES))
    assert_same(found.model, params)
    assert all(isinstance(x, jax.Array) and len(x.devices()) == 1 for x in jax.tree.leaves(found.model))
    for name, converter in converters.items():
        np.testing.assert_array_equal(found.converters[name].edges, converter.edges)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_head_of_summed_rows_is_kept_and_the_published_layout_has_its_sums(tmp_path: Path, dtype: str) -> None:
    model = published.random_params(dataclasses.replace(SPEC, pair_width=2), dtype=dtype)
    checkpoint_folder.save(tmp_path / "one", model, {}, {})
    assert json.loads((tmp_path / "one" / "spec.json").read_text())["model"]["pair_width"] == 2
    found = checkpoint_folder.restore(tmp_path / "one").model
    assert found.spec == model.spec
    assert_same(found, model)
    safetensors_layout.write(tmp_path, model)
    plain = safetensors_layout.read(tmp_path).model
    assert plain.spec == SPEC
    hidden = jnp.asarray(np.random.default_rng(0).normal(size=(4, SPEC.embed_dim)), jnp.float32)
    np.testing.assert_allclose(plain.head(hidden), model.head(hidden), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("whole", [False, True])
def test_how_cancels_are_read_is_kept_and_older_folders_do_not_say_it(tmp_path: Path, whole: bool) -> None:
    spec = dataclasses.replace(SPEC, whole_cancels=whole)
    checkpoint_folder.save(tmp_path / "one", published.random_params(spec), {}, {})
    record = json.loads((tmp_path / "one" / "spec.json").read_text())
    # Without the key older versions read the folder; with it they refuse it, as they would simulate another model.
    assert ("whole_cancels" in record["model"]) is whole
    assert record["format"] == "marsjax checkpoint 2"
    assert marsjax.load_order_model(tmp_path / "one").spec == spec
    for said in (False, True):
        record["model"]["whole_cancels"] = said
        (tmp_path / "one" / "spec.json").write_text(json.dumps(record))
        checkpoint_folder.seal(tmp_path / "one")
        assert checkpoint_folder.restore(tmp_path / "one").model.spec.whole_cancels is said


def test_the_checkpoint_that_comes_with_marsjax_has_the_rule_of_its_folder() -> None:
    model = json.loads((ROOT / "checkpoints" / "default" / "spec.json").read_text())["model"]
    assert marsjax.load_order_model().spec.whole_cancels is model.get("whole_cancels", False)


SAVE_ON_EIGHT = """
import sys, jax
from jax.sharding import NamedSharding, PartitionSpec
from marsjax.checkpoint import folder as checkpoints
from tests import published
assert len(jax.devices()) == 8
mesh = jax.make_mesh((8,), ("x",))
params = published.random_params(seed=3)
def place(x):
    axis = next((i for i, n in enumerate(x.shape) if n % 8 == 0), None)
    return jax.device_put(x, NamedSharding(mesh, PartitionSpec(*([None] * axis + ["x"] if axis is not None else []))))
sharded = jax.tree.map(place, params)
assert not sharded.head.weight.is_fully_replicated
checkpoints.save(sys.argv[1], sharded, {}, {})
back = checkpoints.restore(sys.argv[1], {name: x.sharding for name, x in sharded.weights().items()})
assert back.model.head.weight.sharding == sharded.head.weight.sharding
"""


def test_saved_on_eight_devices_restored_on_one(tmp_path: Path) -> None:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT),
                   "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    subprocess.run([sys.executable, "-c", SAVE_ON_EIGHT, tmp_path / "saved"], env=environment, check=True, timeout=120)
    found = checkpoint_folder.restore(tmp_path / "saved")
    assert len(found.model.head.weight.devices()) == 1
    assert_same(found.model, published.random_params(seed=3))


def test_nothing_is_left_of_a_save_that_fails(tmp_path: Path, converters: dict[str, bins.Converter]) -> None:
    params = published.random_params()
    with pytest.raises(ValueError, match=r"weights\.norm: the spec asks for \(\(8,\), 'float32'\), got \(\(7,\)"):
        checkpoint_folder.save(tmp_path / "a", params.replace({"norm": np.ones(7, np.float32)}), {}, {})
    with pytest.raises(ValueError, match="price-level: expected 8 bins, got 32"):
        checkpoint_folder.save(tmp_path / "a", params,
                               converter_files.read_folder(fixture_folder() / "converters"), {})
    with pytest.raises(ValueError, match=r"missing or unknown: price$"):
        checkpoint_folder.save(tmp_path / "a", params, {k: x for k, x in converters.items() if k != "price"}, {})
    with pytest.raises(TypeError):
        checkpoint_folder.save(tmp_path / "a", params, {}, {"what": object()})
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a").mkdir()
    with pytest.raises(FileExistsError, match="a exists"):
        checkpoint_folder.save(tmp_path / "a", params, {}, {})


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, converters: dict[str, bins.Converter]) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / "saved"
    checkpoint_folder.save(folder, published.random_params(), converters, {"source": "test"})
    return folder


@pytest.mark.parametrize(
    ("part", "expected"),
    [("spec.json", "no checkpoint of marsjax"), ("about.json", "incomplete: about.json is missing"),
     ("params", "incomplete: params/_CHECKPOINT_METADATA is missing, which manifest.json names"),
     ("converters", "incomplete: converters/lob-spread.npz is missing"),
     ("converters/price.npz", "incomplete: converters/price.npz is missing"),
     ("params/manifest.ocdbt", "incomplete: params/manifest.ocdbt is missing"),
     ("params/d", "incomplete: params/d/"), ("manifest.json", "incomplete checkpoint: manifest.json is missing"),
     ("params/_METADATA", "incomplete: params/_METADATA is missing")],
)
def test_a_missing_part_is_named(tmp_path: Path, saved: Path, part: str, expected: str) -> None:
    broken = Path(shutil.copytree(saved, tmp_path / "broken"))
    shutil.rmtree(broken / part) if (broken / part).is_dir() else (broken / part).unlink()
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        checkpoint_folder.restore(broken)
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
        checkpoint_folder.restore(broken)


def whole_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_flipped_bit_of_any_file_is_found(tmp_path: Path, saved: Path) -> None:
    broken, rng = Path(shutil.copytree(saved, tmp_path / "broken")), np.random.default_rng(0)
    for path in whole_files(broken):
        whole = path.read_bytes()
        for place in {0, len(whole) - 1, *rng.integers(len(whole), size=6).tolist()}:
            data = bytearray(whole)
            data[place] ^= 1 << rng.integers(8)
            path.write_bytes(data)
            if path.name == "manifest.json" and json_of(data) == json_of(whole):
                continue  # white space between its parts
            with pytest.raises((InputError, FileNotFoundError), match=f"^{re.escape(str(broken))}.*") as error:
                checkpoint_folder.restore(broken)
            assert "\n" not in str(error.value) and len(str(error.value)) < len(str(path)) + 250
        path.write_bytes(whole)
    assert checkpoint_folder.restore(broken).about == {"source": "test"}


def json_of(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


def test_files_that_change_places_are_found_and_a_changed_one_is_sealed(tmp_path: Path, saved: Path) -> None:
    broken = Path(shutil.copytree(saved, tmp_path / "broken"))
    one, two = broken / "converters" / "price.npz", broken / "converters" / "lob-spread.npz"
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second), two.write_bytes(first)
    with pytest.raises(InputError, match=r"lob-spread\.npz: cut off or changed: its SHA-256 begins with"):
        marsjax.load_order_model(broken)
    one.write_bytes(first), two.write_bytes(second)
    (broken / "about.json").write_text('{"source": "mine"}')
    (broken / "notes.txt").write_text("whatever is put beside does not matter")
    with pytest.raises(InputError, match=r"about\.json: cut off or changed"):
        marsjax.load_order_model(broken)
    checkpoint_folder.seal(broken)
    assert marsjax.load_order_model(broken).about == {"source": "mine"}
    one.unlink(), os.mkfifo(one)
    with pytest.raises(OSError, match="expected a file, got a pipe"):
        marsjax.load_order_model(broken)


def older(folder: Path) -> Path:
    """The folder as marsjax wrote it before there were manifests."""
    (folder / "manifest.json").unlink()
    record, params = json.loads((folder / "spec.json").read_text()), folder / "params"
    crcs = {path.relative_to(params).as_posix(): f"{path.stat().st_size}:{zlib.crc32(path.read_bytes()):08x}"
            for path in whole_files(params)}
    (folder / "spec.json").write_text(json.dumps(record | {"format": "marsjax checkpoint 1", "files": crcs}))
    return folder


def test_a_folder_without_a_manifest_is_read_and_its_arrays_are_checked(tmp_path: Path, saved: Path) -> None:
    folder = older(Path(shutil.copytree(saved, tmp_path / "older")))
    assert_same(checkpoint_folder.restore(folder).model, checkpoint_folder.restore(saved).model)
    for path in whole_files(folder / "params"):
        whole = bytearray(path.read_bytes())
        whole[len(whole) // 2] ^= 4
        path.write_bytes(whole)
        with pytest.raises(InputError, match=f"{re.escape(path.name)}: cut off or changed: expected size and CRC-32"):
            checkpoint_folder.restore(folder)
        whole[len(whole) // 2] ^= 4
        path.write_bytes(whole)
    (folder / "params" / "_METADATA").unlink()
    with pytest.raises(FileNotFoundError, match="incomplete checkpoint: params/_METADATA is missing"):
        checkpoint_folder.restore(folder)


@pytest.mark.parametrize(("record", "expected"), [
    ({}, "expected format 'marsjax manifest 1' and sha256"), ({"sha256": []}, "sha256 a list of 0"),
    ({"sha256": {"spec.json": "0" * 63}}, "expected names of files in the folder"),
    ({"sha256": {"../spec.json": "0" * 64}}, "got '../spec.json'"), ({"sha256": {"/etc/fstab": "0" * 64}}, "got '/etc"),
    ({"sha256": {"": "0" * 64}}, "expected a file, got a folder"), ({"more": 1}, "expected format"),
    ({"sha256": {}}, "expected the hash of about.json too, which spec.json asks for")])
def test_a_manifest_that_is_none_is_named(tmp_path: Path, saved: Path, record: dict[str, Any], expected: str) -> None:
    broken = Path(shutil.copytree(saved, tmp_path / "broken"))
    whole = {"format": "marsjax manifest 1"} | ({} if "more" not in record else {"sha256": {}})
    (broken / "manifest.json").write_text(json.dumps(whole | record))
    with pytest.raises((InputError, OSError), match=re.escape(expected)):
        checkpoint_folder.restore(broken)


def test_a_spec_that_asks_for_more_than_there_is_takes_no_memory(tmp_path: Path, saved: Path) -> None:
    broken = Path(shutil.copytree(saved, tmp_path / "broken"))
    record = json.loads((broken / "spec.json").read_text())
    record["model"] |= {"embed_dim": 65536, "layers": 1024}
    (broken / "spec.json").write_text(json.dumps(record))
    checkpoint_folder.seal(broken)
    with pytest.raises(InputError, match=r"spec\.json asks for \d{14,} bytes of parameters, here are \d{5}"):
        checkpoint_folder.restore(broken)


def test_the_checkpoint_that_comes_with_marsjax_has_hashes_of_all_its_files() -> None:
    default = ROOT / "checkpoints" / "default"
    listed = manifest.check(default)
    there = {path.relative_to(default).as_posix() for path in whole_files(default)}
    assert set(listed) == there - {"README.md", "manifest.json"}


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [("format", "other", "format: expected 'marsjax checkpoint 2', got 'other'"),
     ("dtype", "float64", "files: expected float32 or bfloat16, a list"),
     ("converters", None, "a list of names and an object"),
     ("model", [], "model: expected the keys context_length, embed_dim"),
     ("model.embed_dim", 16, "embedding.change: spec.json asks for ((4001, 16), 'float32'), stored is ((4001, 8), 'fl"),
     ("model.layers", 3, "layers.attention_norm: spec.json asks for ((3, 8)"),
     ("dtype", "bfloat16", "'bfloat16'), stored is"),
     ("model.ratio_embeddings", True, "embedding.trade_ratio: spec.json asks for ((11, 8), 'float32'), stored is N"),
     ("model.embed_dim", 7, "ModelSpec.embed_dim: expected a multiple of"),
     ("model.depth", 7, "model: expected the keys"),
     ("model.whole_cancels", 1, "ModelSpec.whole_cancels: expected a bool, got 1"),
     ("model.tokens.whole_cancels", True,
      "model.tokens: expected the keys intervals, price_levels, volumes and perhaps signals, got "),
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
    with pytest.raises(ValueError, match=r"spec\.json: cut off or changed"):
        checkpoint_folder.restore(broken)
    checkpoint_folder.seal(broken)
    with pytest.raises(ValueError) as error:
        checkpoint_folder.restore(broken)
    assert str(broken) in str(error.value)
    assert expected in str(error.value)


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
    assert half.model.head.weight.dtype == jnp.bfloat16
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
    loaded = dataclasses.replace(loaded, model=loaded.model.replace({"head": loaded.model.head.weight / 40}))
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


def test_a_row_is_drawn_by_the_law_of_rollouts(saved: Path) -> None:
    loaded, features = marsjax.load_order_model(saved), published.random_features(count=5, length=3)
    found = loaded.sample(jax.random.key(7), features, 1.5)
    words = jnp.stack([jax.random.bits(jax.random.fold_in(jax.random.key(7), i), (2,), jnp.uint32) for i in range(5)])
    np.testing.assert_array_equal(found, sampling.sample(loaded.logits(features), words, 1.5))
    np.testing.assert_array_equal(loaded.sample(jax.random.PRNGKey(7), features, 1.5), found)


@pytest.mark.parametrize("key", [0, np.zeros(3, np.uint32), np.zeros((2, 2), np.uint32)])
def test_what_is_no_key_is_refused(saved: Path, key: Any) -> None:
    with pytest.raises(InputError, match="key: expected"):
        marsjax.load_order_model(saved).sample(key, published.random_features())


def test_a_checkpoint_takes_other_converters_that_fit_and_nothing_else(tmp_path: Path, saved: Path) -> None:
    assert marsjax.load_order_model(saved, ratio_embeddings="auto").converters
    converter_files.save(tmp_path / "price.npz", converter_files.read_folder(fixture_folder() / "converters")["price"])
    other = tmp_path / "other"
    shutil.copytree(fixture_folder() / "converters_small", other)
    (other / "price.zstd").unlink()
    shutil.copy(tmp_path / "price.npz", other)
    given = marsjax.load_order_model(saved, converters=other)
    kept = marsjax.load_order_model(saved)
    assert not np.array_equal(given.converters["price"].edges, kept.converters["price"].edges)
    np.testing.assert_array_equal(given.converters["price-level"].edges, kept.converters["price-level"].edges)
    with pytest.raises(InputError, match=r"converters .*price-level: expected 8 bins, got 32"):
        marsjax.load_order_model(saved, converters=fixture_folder() / "converters")
    with pytest.raises(FileNotFoundError, match=r"no \.zstd or \.npz file of these converters"):
        marsjax.load_order_model(saved, converters=tmp_path / "none")
    for name, value in (("samples", tmp_path), ("ratio_embeddings", "sum"), ("ratio_embeddings", "ignore")):
        with pytest.raises(InputError, match=f"^{name}: expected none for a folder of marsjax"):
            marsjax.load_order_model(saved, **{name: value})


@pytest.mark.parametrize(
    ("features", "expected"),
    [(np.zeros((2, 17, 15), np.int32), "at most context_length=16 tokens, got 17"),
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
    from marsjax.checkpoint import load


    monkeypatch.setattr(load, "__file__", str(tmp_path / "marsjax" / "checkpoint" / "load.py"))
    with pytest.raises(FileNotFoundError, match="no checkpoint 'default' comes with this copy of marsjax"):
        marsjax.load_order_model()
    for place in ("checkpoints", "marsjax/packaged/checkpoints"):
        shutil.copytree(saved, tmp_path / place / "default")
        assert marsjax.load_order_model().spec == SPEC
        shutil.rmtree(tmp_path / place)


def test_importing_marsjax_imports_nothing_heavy() -> None:
    program = """
import sys
import marsjax
print([name for name in ("jax", "orbax", "huggingface_hub", "pandas") if name in sys.modules])
import marsjax.checkpoint
print([name for name in ("orbax", "huggingface_hub", "pandas") if name in sys.modules])
print(marsjax.load_order_model.__module__)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60,
                            env={**os.environ, "JAX_PLATFORMS": "no_such_platform", "PYTHONPATH": str(ROOT)})
    assert result.stdout.split() == ["[]", "[]", "marsjax.checkpoint.load"]
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        marsjax.nothing  # noqa: B018
