"""One compilation cache for a whole test run: its workers and the programs they start compile the same things."""

import os
import shutil
import tempfile

import pytest

_CACHE = "JAX_COMPILATION_CACHE_DIR"


def pytest_configure(config: pytest.Config) -> None:
    """Before any worker starts, in the process that starts them: a folder for this run alone, unless one is named."""
    if _CACHE not in os.environ:
        config.stash[_FOLDER] = os.environ[_CACHE] = tempfile.mkdtemp(prefix="marsjax_tests_")
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Takes the folder away."""
    if _FOLDER in config.stash:
        shutil.rmtree(config.stash[_FOLDER], ignore_errors=True)


_FOLDER = pytest.StashKey[str]()
