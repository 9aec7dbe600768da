"""Published models, bins, samples and facts data of the Hugging Face Hub in one folder of this machine.

`download` fetches repositories file by file and compares each file with the hash that the hub has of it; what is there
already and has that hash stays. `find` says where a model lies that was fetched so: then nothing asks the hub for it.
"""

import dataclasses
import fnmatch
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from marsjax.checkpoint import hub, tensor_files
from marsjax.checkpoint.hub import CONVERTERS, SAMPLES, SHARED_ASSETS, Fetched
from marsjax.checkpoint.safetensors import CONFIG
from marsjax.checkpoint.tensor_files import INDEX, SHARDS, WEIGHTS
from marsjax.core import files
from marsjax.core.errors import InputError, brief

MODELS = ("Don-Don/mars-order-2m", "Don-Don/mars-order-5m", "Don-Don/mars-order-10m")
"""The published order models."""
FACTS = "stylized-facts"
"""Folder of the assets with rollouts to make stylized facts of."""
RECORD = ".marsjax-download.json"
"""In the folder of a repository whose files are all here: its commit, and the hash of each file."""
_WANTED = {"model": (CONFIG, WEIGHTS, INDEX, SHARDS, f"{CONVERTERS}/*.zstd", f"{SAMPLES}/*"),
           "dataset": (f"{CONVERTERS}/*.zstd", f"{SAMPLES}/*", f"{FACTS}/*")}
_TRIES = 2
"""Times that a file is fetched whose hash is wrong."""


@dataclasses.dataclass(frozen=True)
class RemoteFile:
    """A file of a repository, as the hub describes it."""

    name: str
    """Path in the repository."""
    size: int
    """Bytes."""
    sha256: str | None
    """Of files in Git LFS, which large ones are."""
    git_hash: str
    """Git's hash of other files."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a repository."""

    repository: str
    folder: pathlib.Path
    """Where its files are."""
    fetched: tuple[str, ...]
    """Files that were fetched now."""
    kept: tuple[str, ...]
    """Files that were there, with the right hash."""
    missing: tuple[str, ...]
    """What could not be got, a line each that says why."""


OnFile = Callable[[str, RemoteFile], None]
"""Called before a file is fetched, with its repository."""


def home() -> pathlib.Path:
    """Where downloads are: $MARSJAX_HOME, or $XDG_DATA_HOME/marsjax, or ~/.local/share/marsjax; `published` in it."""
    own = os.environ.get("MARSJAX_HOME")
    data = pathlib.Path(os.environ.get("XDG_DATA_HOME") or pathlib.Path.home() / ".local" / "share")
    return (pathlib.Path(own) if own else data / "marsjax") / "published"


def repositories(models: Sequence[str] = MODELS) -> list[tuple[str, str]]:
    """Models and the datasets with their bins, samples and facts data, each once: (repository, kind) pairs."""
    for model in models:
        if not hub.is_repository(model):
            raise InputError(f"model: expected owner/name of a repository on the hub, got {model!r}")
    assets = dict.fromkeys(SHARED_ASSETS[owner] for owner in (model.split("/")[0] for model in models)
                           if owner in SHARED_ASSETS)
    return [*((model, "model") for model in dict.fromkeys(models)), *((name, "dataset") for name in assets)]


def download(repository: str, kind: str, folder: pathlib.Path, on_file: OnFile | None = None) -> Outcome:
    """What is wanted of a repository (`kind` model or dataset) at its newest commit, into `folder/OWNER/NAME`.

    A file that cannot be got is told in the outcome, and the others are fetched all the same; only a repository that
    is complete gets a record, by which `find` takes it. Raises the errors of `hub.fetch` where not even the list of its
    files can be had, and OSError where the folder cannot be written.
    """
    place = folder / repository
    commit, listed = _listed(repository, kind)
    (place / RECORD).unlink(missing_ok=True)
    wanted = [file for file in listed.values() if _is_wanted(kind, file.name)]
    fetched, kept, missing = [], [], []

    def get(file: RemoteFile) -> None:
        if _is_right(place / file.name, file):
            kept.append(file.name)
            return
        if on_file is not None:
            on_file(repository, file)
        problem = _fetched(repository, kind, commit, place, file)
        if problem:
            missing.append(f"{repository}: {file.name}: {problem}")
        else:
            fetched.append(file.name)

    for file in wanted:
        get(file)
    if not wanted:
        missing.append(f"{repository}: none of the files that are wanted ({', '.join(_WANTED[kind])})")
    for name in _needed(place) if kind == "model" and not missing else ():
        if name not in listed:
            missing.append(f"{repository}: {name}: is not in the repository")
        elif listed[name] not in wanted:  # an index may name its shards as it likes
            wanted.append(listed[name])
            get(listed[name])
    if not missing:
        _forget(place, kind, {file.name for file in wanted})
        place.mkdir(parents=True, exist_ok=True)
        (place / RECORD).write_text(json.dumps({
            "kind": kind, "commit": commit, "files": [dataclasses.asdict(file) for file in wanted]}, indent=1) + "\n")
    return Outcome(repository, place, tuple(fetched), tuple(kept), tuple(missing))


def find(repository: str, revision: str | None = None, folder: pathlib.Path | None = None) -> Fetched | None:
    """A model that was downloaded whole, with its bins and samples; None if it was not, or at another commit.

    It is that of its download, however new the hub's is: `marsjax download` fetches the newest. InputError where a file
    is not what it was then.
    """
    folder = home() if folder is None else folder
    place = folder / repository
    record = _record(place)
    if record is None or revision not in (None, record["commit"]):
        return None
    assets = SHARED_ASSETS.get(repository.split("/")[0])
    if assets is None or (place / CONVERTERS).is_dir():
        return Fetched(place, repository, record["commit"], *_bins_and_samples(place), None, None)
    of_assets = _record(folder / assets)
    if of_assets is None:
        return None
    return Fetched(place, repository, record["commit"], *_bins_and_samples(folder / assets), assets,
                   of_assets["commit"])


def facts_files(folder: pathlib.Path | None = None) -> list[pathlib.Path]:
    """Archives of rollouts to make stylized facts of, of the datasets that were downloaded whole."""
    folder = home() if folder is None else folder
    return [path for name in downloaded(folder) for path in sorted((folder / name / FACTS).glob("*.zstd"))]


def downloaded(folder: pathlib.Path | None = None) -> list[str]:
    """Repositories that were downloaded whole, by name."""
    folder = home() if folder is None else folder
    return sorted(path.parent.relative_to(folder).as_posix() for path in folder.glob(f"*/*/{RECORD}"))


def _bins_and_samples(place: pathlib.Path) -> tuple[pathlib.Path | None, pathlib.Path | None]:
    """Folders of the two, None for one that is not there."""
    converters, samples = place / CONVERTERS, place / SAMPLES
    return converters if converters.is_dir() else None, samples if samples.is_dir() else None


def _record(place: pathlib.Path) -> dict[str, Any] | None:
    path = place / RECORD
    if not path.is_file():
        return None
    found = files.read_json(path)
    try:
        files_of = [RemoteFile(**file) for file in found["files"]]
        if not isinstance(found["commit"], str):
            raise TypeError("commit")
    except (KeyError, TypeError):
        raise InputError(f"{path}: expected the record of a download, found other JSON; run `marsjax download` again"
                         ) from None
    wrong = [file.name for file in files_of if not _is_right(place / file.name, file)]
    if wrong:
        raise InputError(f"{place / wrong[0]}: is not what was downloaded; run `marsjax download` again")
    return found


def _listed(repository: str, kind: str) -> tuple[str, dict[str, RemoteFile]]:
    """Commit of a repository's newest state, and its files by name; InputError for a name that leads out of it."""
    import huggingface_hub  # here, since importing it takes long

    with hub.errors_of(repository, kind, None, "the list of its files"):
        api = huggingface_hub.HfApi()
        info = (api.model_info if kind == "model" else api.dataset_info)(repository, files_metadata=True)
    found = [RemoteFile(file.rfilename, file.size or 0, file.lfs.sha256 if file.lfs else None, file.blob_id or "")
             for file in info.siblings or ()]
    for file in found:
        path = pathlib.PurePosixPath(file.name)
        if path.is_absolute() or ".." in path.parts or set(file.name) & set("\\:\0"):
            raise InputError(f"{repository}: expected names of files in the repository, got {file.name!r}")
    return info.sha or "main", {file.name: file for file in sorted(found, key=lambda file: file.name)}


def _is_wanted(kind: str, name: str) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in _WANTED[kind])


def _needed(place: pathlib.Path) -> list[str]:
    """Files without which there is no model: sizes, and the weights or the shards that their index names."""
    shards = (place / INDEX).is_file() and not (place / WEIGHTS).is_file()
    return [CONFIG, *(tensor_files.shard_names(place / INDEX) if shards else [WEIGHTS])]


def _forget(place: pathlib.Path, kind: str, kept: set[str]) -> None:
    """Removes files of an older commit that are not in this one."""
    for path in place.rglob("*"):
        name = path.relative_to(place).as_posix()
        if path.is_file() and name not in kept and _is_wanted(kind, name):
            path.unlink()


def _fetched(repository: str, kind: str, commit: str, place: pathlib.Path, file: RemoteFile) -> str | None:
    """Fetches a file; returns why it is not here, None if it is."""
    import huggingface_hub

    for _ in range(_TRIES):
        (place / file.name).unlink(missing_ok=True)  # a file that is there the client would take as it is
        try:
            with hub.errors_of(repository, kind, commit, file.name):
                huggingface_hub.hf_hub_download(repository, file.name, repo_type=kind, revision=commit,
                                                local_dir=place)
        except (FileNotFoundError, ConnectionError, PermissionError) as error:
            return brief(error, 200)
        if _is_right(place / file.name, file):
            return None
        (place / file.name).unlink(missing_ok=True)
    return f"came {_TRIES} times with another hash than the hub says ({_hash(file)[:12]}...); it was taken away"


def _is_right(path: pathlib.Path, file: RemoteFile) -> bool:
    """Whether the file is here, with the hash that the hub has of it."""
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    digest = hashlib.sha256() if file.sha256 else hashlib.sha1(usedforsecurity=False)
    if not file.sha256:
        digest.update(f"blob {file.size}\0".encode())
    with path.open("rb") as content:
        while part := content.read(2**20):
            digest.update(part)
    return digest.hexdigest() == _hash(file)


def _hash(file: RemoteFile) -> str:
    return file.sha256 or file.git_hash
