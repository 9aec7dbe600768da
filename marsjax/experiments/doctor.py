"""Says what marsjax finds on this machine, and tries the exchange and the default order model on its device.

    marsjax doctor

Exit code 1 where something does not work.
"""

import argparse
import importlib.util
import os
import pathlib
import platform
import shutil
import sys
from collections.abc import Sequence
from importlib import metadata

import jax

import marsjax
from marsjax.checkpoint import downloads
from marsjax.core import kernels
from marsjax.experiments import interrupts, launcher
from marsjax.studies import self_test

_EXTRAS = {"demo": "streamlit", "parquet": "pyarrow", "serve": "uvicorn", "databento": "databento_dbn",
           "parity": "torch"}
_GIB = 2**30


def main(argv: Sequence[str] | None = None) -> int:
    """Prints what there is and tries it; returns 0, or FAILED where a check does."""
    argparse.ArgumentParser(prog="marsjax doctor", description=__doc__, allow_abbrev=False,
                            formatter_class=argparse.RawDescriptionHelpFormatter).parse_args(argv)
    launcher.set_up_compilation_cache()
    _say("versions", f"marsjax {marsjax.__version__}, Python {platform.python_version()}, "
                     + ", ".join(f"{name} {_version(name)}" for name in ("jax", "jaxlib", "flax", "numpy", "pandas")))
    try:
        found = jax.devices()
    except (RuntimeError, AssertionError) as error:  # JAX is set to use an accelerator that it does not find
        print(f"error: JAX found no device (JAX_PLATFORMS={os.environ.get('JAX_PLATFORMS', '')}): "
              f"{' '.join(str(error).split())}", file=sys.stderr)
        return launcher.FAILED
    for device in found:
        _say("device", f"{device.device_kind} ({device.platform}){_device_memory(device)}")
    _say("machine", f"{os.cpu_count()} cores, {_memory()} of memory; {shutil.disk_usage('.').free / _GIB:.0f} GiB free "
                    f"in {pathlib.Path.cwd()}")
    _say("kernels", _kernels(found[0].platform))
    _say("cache", _cache())
    _say("downloads", ", ".join(downloads.downloaded()) or f"none in {downloads.home()} (marsjax download)")
    _say("extras", ", ".join(_extras()) + " (pip install 'marsjax[NAME]')")
    checks = self_test.run()
    for check in checks:
        _say(check.name, f"{'good' if check.is_right else 'WRONG'}: {check.said} ({check.seconds:.1f} s)")
    if all(check.is_right for check in checks):
        print("all is well; the first forecast: marsjax forecast --config=forecast")
        return 0
    print(f"error: {sum(not check.is_right for check in checks)} of {len(checks)} checks failed", file=sys.stderr)
    return launcher.FAILED


def _say(name: str, text: str) -> None:
    print(f"{name:<12} {text}", flush=True)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"


def _device_memory(device: jax.Device) -> str:
    """What the device says of its memory; nothing where it does not (a CPU)."""
    stats = device.memory_stats() or {}
    limit, used = stats.get("bytes_limit"), stats.get("bytes_in_use", 0)
    return f", {limit / _GIB:.1f} GiB for JAX, {(limit - used) / _GIB:.1f} free" if limit else ""


def _memory() -> str:
    """Of the machine; not every system says."""
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / _GIB:.1f} GiB"
    except (ValueError, OSError, AttributeError):
        return "an unknown amount"


def _kernels(name: str) -> str:
    chosen = kernels.for_platform(name)
    own = "kernels of marsjax" if chosen.head == "kernel" else "operations of JAX"
    return f"head and draw by {own}; attention of one query: {chosen.attention}"


def _cache() -> str:
    """Where compiled programs are kept, and how many are there."""
    place = jax.config.values["jax_compilation_cache_dir"]
    if not place:
        return "off: every run compiles anew"
    folder = pathlib.Path(str(place))
    files = [path for path in folder.glob("*") if path.is_file()] if folder.is_dir() else []
    size = sum(path.stat().st_size for path in files)
    return f"{folder}: {len(files)} files, {size / 1e6:.0f} MB of compiled programs; may be removed at any time"


def _extras() -> list[str]:
    return [f"{extra} is {'here' if importlib.util.find_spec(module) else 'not'}" for extra, module in _EXTRAS.items()]


if __name__ == "__main__":
    interrupts.install()
    sys.exit(main())
