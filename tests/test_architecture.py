"""Imports inside marsjax go one way, without circles, and the library keeps its few rules of form."""

import ast
import collections
import pathlib
import re
from collections.abc import Iterator

import pytest

from docs import rooms
from docs.rooms import COMMAND, PACKAGE, PICTURE, ROOT, graph, module_name, room

ROOMS = list(rooms.ROOMS)
MOST_ARROWS, MOST_FLOORS = 67, 8
"""Between rooms, and in the longest chain of rooms that import one another."""
MOST_LINES_OF_A_FILE, MOST_LINES_OF_A_FUNCTION, MOST_PARAMETERS = 400, 60, 8
ASKS_FOR_THE_DEVICE = {
    "core/kernels.py": "here the ways of the compiled programs are chosen",
    "studies/starts.py": "orders one by one run on the CPU, which is looked for only where it is not the device",
    "experiments/simulate.py": "the number of books, where the config gives none",
    "experiments/train.py": "the type of the numbers, where the config gives none",
}
"""Files that may name `default_backend` or `platform_dependent`, and why."""


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
        ("from marsjax import market\n", "below"),
        ("import marsjax.market as e\n", "below"),
        ("def f():\n    from marsjax.market import step\n", "below"),
        ("from .market import step\n", "below"),
        ("from . import market\n", "below"),
        ("import marsjax\n", "front door"),
        ("from marsjax import rollout\n", "front door"),
        ("from marsjax import core\n", ""),
        ("import jax\n", ""),
    ],
)
def test_the_check_sees_what_it_should(tmp_path: pathlib.Path, source: str, expected: str) -> None:
    package = tmp_path / "marsjax"
    package.mkdir()
    for name, text in {"__init__": "", "core": "", "market": "step = 1\n", "tokens": source}.items():
        (package / f"{name}.py").write_text(text)
    assert [expected in line for line in wrong_way(graph(package))] == ([True] if expected else [])


def test_the_check_sees_a_circle(tmp_path: pathlib.Path) -> None:
    package = tmp_path / "marsjax" / "data"
    package.mkdir(parents=True)
    files = {"__init__": "from .a import x", "a": "from marsjax.data import b", "b": "from .a import y"}
    for name, text in files.items():
        (package / f"{name}.py").write_text(text)
    assert circle(graph(tmp_path / "marsjax")) == ["marsjax.data.a", "marsjax.data.b", "marsjax.data.a"]


def test_few_arrows_and_floors_between_rooms_and_no_circle() -> None:
    between = rooms.arrows(graph())
    assert not circle(between)
    count, highest = sum(map(len, between.values())), max(rooms.floors(between).values())
    assert count <= MOST_ARROWS, f"{count} arrows between rooms, expected {MOST_ARROWS} at most"
    assert highest <= MOST_FLOORS, f"{highest} floors of rooms, expected {MOST_FLOORS} at most"


def test_the_picture_is_that_of_the_imports() -> None:
    now = rooms.picture(rooms.arrows(graph()))
    assert PICTURE.read_text(encoding="utf-8") == now, f"{PICTURE} is not that of the imports: run {COMMAND}"


def test_a_room_on_no_arrow_that_is_drawn_is_still_reached() -> None:
    between = {"a": set(), "b": {"a"}, "c": {"a", "b"}, "d": {"a", "c"}}
    assert rooms.needed(between) == {"a": set(), "b": {"a"}, "c": {"b"}, "d": {"c"}}
    assert rooms.floors(between) == {"a": 1, "b": 2, "c": 3, "d": 4}
    with pytest.raises(ValueError, match="circle"):
        rooms.floors({"a": {"b"}, "b": {"a"}})


def test_architecture_md_lists_the_rooms_and_names_files_that_exist() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+)(?:/|\.py)` \|", text, flags=re.MULTILINE)
    assert listed == ROOMS
    named = re.findall(r"`([\w./]+\.(?:py|md|svg))(?::\w+)?`", text) + re.findall(r"\]\(([\w./]+)\)", text)
    missing = [name for name in named if not any((place / name).exists() for place in (ROOT, PACKAGE))]
    assert len(named) > 20 and not missing


def test_architecture_md_names_functions_that_exist() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w/]+\.py):(\w+)`", text)
    missing = [f"{path}:{name}" for path, name in named if name not in defined(PACKAGE / path)]
    assert len(named) > 10 and not missing


def defined(path: pathlib.Path) -> set[str]:
    """Names of functions, classes and constants of a file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


def test_only_the_programs_know_configs_and_flags() -> None:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if {name.split(".")[0] for name in names} & {"absl", "ml_collections"}:
                found.append(room(module_name(path)))
    assert set(found) == {"experiments"}


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


def too_large(source: str) -> Iterator[str]:
    """Functions with too many lines (from `def` to their end, docstring included) or parameters (but self and cls)."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = node.args
            names = [x.arg for x in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
            names += [x.arg for x in (given.vararg, given.kwarg) if x is not None]
            count = len([name for name in names if name not in ("self", "cls")])
            lines = (node.end_lineno or 0) - node.lineno + 1
            if lines > MOST_LINES_OF_A_FUNCTION:
                yield f"{node.name}: {lines} lines"
            if count > MOST_PARAMETERS:
                yield f"{node.name}: {count} parameters"


def test_functions_fit_a_screen_and_take_few_arguments() -> None:
    found = [f"{path}: {what}" for path in sorted(PACKAGE.rglob("*.py"))
             for what in too_large(path.read_text(encoding="utf-8"))]
    assert not found


@pytest.mark.parametrize(("source", "expected"), [
    ("def f(a, b, c, d, e, f, g, h): pass\n", []),
    ("class A:\n    def f(self, a, b, c, d, *e, f, g, **h): pass\n", []),
    ("def f(a, b, c, d, e, f, g, *, h, i): pass\n", ["f: 9 parameters"]),
    ("def f():\n" + "    pass\n" * 59, []),
    ("def f():\n" + "    pass\n" * 60, ["f: 61 lines"]),
])
def test_the_check_of_functions_sees_what_it_should(source: str, expected: list[str]) -> None:
    assert list(too_large(source)) == expected


def test_files_are_short() -> None:
    lines = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE.rglob("*.py")}
    assert not {path: count for path, count in lines.items() if count > MOST_LINES_OF_A_FILE}


def test_one_class_one_name() -> None:
    places = collections.defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(f"{module_name(path)}:{node.lineno}")
    assert not {name: found for name, found in places.items() if len(found) > 1}


def test_the_device_is_asked_for_in_few_files() -> None:
    found = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")
             for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
             if (node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", ""))
             in ("default_backend", "platform_dependent")}
    assert found == set(ASKS_FOR_THE_DEVICE)
