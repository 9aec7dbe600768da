"""The program that starts the dashboard: its command line, what it refuses, and what it becomes."""

import dataclasses
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest

from marsjax.core.errors import InputError
from marsjax.experiments import dashboard
from marsjax.experiments.pages.settings import Settings


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the process would have become, instead of becoming it."""
    found: list[Any] = []
    monkeypatch.setattr(os, "execve", lambda *words: found.extend(words))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    return found


def test_it_becomes_a_server_that_listens_to_this_machine_alone(became: list[Any], capsys: pytest.CaptureFixture[str]
                                                                ) -> None:
    dashboard.main([])
    _, command, environment = became
    assert {"--server.address=127.0.0.1", "--server.port=8501", "--server.headless=true",
            "--browser.gatherUsageStats=false"} <= set(command)
    script = Path(command[command.index("run") + 1])
    assert script.is_file() and script.parent.name == "pages"
    given = Settings.of_words([command[-1]])
    assert given.models == ("default",) and not given.feed and given.version
    assert environment["PYTHONPATH"].split(os.pathsep)[0] == str(script.parents[3])
    assert "JAX_COMPILATION_CACHE_DIR" in environment
    said = capsys.readouterr()
    assert said.out == "dashboard on http://127.0.0.1:8501 (end it with Ctrl-C)\n" and not said.err


def test_another_address_is_warned_of(became: list[Any], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    dashboard.main(["--host", "0.0.0.0", "--port", "9000", "--data", str(tmp_path), "--feed", "sse", "--model", "a",
                    "--model", "b", "--open"])
    said = capsys.readouterr()
    assert said.err.startswith("warning: anybody who reaches 0.0.0.0:9000") and said.err.count("\n") == 1
    assert {"--server.address=0.0.0.0", "--server.headless=false"} <= set(became[1])
    assert Settings.of_words([became[1][-1]]).models == ("a", "b")
    assert {field.name for field in dataclasses.fields(Settings)} == set(json.loads(became[1][-1]))


@pytest.mark.parametrize(("words", "why"), [
    (["--data", "x"], "--data and --feed: expected both or neither"), (["--feed", "no", "--data", "x"], "--feed: exp"),
    (["--data", "no/such", "--feed", "sse"], "--data: no folder or file no/such"),
    (["--port", "70000"], "--port: expected 1 to 65535, got 70000")])
def test_a_wrong_command_line_is_one_line(became: list[Any], capsys: pytest.CaptureFixture[str], words: list[str],
                                          why: str) -> None:
    assert dashboard.main(words) == 2 and not became
    said = capsys.readouterr()
    assert said.err.startswith(f"error: {why}") and said.err.count("\n") == 1


def test_without_streamlit_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
                                                 ) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert dashboard.main([]) == 2
    assert capsys.readouterr().err == "error: the dashboard needs Streamlit: pip install 'marsjax[demo]'\n"


@pytest.mark.parametrize("word", ["", "[]", '{"models": 3}', '{"models": [], "colour": 1}'])
def test_a_script_started_by_hand_says_what_starts_it(word: str) -> None:
    with pytest.raises(InputError, match=r"start it by python -m marsjax\.experiments\.dashboard"):
        Settings.of_words([word])
