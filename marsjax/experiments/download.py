"""Fetches the published order models, their bins, validation samples and facts data from the Hugging Face Hub.

    marsjax download                                   # all of them
    marsjax download Don-Don/mars-order-2m             # one, with what belongs to it
    marsjax download --folder=FOLDER                   # into another place ($MARSJAX_HOME/published finds it again)

Into one folder, where `load_order_model`, `--config.model=OWNER/NAME` and `import_checkpoint` find them. Each file is
compared with the hash that the hub has of it; what is there with the right hash is not fetched again, so that a
download that broke off goes on where it ended.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from marsjax.checkpoint import downloads
from marsjax.checkpoint.downloads import FACTS, Outcome, RemoteFile
from marsjax.core.errors import InputError
from marsjax.experiments import interrupts, launcher


def main(argv: Sequence[str] | None = None) -> int:
    """Downloads; returns 0, INCOMPLETE where something could not be got, or FAILED where nothing could be."""
    words = _parser().parse_args(argv)
    folder = pathlib.Path(words.folder) if words.folder else downloads.home()
    print(f"into {folder}", flush=True)
    done: list[Outcome] = []
    problems: list[str] = []
    try:
        wanted = downloads.repositories(words.models or downloads.MODELS)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return launcher.USAGE
    for repository, kind in wanted:
        try:
            found = downloads.download(repository, kind, folder, _say)
        except (InputError, OSError) as error:
            problems.append(f"{repository}: {error}" if repository not in str(error) else str(error))
            continue
        done.append(found)
        problems += found.missing
        print(f"{repository}: {len(found.fetched)} files fetched, {len(found.kept)} were there, "
              f"{len(found.missing)} missing", flush=True)
    print("\n".join(_next(done, folder)), end="\n" if done else "", flush=True)
    print("\n".join(f"error: {' '.join(problem.split())}" for problem in problems), file=sys.stderr,
          end="\n" if problems else "")
    if any(found.fetched or found.kept for found in done):
        return launcher.INCOMPLETE if problems else 0
    return launcher.FAILED


def _say(repository: str, file: RemoteFile) -> None:
    print(f"  {repository}: {file.name} ({file.size / 1e6:.1f} MB)", flush=True)


def _next(done: Sequence[Outcome], folder: pathlib.Path) -> list[str]:
    """What can be done with what is there; files elsewhere than in `downloads.home()` are named by their paths."""
    is_home, lines = folder == downloads.home(), []
    for found in done:
        if not found.missing and (found.folder / "config.json").is_file():
            source = found.repository if is_home else found.folder
            lines.append(f"marsjax import_checkpoint --source={source} --output=checkpoints/"
                         f"{found.repository.rpartition('-')[2]}")
        facts = sorted((found.folder / FACTS).glob("*.zstd"))
        if facts:
            named = "" if is_home else ",file=" + "+".join(map(str, facts))
            lines.append(f"marsjax stylized_facts --config=stylized_facts:rollout_info{named}")
    return lines


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="marsjax download", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("models", nargs="*", metavar="OWNER/NAME", help="models of the hub; by default "
                        + ", ".join(downloads.MODELS))
    parser.add_argument("--folder", default="", help=f"where to; by default {downloads.home()}")
    return parser


if __name__ == "__main__":
    interrupts.install()
    sys.exit(main())
