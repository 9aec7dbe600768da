"""What a public project says of itself agrees: version, licence, commands, and the files that pages link to."""

import re
from pathlib import Path

import pytest

import marsjax

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("experiments/*/README.md")]


def test_the_citation_is_of_this_version_and_licence() -> None:
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"version: {marsjax.__version__}\n" in citation and f"## {marsjax.__version__}" in (
        ROOT / "CHANGELOG.md").read_text()
    assert "license: MIT\n" in citation and 'license="MIT"' in (ROOT / "setup.py").read_text()
    assert (ROOT / "LICENSE").read_text().startswith("MIT License\n")


def test_ci_runs_what_contributors_are_told_to_run() -> None:
    assert "run: .ci/run\n" in (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    told, run = (ROOT / "CONTRIBUTING.md").read_text(), (ROOT / ".ci" / "run").read_text()
    for command in ("ruff check .", "mypy", "pytest -m slow"):
        assert command in told and command in run
    lowest = re.search(r'python_requires=">=(.+?)"', (ROOT / "setup.py").read_text())
    assert lowest is not None and f'"{lowest[1]}"' in (ROOT / ".github" / "workflows" / "ci.yml").read_text()


@pytest.mark.parametrize("device", ["cpu", "cuda12", "cuda13"])
def test_an_image_has_all_that_marsjax_needs(device: str) -> None:
    """Every package that the setup asks for is in the lock, and every line of it is held by hashes."""
    text = (ROOT / "docker" / f"requirements-{device}.txt").read_text()
    locked = {re.sub("[-_.]+", "-", name).lower() for name in re.findall(r"^([\w.-]+)==", text, flags=re.MULTILINE)}
    assert len(re.findall(r"^[\w.-]+==\S+ \\\n    --hash=sha256:", text, flags=re.MULTILINE)) == len(locked) > 50
    setup = (ROOT / "setup.py").read_text()
    asked = re.findall(r'"([\w.-]+)>=', setup[setup.index("install_requires="):setup.index("entry_points")])
    assert {re.sub("[-_.]+", "-", name).lower() for name in asked} <= locked
    assert any("nvidia" in name for name in locked) == (device != "cpu")


def test_an_image_is_given_all_that_its_wheel_is_made_of() -> None:
    given = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"}
    assert {"marsjax", "configs", "checkpoints", "setup.py", "pyproject.toml", "README.md", "LICENSE"} <= given
    assert all(list(ROOT.glob(name)) for name in given)
    image = (ROOT / "Dockerfile").read_text()
    assert image.rindex("USER marsjax") > image.rindex("useradd") and "USER root" not in image


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_link_to_what_is_there(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []
