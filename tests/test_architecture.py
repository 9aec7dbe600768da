"""Imports inside marsjax go one way, without circles, and the library keeps its few rules of form."""

import ast
import pathlib
from collections.abc import Iterator

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / "marsjax"

ROOMS = [
    "types", "specs", "clock", "orders", "sampling", "safe_pickle", "bins", "slots", "book", "auction", "ledger",
    "model", "decode", "data", "exchange", "tokens", "agents", "watchers", "replay", "start", "schedule", "turns",
    "simulate", "resume", "outcome", "relay", "rollout", "parallel", "safetensors_layout", "checkpoints", "hub",
    "validation", "importer", "order_model", "env", "training", "analysis", "testing", "experiments",
]  # fmt: skip
"""Top to bottom: a room may import those above it, and itself. The front door, marsjax/__init__.py, may import all."""


def module_name(path: pathlib.Path, package: pathlib.Path = PACKAGE) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST, module: str, is_package: bool) -> Iterator[tuple[str, str]]:
    """(module, name) of every import of marsjax in the file, wherever it stands; the name is empty for `import a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.split(".")[0] == "marsjax")
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")
                parents = parents[: len(parents) - node.level + is_package]
                base = ".".join([*parents, *filter(None, [node.module])])
            if base.split(".")[0] == "marsjax":
                yield from ((base, alias.name) for alias in node.names)


def graph(package: pathlib.Path = PACKAGE) -> dict[str, set[str]]:
    """Module -> the modules of marsjax that it imports."""
    files = {module_name(path, package): path for path in sorted(package.rglob("*.py"))}
    edges = {}
    for module, path in files.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found = imports(tree, module, path.name == "__init__.py")
        edges[module] = {f"{base}.{name}" if f"{base}.{name}" in files else base for base, name in found} - {module}
    return edges


def room(module: str) -> str:
    """The room of a module, "" for the front door."""
    return module.split(".")[1] if "." in module else ""


def wrong_way(edges: dict[str, set[str]]) -> list[str]:
    wrong = []
    for module, targets in edges.items():
        if not room(module):
            continue
        for target in sorted(targets):
            if not room(target):
                if room(module) != ROOMS[-1]:
                    wrong.append(f"{module} imports the front door {target}: import the room that has the name")
            elif ROOMS.index(room(target)) > ROOMS.index(room(module)):
                wrong.append(f"{module} imports {target}, which is below it")
    return wrong


def circle(edges: dict[str, set[str]]) -> list[str]:
    """Modules on a circle of imports, in order; empty if there is none."""
    done: set[str] = set()

    def walk(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        for target in sorted(edges.get(module, ())):
            found = walk(target, [*path, module])
            if found:
                return found
        done.add(module)
        return []

    return next(filter(None, (walk(module, []) for module in sorted(edges))), [])


def test_every_module_has_a_room() -> None:
    unknown = sorted({room(module) for module in graph()} - {"", *ROOMS})
    assert not unknown, f"not in ROOMS of {__file__}: {unknown}; add each where it stands on the route"


def test_imports_point_up() -> None:
    assert not wrong_way(graph())


def test_no_circle() -> None:
    assert not circle(graph())


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from marsjax import exchange\n", "below"),
        ("import marsjax.exchange as e\n", "below"),
        ("def f():\n    from marsjax.exchange import step\n", "below"),
        ("from .exchange import step\n", "below"),
        ("from . import exchange\n", "below"),
        ("import marsjax\n", "front door"),
        ("from marsjax import rollout\n", "front door"),
        ("from marsjax import types\n", ""),
        ("import jax\n", ""),
    ],
)
def test_the_check_sees_what_it_should(tmp_path: pathlib.Path, source: str, expected: str) -> None:
    package = tmp_path / "marsjax"
    package.mkdir()
    for name, text in {"__init__": "", "types": "", "exchange": "step = 1\n", "book": source}.items():
        (package / f"{name}.py").write_text(text)
    assert [expected in line for line in wrong_way(graph(package))] == ([True] if expected else [])


def test_the_check_sees_a_circle(tmp_path: pathlib.Path) -> None:
    package = tmp_path / "marsjax" / "data"
    package.mkdir(parents=True)
    files = {"__init__": "from .a import x", "a": "from marsjax.data import b", "b": "from .a import y"}
    for name, text in files.items():
        (package / f"{name}.py").write_text(text)
    assert circle(graph(tmp_path / "marsjax")) == ["marsjax.data.a", "marsjax.data.b", "marsjax.data.a"]


def test_no_room_for_leftovers() -> None:
    nameless = ("utils", "util", "helpers", "misc", "common")
    assert not [str(path) for path in PACKAGE.rglob("*.py") if path.stem in nameless]


def test_no_bare_assert_and_no_catch_all() -> None:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Assert):
                found.append(f"{path}:{node.lineno}: assert; raise an error that says what was expected")
            if isinstance(node, ast.ExceptHandler):
                caught = "BaseException" if node.type is None else ast.unparse(node.type)
                if "Exception" in caught.replace("(", " ").replace(",", " ").replace(")", " ").split() or (
                    "BaseException" in caught
                ):
                    found.append(f"{path}:{node.lineno}: catches all; name the errors that can be expected")
    assert not found
