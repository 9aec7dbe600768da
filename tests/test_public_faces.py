"""Each room says what its public names are, and the rooms that everything is built on stay cheap to import."""

import importlib
import json
import os
import pathlib
import pkgutil
import subprocess
import sys

import pytest

import marsjax

ROOT = pathlib.Path(__file__).parent.parent
ROOMS = ["marsjax", "marsjax.analysis.lob_bench", "marsjax.experiments.pages", "marsjax.experiments.service",
         "marsjax.model.order_batch", "marsjax.sim.initial", "marsjax.studies.fleet", "marsjax.studies.service",
         "marsjax.training.order_batch",
         *sorted(f"marsjax.{x.name}" for x in pkgutil.iter_modules(marsjax.__path__) if x.ispkg)]
LAZY = ["marsjax.analysis", "marsjax.analysis.lob_bench", "marsjax.data", "marsjax.experiments",
        "marsjax.experiments.pages", "marsjax.experiments.service", "marsjax.rl", "marsjax.sim", "marsjax.studies",
        "marsjax.studies.fleet", "marsjax.studies.service", "marsjax.training", "marsjax.training.order_batch"]


@pytest.mark.parametrize("room", ROOMS)
def test_public_names_exist_and_the_docstring_of_the_room_tells_what_they_are(room: str) -> None:
    module = importlib.import_module(room)
    assert module.__all__ and len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        assert f"`{name}`" in module.__doc__, f"{room}: say what {name} is"
        assert getattr(module, name) is not None


@pytest.mark.parametrize("room", LAZY)
def test_a_name_that_a_room_lacks_is_an_attribute_error(room: str) -> None:
    with pytest.raises(AttributeError, match=rf"{room}.*no_such_name"):
        importlib.import_module(room).no_such_name  # noqa: B018


@pytest.mark.parametrize(("modules", "expected"), [
    (["core", "market", "tokens", "data", "agents", "observers", "sim", "sim.initial", "sim.replay"], set()),
    (["model", "sim.env", "sim.rollout"], {"flax", "optax"}),
])
def test_what_a_simulation_is_made_of_imports_none_of_the_large_packages(modules: list[str], expected: set[str]
                                                                         ) -> None:
    program = (f"import json, sys; import {', '.join(f'marsjax.{module}' for module in modules)}; "
               "print(json.dumps(sorted(sys.modules)))")
    result = subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(ROOT)},
                            capture_output=True, text=True, timeout=120, check=True)
    loaded = set(json.loads(result.stdout))
    assert {f"marsjax.{module}" for module in modules} <= loaded
    assert loaded & {"pandas", "orbax", "flax", "optax", "huggingface_hub", "matplotlib", "scipy"} <= expected
