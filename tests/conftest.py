"""What all tests share: one compilation cache, how much the compiler optimises, and how much memory a worker holds."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_CACHE = "JAX_COMPILATION_CACHE_DIR"
_QUICK = {"agents", "core", "experiments", "market", "model", "observers", "parity", "rl", "sim", "studies", "tests",
          "tokens"}
"""Folders of tests about integers, or within a tolerance, that run shortly; but for the modules marked `optimised`."""
_MOST_PAGES = 3 * 2**17
"""1.5 GiB in pages of 4 KiB: where a worker holds more, it lets go of what it has compiled."""


def pytest_configure(config: pytest.Config) -> None:
    """Before any worker starts, in the process that starts them: a cache for this run alone, unless one is named."""
    if _CACHE not in os.environ:
        config.stash[_FOLDER] = os.environ[_CACHE] = tempfile.mkdtemp(prefix="marsjax_tests_")
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Takes the folder away."""
    if _FOLDER in config.stash:
        shutil.rmtree(config.stash[_FOLDER], ignore_errors=True)


@pytest.fixture(autouse=True, scope="module")
def _compiled(request: pytest.FixtureRequest) -> Iterator[None]:
    """Programs of most tests are compiled quickly; of slow ones, which run long, those of modules marked `quick`."""
    # JAX is imported once the cache is set.
    import jax

    from tests import quick_compilation

    if request.config.option.markexpr == "not slow":
        is_quick = request.path.parent.name in _QUICK and not request.node.get_closest_marker("optimised")
    else:
        is_quick = request.node.get_closest_marker("quick") is not None
    quick_compilation.switch(is_quick)
    yield
    pages = Path("/proc/self/statm")
    if pages.exists() and int(pages.read_text().split()[1]) > _MOST_PAGES:
        jax.clear_caches()


_FOLDER = pytest.StashKey[str]()
