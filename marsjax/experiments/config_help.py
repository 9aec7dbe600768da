"""What `--config=NAME:help` prints: a config's own docstring, its argument, and every key with value and comment."""

import ast
import inspect
import io
import pathlib
import tokenize
from collections.abc import Iterator

from ml_collections import ConfigDict

from marsjax.experiments import config as configs
from marsjax.experiments import config_parts


def describe(path: pathlib.Path, arg: str) -> str:
    """The help text of a config file, its keys as they stand under `arg` less the word `help`."""
    known: list[tuple[str, str]] = []
    try:
        configs.load(path, arg)
    except configs.HelpRequest as request:
        known = request.known
    config = configs.load(path, ",".join(word for word in arg.split(",") if word.strip() != configs.HELP))
    source = path.read_text(encoding="utf-8")
    comments = key_comments(source)
    # A config's own comment of a key goes before that of the keys that several configs share.
    comments |= {key: text for key, text in shared_comments().items() if not comments.get(key)}
    keys = sorted(_flat(config), key=lambda item: _place(item[0], comments))
    rows = [(f"--config.{key}={value!r}", comments.get(_tail(key, comments), "")) for key, value in keys]
    parts = [ast.get_docstring(ast.parse(source)) or str(path)]
    if known:
        parts.append("Argument (after the colon, separated by commas):\n" + _table(known))
    parts.append("Keys:\n" + _table(rows))
    return "\n\n".join(parts)


def shared_comments() -> dict[str, str]:
    """Comments of the keys that several configs share."""
    return key_comments(inspect.getsource(config_parts))


def _table(rows: list[tuple[str, str]]) -> str:
    width = min(max((len(name) for name, _ in rows), default=0), 48)
    return "\n".join(f"  {name:<{width}}  {text}".rstrip() for name, text in rows)


def _flat(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _tail(key: str, comments: dict[str, str]) -> str:
    """The part of `key` that the source has, since a section may have a name of its own (`book.levels = 10`)."""
    parts = key.split(".")
    tails = [".".join(parts[start:]) for start in range(len(parts))]
    return next((tail for tail in tails if tail in comments), key)


def _place(key: str, comments: dict[str, str]) -> int:
    """The order of the source, since a ConfigDict lists its keys by the alphabet."""
    tail = _tail(key, comments)
    return list(comments).index(tail) if tail in comments else len(comments)


def key_comments(source: str) -> dict[str, str]:
    """Comments of a config's keys, in the order of the source, without the name assigned to; empty where there is none.

    A key's comment stands behind it (`config.a.b = 1  # text` -> {"a.b": "text"}) and goes on below if indented
    further, or it stands on the lines above.
    """
    alone, behind = _comments(source)
    found: dict[str, str] = {}
    for key, first, last, column in sorted(_assignments(ast.parse(source)), key=lambda item: item[1]):
        texts = [behind[last]] if last in behind else []
        below, above = last + 1, first - 1
        while last in behind and below in alone and alone[below][0] > column:
            texts.append(alone[below][1])
            below += 1
        while last not in behind and above in alone and alone[above][0] == column:
            texts.insert(0, alone[above][1])
            above -= 1
        found[key] = found.get(key) or " ".join(texts)
    return found


def _comments(source: str) -> tuple[dict[int, tuple[int, str]], dict[int, str]]:
    """Comments by line: those alone on theirs, with their column, and those behind code."""
    alone: dict[int, tuple[int, str]] = {}
    behind: dict[int, str] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            text = token.string.lstrip("#: ").strip()
            line, column = token.start
            if token.line.lstrip().startswith("#"):
                alone[line] = (column, text)
            else:
                behind[line] = text
    return alone, behind


def _assignments(tree: ast.AST) -> Iterator[tuple[str, int, int, int]]:
    """(key, first line, last line, column) of `x.key = ...`, `dict(key=...)` and `{"key": ...}`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Attribute):
                    key = ast.unparse(target).partition(".")[2]
                    yield key, node.lineno, node.end_lineno or node.lineno, node.col_offset
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.arg, node.lineno, node.value.end_lineno or node.lineno, node.col_offset
        elif isinstance(node, ast.Dict):
            for name, value in zip(node.keys, node.values, strict=True):
                if isinstance(name, ast.Constant) and isinstance(name.value, str):
                    yield name.value, name.lineno, value.end_lineno or name.lineno, name.col_offset
