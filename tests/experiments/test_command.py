"""The command `marsjax`: every program has its place in it, and what is no program is answered in a line."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from marsjax.experiments import command, doctor
from marsjax.studies import self_test
from marsjax.studies.self_test import Check

ROOT = Path(__file__).parents[2]
PROGRAMS = [program.name for group in command.GROUPS.values() for program in group]


def marsjax(*words: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from marsjax.experiments.command import main; sys.exit(main())"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", code, *words], env=environment, capture_output=True, text=True,
                          timeout=120, check=False)


def is_program(path: Path) -> bool:
    """Whether the module runs as a program."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return any(isinstance(node, ast.If) and "__main__" in ast.unparse(node.test) for node in tree.body)


def test_every_program_is_listed_and_each_that_is_listed_is_one() -> None:
    found = [path.stem for path in (ROOT / "marsjax" / "experiments").glob("*.py") if is_program(path)]
    assert sorted(PROGRAMS) == sorted(set(found) - {"command"})


def test_the_list_fits_a_screen() -> None:
    lines = command.usage().splitlines()
    assert len(lines) <= 30 and max(map(len, lines)) <= 100
    asked = marsjax("--help")
    assert (asked.returncode, asked.stdout, asked.stderr) == (0, command.usage() + "\n", "")


def test_lines_that_run_nothing() -> None:
    assert marsjax("--version").stdout.startswith("marsjax 0.")
    assert marsjax().returncode == 2
    wrong = marsjax("forcast", "--config=forecast")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "error: unknown program 'forcast'; did you mean forecast? `marsjax --help` lists all\n"


def test_a_program_gets_the_rest_of_the_line_and_its_exit_code_is_handed_on() -> None:
    found = marsjax("stylized-facts", "--config=stylized_facts:help")
    assert found.returncode == 0 and "rollout_info" in found.stdout
    refused = marsjax("forecast", "--config=forecast", "--config.minuts=3")
    assert refused.returncode == 2 and "minuts" in refused.stderr and refused.stderr.count("\n") == 1


def test_a_config_by_a_path_that_is_not_there_is_named() -> None:
    found = marsjax("forecast", "--config=nowhere/configs/forecast.py:quiet")
    assert found.returncode == 2
    assert found.stderr.endswith("; the config that comes with marsjax is --config=forecast:quiet\n")


def test_the_doctor_says_what_there_is_and_what_fails(monkeypatch: pytest.MonkeyPatch,
                                                      capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(self_test, "run", lambda: [Check("exchange", True, "good orders", 1.0)])
    assert doctor.main([]) == 0
    said = capsys.readouterr().out
    for word in ("versions", "device", "machine", "cache", "downloads", "extras", "exchange     good: good orders"):
        assert word in said
    monkeypatch.setattr(self_test, "run", lambda: [Check("exchange", False, "a share too many", 1.0)])
    assert doctor.main([]) == 1
    found = capsys.readouterr()
    assert "WRONG: a share too many" in found.out and found.err == "error: 1 of 1 checks failed\n"


def test_a_cache_that_is_off_is_said_so() -> None:
    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        assert doctor._cache() == "off: every run compiles anew"
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
