"""Reads the imports of marsjax and draws its rooms: python docs/rooms.py writes docs/rooms.svg.

The rules that the imports keep to are tests/test_architecture.py's, which reads them by the functions here; it also
fails when the picture is not that of the imports.
"""

import ast
import html
import itertools
import pathlib
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "marsjax"
PICTURE = ROOT / "docs" / "rooms.svg"
COMMAND = "python docs/rooms.py"

ROOMS = {
    "core": "records, sizes, exact integers and times",
    "tokens": "an order and its views <-> its token",
    "market": "book, auctions, accounts, exchange",
    "model": "the order model and its draws",
    "checkpoint": "order models on disk and hub",
    "data": "feeds of real orders",
    "agents": "who trades",
    "observers": "what is kept of a run",
    "sim": "the step, rollouts, environment, replay",
    "rl": "markets as environments for learners",
    "training": "from days to an order model",
    "analysis": "tables, scores, figures",
    "testing": "small markets, checks for agents",
    "client": "of the service, without JAX",
    "studies": "forecasts, executions, benchmarks",
    "experiments": "the programs",
}
"""Top to bottom, with what each holds: a room may import those above it, and itself. The front door,
marsjax/__init__.py, may import all."""

# Sizes of the picture, in pixels.
_WIDTH, _MARGIN = 1080, 70
_BOX_WIDTH, _BOX_HEIGHT = 264, 52
_FLOOR_HEIGHT = 104
_GAP = 30
_BEND_WIDTH = 24
"""Of the place on a floor through which an arrow passes to a higher one."""


def module_name(path: pathlib.Path, package: pathlib.Path = PACKAGE) -> str:
    """`marsjax.core.times` of marsjax/core/times.py."""
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


def arrows(edges: dict[str, set[str]]) -> dict[str, set[str]]:
    """Room -> the other rooms that its modules import; the front door is none of them."""
    found: dict[str, set[str]] = {room(module): set() for module in edges if room(module)}
    for module, targets in edges.items():
        if room(module):
            found[room(module)] |= {room(target) for target in targets} - {"", room(module)}
    return found


def floors(between: dict[str, set[str]]) -> dict[str, int]:
    """Room -> its floor: 1 if it imports no other room, else one more than the highest that it imports."""
    floor: dict[str, int] = {}
    while len(floor) < len(between):
        ready = {name: targets for name, targets in between.items() if name not in floor and targets <= floor.keys()}
        if not ready:
            raise ValueError(f"rooms: a circle among {sorted(between.keys() - floor.keys())}")
        floor |= {name: 1 + max((floor[target] for target in targets), default=0) for name, targets in ready.items()}
    return floor


def needed(between: dict[str, set[str]]) -> dict[str, set[str]]:
    """The arrows that no chain of others replaces: with more the picture could not be read."""
    def reached(name: str) -> set[str]:
        return between[name].union(*(reached(target) for target in between[name]))

    return {name: targets - set().union(*(reached(target) for target in targets)) for name, targets in between.items()}


def picture(between: dict[str, set[str]]) -> str:
    """The rooms by floors, as SVG: the first floor on top, so that arrows point up, to what is imported."""
    floor, shown = floors(between), needed(between)
    paths = [[name, *_bends(name, target, floor), target] for name in ROOMS if name in shown
             for target in sorted(shown[name], key=list(ROOMS).index)]
    centre = _centres(floor, paths)
    height = _MARGIN + 30 + (max(floor.values()) - 1) * _FLOOR_HEIGHT + _BOX_HEIGHT
    count = sum(len(targets) for targets in between.values())
    drawn = sum(len(targets) for targets in shown.values())
    text = (f"Imports point up. {len(between)} rooms, {count} arrows: drawn are the {drawn} that no chain of others "
            "replaces.")
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" font-family="Helvetica, Arial, sans-serif">',
        '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M 0 0 L 10 5 L 0 10 z" fill="#5b6b7b"/></marker></defs>',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="{_WIDTH // 2}" y="34" font-size="14" fill="#5b6b7b" text-anchor="middle">{text}</text>']
    for number in range(1, max(floor.values()) + 1):
        y = _top(number)
        lines += [f'<rect x="12" y="{y - 14}" width="{_WIDTH - 24}" height="{_BOX_HEIGHT + 28}" rx="10" '
                  f'fill="{"#f6f8fa" if number % 2 else "#fbfcfd"}"/>',
                  f'<text x="26" y="{y + 31}" font-size="13" fill="#9aa5b1">{number}</text>']
    lines += _drawn_arrows(paths, centre, floor)
    for name, number in floor.items():
        x, y = centre[name], _top(number)
        note = html.escape(ROOMS[name])
        lines += [f'<rect x="{x - _BOX_WIDTH // 2}" y="{y}" width="{_BOX_WIDTH}" height="{_BOX_HEIGHT}" rx="8" '
                  'fill="#ffffff" stroke="#2f6f9f" stroke-width="1.5"/>',
                  f'<text x="{x}" y="{y + 22}" font-size="15" font-weight="bold" fill="#1f2d3a" '
                  f'text-anchor="middle">{name}</text>',
                  f'<text x="{x}" y="{y + 40}" font-size="12" fill="#5b6b7b" text-anchor="middle">{note}</text>']
    return "\n".join([*lines, "</svg>", ""])


def _top(floor: int) -> int:
    return _MARGIN + (floor - 1) * _FLOOR_HEIGHT


def _bends(name: str, target: str, floor: dict[str, int]) -> list[str]:
    """Places on the floors between two rooms."""
    return [f"{name} {target} {number}" for number in range(floor[name] - 1, floor[target], -1)]


def _centres(floor: dict[str, int], paths: list[list[str]]) -> dict[str, int]:
    """The horizontal middle of every room and bend: below the middle of what it points to, side by side."""
    above: dict[str, list[str]] = {}
    for path in paths:
        for lower, upper in itertools.pairwise(path):
            above.setdefault(lower, []).append(upper)
    level = {name: floor[name] if name in floor else int(name.split()[-1]) for name in [*ROOMS, *above]
             if name in floor or " " in name}
    centre: dict[str, int] = {}
    for number in range(1, max(floor.values()) + 1):
        row = [name for name in level if level[name] == number]
        row.sort(key=lambda name: sum(centre[x] for x in above.get(name, [])) // max(len(above.get(name, [])), 1))
        widths = [_BOX_WIDTH if name in floor else _BEND_WIDTH for name in row]
        x = (_WIDTH - sum(widths) - _GAP * (len(row) - 1)) // 2
        for name, width in zip(row, widths, strict=True):
            centre[name] = x + width // 2
            x += width + _GAP
    return centre


def _drawn_arrows(paths: list[list[str]], centre: dict[str, int], floor: dict[str, int]) -> list[str]:
    """Curves; those that leave or reach one box stand side by side, in the order of their other ends."""
    def port(room: str, other: str, others: list[str]) -> int:
        ordered = sorted(others, key=lambda name: (centre[name], name))
        step = min(30, _BOX_WIDTH // (len(ordered) + 1))
        return centre[room] + step * (2 * ordered.index(other) - len(ordered) + 1) // 2

    lines = []
    for path in paths:
        name, *bends, target = path
        x = port(name, path[1], [other[1] for other in paths if other[0] == name])
        y = _top(floor[name])
        curve = f"M {x} {y}"
        for bend in bends:
            number = int(bend.split()[-1])
            middle = (y + _top(number) + _BOX_HEIGHT) // 2
            y = _top(number)
            curve += f" C {x} {middle} {centre[bend]} {middle} {centre[bend]} {y + _BOX_HEIGHT} L {centre[bend]} {y}"
            x = centre[bend]
        end = port(target, path[-2], [other[-2] for other in paths if other[-1] == target])
        bottom = _top(floor[target]) + _BOX_HEIGHT
        middle = (y + bottom) // 2
        curve += f" C {x} {middle} {end} {middle} {end} {bottom + 2}"
        lines.append(f'<path d="{curve}" fill="none" stroke="#5b6b7b" stroke-width="1.6" marker-end="url(#tip)"/>')
    return lines


if __name__ == "__main__":
    PICTURE.write_text(picture(arrows(graph())), encoding="utf-8")
    print(f"wrote {PICTURE}")
