"""Files of published models as people have them: in shards, of old libraries, as pointers, half in a cache."""

import json
import os
import re
from pathlib import Path

import huggingface_hub
import jax
import numpy as np
import pytest
from huggingface_hub import constants
from safetensors.numpy import load_file, save_file

import marsjax
from marsjax.checkpoint import converter_files, hub, importer, validation
from marsjax.checkpoint import safetensors as safetensors_layout
from marsjax.core.errors import InputError
from marsjax.experiments import config as configs
from marsjax.experiments import setup
from tests import published

INDEX = "model.safetensors.index.json"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "a" * 64 + "\nsize 123456\n"


def weights(folder: Path) -> list[np.ndarray]:
    return jax.tree.leaves(safetensors_layout.read(folder).model)


# --- shards


@pytest.mark.parametrize("parts", [1, 2, 5])
def test_shards_are_read_as_one_file(tmp_path: Path, parts: int) -> None:
    folder = published.make(tmp_path)
    expected = weights(folder)
    published.split(folder, parts)
    for got, x in zip(weights(folder), expected, strict=True):
        np.testing.assert_array_equal(got, x)
    about = importer.import_published(folder).about
    assert set(about["sha256"]) == {"config.json", INDEX, *(path.name for path in folder.glob("model-*"))}


def test_missing_shards_and_indices_are_named(tmp_path: Path) -> None:
    folder = published.split(published.make(tmp_path), 9)
    for i in (2, 3, 4, 5, 6, 7):
        (folder / f"model-0000{i}-of-00009.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"6 of 9 shards that .*index\.json names are missing: "
                                                r"model-00002-of-00009\.safetensors, .* and 1 more; download them"):
        marsjax.load_order_model(folder)
    (folder / INDEX).unlink()
    with pytest.raises(FileNotFoundError, match=r"it has 3 files model-\*\.safetensors, but no .*index\.json"):
        marsjax.load_order_model(folder)


def edited(folder: Path, **changes: object) -> None:
    record = json.loads((folder / INDEX).read_text())
    (folder / INDEX).write_text(json.dumps(record | changes))


def test_a_damaged_index_is_named(tmp_path: Path) -> None:
    folder = published.split(published.make(tmp_path / "model"), 2)
    whole = (folder / INDEX).read_text()
    at = json.loads(whole)["weight_map"]
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    (tmp_path / "outside.safetensors").write_bytes((folder / first).read_bytes())
    some = next(iter(at))
    for changes, message in [
            ({"weight_map": None}, "weight_map: expected the file of each tensor, got None"),
            ({"weight_map": {}}, "weight_map: expected the file of each tensor, got a dict of 0"),
            ({"weight_map": [1]}, "weight_map: expected the file of each tensor, got a list of 1"),
            ({"weight_map": at | {some: 3}}, "expected a file name like model-00001-of-00002.safetensors, got 3"),
            ({"weight_map": at | {some: "../outside.safetensors"}}, "got '../outside.safetensors'"),
            ({"weight_map": at | {some: str(tmp_path / "outside.safetensors")}}, "expected a file name like"),
            ({"weight_map": at | {some: "a.bin"}}, "expected a file name like"),
            ({"weight_map": {name: second if file == first else first for name, file in at.items()}},
             f"is in {first}, the index says {second}"),
            ({"weight_map": {name: file for name, file in at.items() if name != some}}, "the index says no file"),
            ({"weight_map": at | {"extra.weight": second}}, f"{second}: 1 tensors that {INDEX} places there are not")]:
        (folder / INDEX).write_text(whole)
        edited(folder, **changes)
        with pytest.raises(InputError) as error:
            marsjax.load_order_model(folder)
        assert str(error.value).startswith(str(folder)) and message in str(error.value), str(error.value)
    for text in ("", whole[: len(whole) // 2], "[" * 300_000, POINTER):
        (folder / INDEX).write_text(text)
        with pytest.raises(InputError, match=f"^{re.escape(str(folder / INDEX))}: "):
            marsjax.load_order_model(folder)


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    folder = published.split(published.make(tmp_path), 2)
    one, two = sorted(folder.glob("model-*"))
    tensors = load_file(two)
    name, value = next(iter(load_file(one).items()))
    save_file(tensors | {name: value + 1}, two)
    with pytest.raises(InputError, match=f"{name}' is in {two.name}, the index says {one.name}"):
        marsjax.load_order_model(folder)


# --- what old libraries add, and keys


def test_rotary_buffers_of_old_libraries_are_passed_over(tmp_path: Path) -> None:
    plain = weights(published.make(tmp_path / "plain"))
    names = [f"decoder.model.layers.{i}.self_attn.rotary_emb.inv_freq" for i in range(2)]
    names += ["decoder.model.rotary_emb.inv_freq"]
    folder = published.make(tmp_path / "old", tensors=dict.fromkeys(names, np.ones(2, np.float32)))
    for got, x in zip(weights(folder), plain, strict=True):
        np.testing.assert_array_equal(got, x)
    assert set(names) < set(safetensors_layout.read(folder).unused)
    odd = "decoder.model.rotary_emb.inv_freqs"
    with pytest.raises(InputError, match=f"1 tensors do not fit config.json: {odd} .2. is unexpected"):
        weights(published.make(tmp_path / "odd", tensors={odd: np.ones(2, np.float32)}))


def test_many_tensors_that_do_not_fit_make_a_short_message(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"40 tensors do not fit config\.json: .*; and 32 more$") as error:
        weights(published.make(tmp_path, tensors={f"a{i:03}": np.ones(2, np.float32) for i in range(40)}))
    assert len(str(error.value)) < len(str(tmp_path)) + 400


def test_a_key_that_changes_nothing_is_passed_over_where_its_message_says(tmp_path: Path) -> None:
    folder = published.make(tmp_path / "model", config={"tie_word_embeddings": False, "use_cache": True})
    with pytest.raises(InputError, match=r"config\.json: tie_word_embeddings=False, and 1 more: unknown key.*name it "
                                         r"in ignore_keys \(of a program: --config\.ignore_keys=tie_word_embedding"):
        marsjax.load_order_model(folder)
    given = ("tie_word_embeddings", "use_cache")
    assert marsjax.load_order_model(folder, ignore_keys=given).about["import"]["ignored_keys"] == list(given)
    with pytest.raises(InputError, match="use_cache=True: unknown key"):
        marsjax.load_order_model(folder, ignore_keys="tie_word_embeddings")
    config = configs.load(*configs.find("forecast"))
    configs.override(config, [f"--config.model={folder}", "--config.ignore_keys=tie_word_embeddings,use_cache"])
    with pytest.raises(InputError, match="converters"):  # the keys have been passed over: this comes later
        setup.load_order_model(config)


# --- pointers


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "model-00002-of-00003.safetensors",
                                  "converters/price.zstd", "samples/valid-00.zstd"])
def test_a_pointer_of_git_lfs_is_named(tmp_path: Path, name: str) -> None:
    folder = published.make(tmp_path)
    if "-of-" in name:
        published.split(folder)
    if "/" in name:
        (folder / name).parent.mkdir()
    (folder / name).write_text(POINTER)
    readers = {"converters": lambda: converter_files.read_zstd(folder / name),
               "samples": lambda: validation.read(folder / "samples", published.SPEC)}
    read = readers.get(name.split("/")[0], lambda: marsjax.load_order_model(folder))
    with pytest.raises(InputError, match=f"{re.escape(str(folder / name))}: a Git LFS pointer, .*`git lfs pull`"):
        read()


# --- half in the cache


def cached(cache: Path, name: str, files: list[str], kept: list[str]) -> None:
    repository = cache / f"models--acme--{name}"
    snapshot = repository / "snapshots" / published.COMMIT
    for folder in (repository / "refs", repository / "blobs", snapshot / "converters"):
        folder.mkdir(parents=True)
    (repository / "refs" / "main").write_text(published.COMMIT)
    for number, file in enumerate(files):
        (snapshot / file).symlink_to(os.path.relpath(repository / "blobs" / str(number), (snapshot / file).parent))
        if file in kept:
            (repository / "blobs" / str(number)).write_text("{}")


@pytest.mark.parametrize(("files", "kept", "lacks"), [
    (["config.json"], ["config.json"], "model.safetensors"),
    (["config.json", "model.safetensors"], ["config.json"], "model.safetensors"),
    (["model.safetensors"], ["model.safetensors"], "config.json"),
    ([], [], "config.json"),
    (["config.json", "model.safetensors", "converters/price.zstd"], ["config.json", "model.safetensors",
                                                                     "converters/price.zstd"], "price-level.zstd"),
    (["config.json", "model.safetensors", "converters/price.zstd"], ["config.json", "model.safetensors"], "price.zstd"),
    (["config.json", "model.safetensors"], ["config.json", "model.safetensors"], ""),
])
def test_what_the_cache_lacks_offline_is_no_missing_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                         files: list[str], kept: list[str], lacks: str) -> None:
    cached(tmp_path, "part", files, kept)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    if not lacks:
        assert hub.fetch("acme/part").model.name == published.COMMIT
        return
    with pytest.raises(ConnectionError, match=f"^acme/part .*cannot be reached, and .*{re.escape(lacks)} is not in the "
                                              "cache: go online, or `hf download acme/part`") as error:
        marsjax.load_order_model("acme/part")
    assert len(str(error.value)) < 300


def test_shards_come_from_the_hub_whatever_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("model-{:05}-of-{:05}.safetensors", "part{}of{}.safetensors"):
        source = published.split(published.make(tmp_path / name[0]), name=name)
        fake = published.FakeHub(tmp_path / "cache" / name[0], {("some/model", "model"): source})
        monkeypatch.setattr(huggingface_hub, "snapshot_download", fake)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", fake.file)
        found = hub.fetch("some/model")
        assert len(list(found.model.glob("*.safetensors"))) == 3
        for got, x in zip(weights(found.model), weights(source), strict=True):
            np.testing.assert_array_equal(got, x)
        (source / name.format(2, 3)).unlink()
        (found.model / name.format(2, 3)).unlink()
        with pytest.raises(FileNotFoundError, match=f"the repository has no file {re.escape(name.format(2, 3))}"):
            hub.fetch("some/model")
