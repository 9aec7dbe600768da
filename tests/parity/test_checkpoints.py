"""Golden checkpoints: imported logits equal the reference's, and what is exported has the reference's tensors."""

import json
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from marsjax.checkpoint import folder as checkpoint_folder
from marsjax.checkpoint import safetensors as safetensors_layout
from marsjax.model.llama import OrderModel
from marsjax.tokens import encoding
from tests.helpers import golden_folder

pytestmark = pytest.mark.optimised

CASES = sorted(path.name for path in golden_folder().glob("model_*"))
EACH = pytest.mark.parametrize("case", CASES)
RELATIVE = 2e-5


def assert_equals_reference(model: OrderModel, case: str) -> None:
    with np.load(golden_folder() / case / "expected.npz") as file:
        features, expected = file["features"], file["logits"]
    got = model.logits(encoding.from_array(model.spec.tokens, features), last_only=expected.ndim == 2)
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() < RELATIVE * np.abs(expected).max()


def layout(path: Path) -> dict[str, tuple[list[int], str]]:
    with safe_open(path, framework="np") as file:
        return {name: (file.get_slice(name).get_shape(),
                       file.get_slice(name).get_dtype()) for name in file.keys()}  # noqa: SIM118


def test_golden_folder_holds_models() -> None:
    assert CASES, f"no folder model_* in {golden_folder()}"


@EACH
def test_import_and_restored_checkpoint_equal_the_reference(case: str, tmp_path: Path) -> None:
    imported = safetensors_layout.read(golden_folder() / case)
    assert_equals_reference(imported.model, case)
    checkpoint_folder.save(tmp_path / "saved", imported.model, {}, {})
    restored = checkpoint_folder.restore(tmp_path / "saved")
    assert restored.model.spec == imported.model.spec
    chex.assert_trees_all_equal(restored.model, imported.model)
    assert_equals_reference(restored.model, case)


@EACH
def test_every_tensor_of_the_file_is_accounted_for(case: str) -> None:
    imported = safetensors_layout.read(golden_folder() / case)
    assert sorted([*imported.used, *imported.unused]) == sorted(layout(golden_folder() / case / "model.safetensors"))
    assert {name.split(".")[0] for name in imported.unused} == {"linear_head", "decoder"}
    assert sum(x.size for x in jax.tree.leaves(imported.model)) == sum(
        x.size for name, x in load_file(golden_folder() / case / "model.safetensors").items() if name in imported.used)


@EACH
def test_export_has_the_names_shapes_and_numbers_of_the_reference(case: str, tmp_path: Path) -> None:
    imported = safetensors_layout.read(golden_folder() / case)
    safetensors_layout.write(tmp_path, imported.model, imported.dropout)
    source = golden_folder() / case
    assert layout(tmp_path / "model.safetensors") == layout(source / "model.safetensors")
    assert json.loads((tmp_path / "config.json").read_text()) == json.loads((source / "config.json").read_text())
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (tmp_path, source))
    for name in imported.used:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    for name in imported.unused:
        assert np.all(ours[name] == (name == "linear_head.0.weight")), name
    again = safetensors_layout.read(tmp_path)
    assert again.model.spec == imported.model.spec
    chex.assert_trees_all_equal(again.model, imported.model)
