"""The dashboard: pages in a browser, by Streamlit, which the extra `demo` brings.

    python -m marsjax.experiments.dashboard
    python -m marsjax.experiments.dashboard --port 8600 --open
    python -m marsjax.experiments.dashboard --data data/sse --feed sse --model default --model runs/train/checkpoint
"""

import argparse
import importlib.util
import ipaddress
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import marsjax
from marsjax.core.errors import InputError
from marsjax.experiments import launcher
from marsjax.studies import places

_LOCAL = "127.0.0.1"
_THEME = {"base": "light", "primaryColor": "#0b3c6f"}


def main(argv: Sequence[str] | None = None) -> int:  # noqa: RET503, another program takes the process over
    """Becomes the server of the dashboard; where that cannot be returns launcher.USAGE, with one line on stderr."""
    given = _parser().parse_args(sys.argv[1:] if argv is None else list(argv))
    try:
        settings = _settings(given)
    except (InputError, OSError) as error:
        return _refuse(str(error))
    if importlib.util.find_spec("streamlit") is None:
        return _refuse("the dashboard needs Streamlit: pip install 'marsjax[demo]'")
    if not _is_local(given.host):
        print(f"warning: anybody who reaches {given.host}:{given.port} can run simulations here and see the days of "
              "--data; there is no password", file=sys.stderr)
    print(f"dashboard on http://{given.host}:{given.port} (end it with Ctrl-C)", flush=True)
    os.execve(sys.executable, _command(given, settings), _environment())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="marsjax dashboard", description="Pages in a browser: forecasts, control, "
                                     "market impact, stylized facts, detection, learning.")
    parser.add_argument("--host", default=_LOCAL, help="address to listen at (default: %(default)s, this machine "
                        "alone)")
    parser.add_argument("--port", type=int, default=8501, help="(default: %(default)s)")
    parser.add_argument("--data", default="", help="folder (of csv: the file) with real days to start from")
    parser.add_argument("--feed", default="", help=f"what kind they are of: {', '.join(places.feed_kinds())}")
    parser.add_argument("--model", action="append", help="default, a folder, or owner/name on the hub; may be given "
                        "several times (default: default)")
    parser.add_argument("--open", action="store_true", help="open a browser")
    return parser


def _settings(given: argparse.Namespace) -> str:
    """What the script is told, `pages.settings.Settings` in JSON; InputError or OSError for what cannot be."""
    if bool(given.data) != bool(given.feed):
        raise InputError("--data and --feed: expected both or neither, as --data data/sse --feed sse")
    if given.feed and given.feed not in places.feed_kinds():
        raise InputError(f"--feed: expected one of {', '.join(places.feed_kinds())}, got {given.feed!r}")
    if given.data and not Path(given.data).exists():
        raise FileNotFoundError(f"--data: no folder or file {given.data}")
    if not 1 <= given.port <= 65535:
        raise InputError(f"--port: expected 1 to 65535, got {given.port}")
    data = str(Path(given.data).resolve()) if given.data else ""
    return json.dumps({"models": given.model or ["default"], "feed": given.feed, "data": data,
                       "version": marsjax.__version__})


def _refuse(why: str) -> int:
    print(f"error: {why}", file=sys.stderr)
    return launcher.USAGE


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _command(given: argparse.Namespace, settings: str) -> list[str]:
    script = Path(marsjax.__file__).parent / "experiments" / "pages" / "app.py"
    options = {
        "server.address": given.host, "server.port": given.port, "server.headless": str(not given.open).lower(),
        "server.showEmailPrompt": "false", "server.fileWatcherType": "none", "browser.gatherUsageStats": "false",
        "client.toolbarMode": "viewer", "client.showErrorDetails": "none", "logger.hideWelcomeMessage": "true",
        **{f"theme.{name}": value for name, value in _THEME.items()}}
    return [sys.executable, "-m", "streamlit", "run", str(script),
            *(f"--{name}={value}" for name, value in options.items()), "--", settings]


def _environment() -> dict[str, str]:
    """That of this process, in which the server finds this copy of marsjax and keeps what it compiles."""
    root = str(Path(marsjax.__file__).parent.parent)
    return {**launcher.compilation_cache(), **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}


if __name__ == "__main__":
    sys.exit(main())
