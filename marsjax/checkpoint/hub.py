"""Published models on the Hugging Face Hub: only the files that are needed, at a revision that can be named again.

Two layouts are known: one repository with the model, `converters/` and `validation-samples/`; and repositories with a
model each, whose converters and samples lie in a dataset repository that they share.
"""

import contextlib
import dataclasses
import pathlib
import re
from collections.abc import Iterator

from marsjax.checkpoint import tensor_files
from marsjax.checkpoint.safetensors import CONFIG
from marsjax.checkpoint.tensor_files import INDEX, SHARDS, WEIGHTS
from marsjax.core.errors import InputError, brief
from marsjax.tokens.bins import NAMES

CONVERTERS = "converters"
SAMPLES = "validation-samples"
SHARED_ASSETS = {"Don-Don": "Don-Don/mars-order-assets"}
"""Owner of model repositories -> the dataset repository with their converters and validation samples."""
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclasses.dataclass(frozen=True)
class Fetched:
    """Where the files of a published model lie on this machine, and which they are."""

    model: pathlib.Path
    """Folder with `config.json` and `model.safetensors`, or its shards and their index."""
    repository: str | None
    """`owner/name` that it is from, None for a local folder."""
    revision: str | None
    """Commit of the model's repository."""
    converters: pathlib.Path | None
    """Folder with all converters, None if none are published."""
    samples: pathlib.Path | None
    """Folder with validation samples; None if they were not asked for, or none are published."""
    assets: str | None
    """Repository of the two above, where it is not the model's."""
    assets_revision: str | None


def is_repository(source: str) -> bool:
    """Whether a source can be a repository of the hub: `owner/name`."""
    return _REPOSITORY.fullmatch(source) is not None


def fetch(source: str, revision: str | None = None, *, samples: bool = False, assets_revision: str | None = None
          ) -> Fetched:
    """Downloads a published model, or finds it in the cache of huggingface_hub.

    Args:
      source: `owner/name` of its repository.
      revision: commit, branch or tag; by default the newest. The commit that it stands for is in the result.
      samples: whether validation samples are wanted too.
      assets_revision: like `revision`, of the dataset repository with the converters, where there is one.

    Raises:
      FileNotFoundError: no such repository, revision or file (or a private one).
      PermissionError: the repository is gated.
      ConnectionError: the hub cannot be reached, and the files are not in the cache.
      InputError: `source` is no name of a repository.
    """
    if not is_repository(source):
        raise InputError(f"source: expected a folder, or owner/name of a repository on the Hugging Face Hub, got "
                         f"{source!r}")
    wanted = [f"{CONVERTERS}/{name}.zstd" for name in NAMES]
    if samples:
        wanted += [f"{SAMPLES}/*.zstd", f"{SAMPLES}/*.csv"]
    folder, commit = _download(source, "model", revision, [CONFIG, WEIGHTS, INDEX, SHARDS, *wanted])
    weights = [WEIGHTS]
    if not (folder / WEIGHTS).is_file() and (folder / INDEX).is_file():
        weights = tensor_files.shard_names(folder / INDEX)
        if not all((folder / name).is_file() for name in weights):  # an index may name its shards as it likes
            _download(source, "model", commit, weights)
    for name in (CONFIG, *weights):
        if not (folder / name).is_file() and not _is_published(source, "model", commit, name):
            raise FileNotFoundError(f"{source}: the repository has no file {name} at revision {commit or 'main'}")
    assets, rest, rest_commit = None, folder, None
    if not (folder / CONVERTERS).is_dir() and source.split("/")[0] in SHARED_ASSETS:
        assets = SHARED_ASSETS[source.split("/")[0]]
        rest, rest_commit = _download(assets, "dataset", assets_revision, wanted)
    files = [rest / CONVERTERS / f"{name}.zstd" for name in NAMES]
    if any(file.is_symlink() or file.is_file() for file in files):  # a link may lead to what was taken out of the cache
        of = (assets, "dataset", rest_commit) if assets else (source, "model", commit)
        for file in files:
            if not file.is_file():
                _is_published(*of, f"{CONVERTERS}/{file.name}")
    found = [part if part.is_dir() else None for part in (rest / CONVERTERS, rest / SAMPLES)]
    return Fetched(folder, source, commit, found[0], found[1] if samples else None, assets, rest_commit)


def _download(source: str, kind: str, revision: str | None, patterns: list[str]) -> tuple[pathlib.Path, str | None]:
    """The local folder of a repository, and its commit."""
    import huggingface_hub  # here, since importing it takes long

    with errors_of(source, kind, revision):
        folder = pathlib.Path(huggingface_hub.snapshot_download(
            source, repo_type=kind, revision=revision, allow_patterns=patterns))
    return folder, folder.name if _COMMIT.fullmatch(folder.name) else revision


def _is_published(source: str, kind: str, revision: str | None, name: str) -> bool:
    """Whether a file that did not come with the others is in the repository; if it is, it is now in the cache too.

    Where the hub cannot be reached, a download of many files gives what an earlier one has left in the cache, without
    a word; that of one file says so. ConnectionError then.
    """
    import huggingface_hub
    from huggingface_hub import errors

    with errors_of(source, kind, revision, name):
        try:
            huggingface_hub.hf_hub_download(source, name, repo_type=kind, revision=revision)
        except errors.LocalEntryNotFoundError:
            raise
        except errors.EntryNotFoundError:
            return False
    return True


@contextlib.contextmanager
def errors_of(source: str, kind: str, revision: str | None, name: str = "what is needed of it") -> Iterator[None]:
    """Errors of the hub's client as those of `fetch`; `name` says what was asked for of a repository."""
    from huggingface_hub import errors

    where = f"{source} ({kind} on the Hugging Face Hub)"
    try:
        yield
    except errors.GatedRepoError as error:
        raise PermissionError(f"{where}: gated: accept its terms at https://huggingface.co/{source}, then log in with "
                              "`hf auth login`") from error
    except errors.RepositoryNotFoundError as error:
        raise FileNotFoundError(f"{where}: no such repository, or a private one that your token does not open; for a "
                                "folder, give a path that exists") from error
    except errors.RevisionNotFoundError as error:
        raise FileNotFoundError(f"{where}: no revision {revision!r}") from error
    except ValueError as error:  # HFValidationError, or the client refuses a name
        raise InputError(f"{where}: {brief(error, 200)}") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise ConnectionError(f"{where}: the hub cannot be reached, and {name} is not in the cache: go online, or "
                              f"`hf download {source}` on a machine that is, and give the folder") from error
    except _failures() as error:
        raise ConnectionError(f"{where}: the download failed: {brief(error, 200)}") from error


def _failures() -> tuple[type[Exception], ...]:
    """What the hub's client raises of a download that failed; of HTTP too, for which it has had several libraries."""
    from huggingface_hub import errors

    of_http = (kind for kind in errors.HfHubHTTPError.__mro__
               if issubclass(kind, Exception) and kind.__name__ in ("HfHubHTTPError", "HTTPError"))
    return (errors.EntryNotFoundError, *of_http, OSError)
