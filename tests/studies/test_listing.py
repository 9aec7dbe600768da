"""The rooms whose modules are their public face list all of them, and importing such a room pulls in none."""

import importlib
import pathlib
import subprocess
import sys

import pytest

ROOMS = ("analysis", "studies", "experiments")


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_lists_its_modules(name: str) -> None:
    room = importlib.import_module(f"marsjax.{name}")
    assert room.__file__ is not None
    folder = pathlib.Path(room.__file__).parent
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert set(room.__all__) == files | {path.parent.name for path in folder.glob("*/__init__.py")}


def test_importing_a_room_is_cheap() -> None:
    code = (f"import sys\nimport {', '.join(f'marsjax.{name}' for name in ROOMS)}\n"
            "print([name for name in ('pandas', 'matplotlib', 'scipy', 'jax') if name in sys.modules])")
    root = pathlib.Path(__file__).parents[2]
    found = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
