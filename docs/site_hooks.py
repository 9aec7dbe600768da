"""Hooks of MkDocs: pages that lie beside docs/ are part of the site, and links are right on GitHub and in it.

In the repository a page links to another by its path there, as GitHub wants it. In the site docs/ is the top, and
READMEs of studies, cards of checkpoints and ARCHITECTURE.md stand below it by their own paths; whatever file a page
links to is published with it.
"""

import pathlib
import posixpath
import re
from collections.abc import Iterator

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = pathlib.Path(__file__).parent.parent
DOCS = "docs/"
BESIDE = ("ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "checkpoints/README.md", "checkpoints/*/README.md",
          "colab/README.md", "experiments/*/README.md")
"""Pages of the site outside of docs/."""
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#|<)([^)\s#]+)(#[^)\s]*)?(?=\))")
_NAME = re.compile(r"`(marsjax(?:\.\w+)+)`")
_CODE = re.compile(r"(^```.*?^```|^(?: {4}|\t).*?$|`[^`\n]+`)", flags=re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages beside docs/, and the files that any page links to."""
    pages = [file for file in files if file.src_uri.endswith(".md")]
    for path in sorted(found for pattern in BESIDE for found in ROOT.glob(pattern)):
        pages.append(_file(path.relative_to(ROOT).as_posix(), config))
        files.append(pages[-1])
    for page in pages:
        text = pathlib.Path(page.abs_src_path or "").read_text(encoding="utf-8")
        for target in linked(text, repository_path(page)):
            path = ROOT / target
            if path.is_file() and path.suffix != ".md" and files.get_file_from_path(site_path(target)) is None:
                files.append(_file(target, config))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns paths in the repository into paths in the site, and names of the library into links to the API."""
    del config
    here = repository_path(page.file)

    def in_site(match: re.Match[str]) -> str:
        target = site_path(_target(match[1], here))
        if files.get_file_from_path(target) is None:
            return match[0]  # a broken link, which MkDocs tells
        return posixpath.relpath(target, posixpath.dirname(page.file.src_uri) or ".") + (match[2] or "")

    parts = _CODE.split(markdown)
    for place, part in enumerate(parts):
        if place % 2 == 0:
            parts[place] = _LINK.sub(in_site, part)
        elif not parts[place - 1].endswith("["):  # the text of a link stays as it is
            parts[place] = _NAME.sub(r"<autoref identifier='\1' optional><code>\1</code></autoref>", part)
    return "".join(parts)


def repository_path(file: File) -> str:
    """Where a file of the site lies in the repository."""
    return pathlib.Path(file.abs_src_path or "").relative_to(ROOT).as_posix()


def site_path(path: str) -> str:
    """Where a file of the repository lies in the site."""
    return "index.md" if path == "README.md" else path.removeprefix(DOCS)


def linked(text: str, here: str) -> Iterator[str]:
    """Paths in the repository that a page at `here` links to."""
    for part in _CODE.split(text)[::2]:
        for match in _LINK.finditer(part):
            yield _target(match[1], here)


def _target(link: str, here: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(here), link))


def _file(path: str, config: MkDocsConfig) -> File:
    return File(path, str(ROOT), config.site_dir, config.use_directory_urls)
