"""What the API pages make of docstrings: lists of names are lists, and a citation of the reference is a link."""

import re
from typing import Any

import griffe

_CITED = re.compile(r"(?<=[( ])reference: (?P<what>[a-zA-Z]+(?:\s+(?!paper)[a-zA-Z]+)*)")
_NAMES = re.compile(r"^ *(?:- )?(?=`[^`]+`(?:, `[^`]+`| and `[^`]+`)*: )", flags=re.MULTILINE)
_SHAPES = re.compile(r"\] \[")
"""As in `datetime64[m] [R]`, which Markdown takes for a link."""


class Readable(griffe.Extension):
    """Changes the text of every docstring before it is rendered."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """After an object is collected."""
        del kwargs
        if obj.docstring is not None:
            obj.docstring.value = readable(obj.docstring.value)


def readable(text: str) -> str:
    """A docstring as Markdown."""
    return _listed(_CITED.sub(_link, _SHAPES.sub(r"] \\[", text)))


def slug(title: str) -> str:
    """The anchor of a heading."""
    return re.sub(r"[^\w]+", "-", title.lower()).strip("-")


def _link(match: re.Match[str]) -> str:
    what = " ".join(match["what"].split())
    return f"reference: [{what}][{slug(what)}]"


def _listed(text: str) -> str:
    """Lines that begin with a name and a colon as items of a list, with a line before the first."""
    lines: list[str] = []
    is_list = False
    for line in text.split("\n"):
        is_item = _NAMES.match(line) is not None
        if is_item and not is_list:
            lines.append("")
        if is_list and not is_item and not line.startswith(" "):
            lines.append("")
        if is_item:
            line = "- " + line.strip().removeprefix("- ")
        lines.append(line)
        is_list = is_item or (is_list and line.startswith(" "))
    return "\n".join(lines)
