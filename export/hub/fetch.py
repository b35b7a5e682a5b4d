"""Models on the Hugging Face hub: fetched into its own cache, no more than an export reads.

Called where a checkpoint is given as `org/name` or `org/name@revision`. The cache, the token, the
endpoint and the offline switch are those of the `huggingface_hub` package. The invariant: whatever
the hub, the network or the disk answers ends in a folder that is whole, or in one line.
"""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, constants, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from giffusion.engine.errors import DiskFullError, GiffusionError, ModelError, one_line
from giffusion.export.checkpoint.json_files import read_json
from giffusion.export.hub.files import INDEX, choose_files
from giffusion.export.pickles.convert import PICKLE_SUFFIXES

_HUB_ID = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([\w][\w./-]*))?", re.ASCII)
_FILE_SUFFIXES = (".safetensors", ".onnx", *PICKLE_SUFFIXES)
_MAX_REASON = 200
# The base of the package's own errors is that of its HTTP library's, whichever that is; an answer
# that is not the hub's, as of a hotel's network, makes the package stumble.
_FAILURES: tuple[type[BaseException], ...] = (
    *HfHubHTTPError.__bases__,
    EntryNotFoundError,
    KeyError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class _Listing:
    """One commit of a repository: what is in it, in bytes where known, and where it is cached."""

    commit: str
    sizes: Mapping[str, int]
    cached: Path | None


def is_hub_id(text: str) -> bool:
    """Says whether a text is `org/name` or `org/name@revision`, and no path of something here."""
    match = _HUB_ID.fullmatch(text)
    if match is None or match[1].lower().endswith(_FILE_SUFFIXES):
        return False
    return not Path(text).exists()


def fetch(
    repo: str,
    *,
    revision: str | None = None,
    prefer: str | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> Path:
    """Brings what an export reads of a model on the hub into the hub's cache.

    Where the hub cannot be reached or is switched off, what is cached is used.

    Args:
        repo: `org/name` or `org/name@revision`.
        revision: the branch, tag or commit, where it does not stand in `repo`; the default branch
            where it stands nowhere.
        prefer: the variant of weights to take where there is one, such as `fp16`.
        progress: takes one line for each file that is fetched, and for what is decided.

    Returns:
        The folder of the snapshot, or, of a repository that is one checkpoint file, that file. The
        folder may hold more than was fetched now, such as another variant.

    Raises:
        ModelError: there is no such model or revision, it is gated or private, it is no model that
            can be exported or only a pickle, or the hub cannot be reached and the cache lacks it.
        DiskFullError: the cache's disk is too full.
    """
    name, revision = _parse(repo, revision)
    where = f"{name}@{revision}" if revision else name
    with _one_line_errors(where, name):
        listing = _list(HfApi(), name, revision, progress)
        if listing.cached is not None:
            return _in_cache(where, listing.cached, prefer)
        return _download(HfApi(), name, revision, where, listing, prefer, progress)


def _parse(repo: str, revision: str | None) -> tuple[str, str | None]:
    match = _HUB_ID.fullmatch(repo)
    if match is None:
        raise ModelError(f"'{repo:.100}' is no model on the hub: expected org/name[@revision]")
    if match[2] and revision and match[2] != revision:
        raise ModelError(f"{repo} and revision {revision} differ: give one of them")
    return match[1], match[2] or revision


def _list(api: HfApi, name: str, revision: str | None, progress: Callable[[str], None]) -> _Listing:
    """Asks the hub what a repository holds, or the cache where the hub cannot be asked."""
    try:
        info = api.model_info(name, revision=revision, files_metadata=True)
    except _FAILURES as error:
        if isinstance(error, HfHubHTTPError):
            raise
        folder = _cached_folder(api, name, revision)
        if folder is None:
            raise
        if not isinstance(error, OfflineModeIsEnabled):
            progress(f"the hub cannot be reached: using {name} as it is in the cache")
        return _Listing(folder.name, {}, folder)
    files = info.siblings or []
    return _Listing(str(info.sha), {file.rfilename: file.size or 0 for file in files}, None)


def _cached_folder(api: HfApi, name: str, revision: str | None) -> Path | None:
    try:
        # The pattern keeps it from asking for the rest of the repository.
        folder = api.snapshot_download(
            name, revision=revision, local_files_only=True, allow_patterns=[INDEX]
        )
    except LocalEntryNotFoundError:
        return None
    return Path(folder)


def _in_cache(where: str, folder: Path, prefer: str | None) -> Path:
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    index = read_json(folder / INDEX, "a pipeline's list of parts") if INDEX in names else None
    return _place(folder, choose_files(f"{where} in the cache", names, index, prefer))


def _download(
    api: HfApi,
    name: str,
    revision: str | None,
    where: str,
    listing: _Listing,
    prefer: str | None,
    progress: Callable[[str], None],
) -> Path:
    def bring(file: str, revision: str | None) -> Path:
        return Path(api.hf_hub_download(name, file, revision=revision))

    index = None
    if INDEX in listing.sizes:
        index = read_json(bring(INDEX, listing.commit), "a pipeline's list of parts")
    chosen = choose_files(where, listing.sizes, index, prefer)
    missing = [file for file in chosen if not _is_cached(name, file, listing.commit)]
    _check_room(where, sum(listing.sizes[file] for file in missing))
    for number, file in enumerate(missing, 1):
        size = f"{listing.sizes[file] / 1e6:.1f} MB"
        progress(f"{where}: fetching {file}, {size} ({number} of {len(missing)})")
        bring(file, listing.commit)
    # By the revision's own name, so that the cache knows it when the hub cannot be asked.
    first = bring(chosen[0], revision)
    folder = first.parents[chosen[0].count("/")]
    if folder.name != listing.commit:
        raise ModelError(f"{where} was changed while it was fetched: run it again")
    return _place(folder, chosen)


def _place(folder: Path, chosen: list[str]) -> Path:
    return folder / chosen[0] if len(chosen) == 1 else folder


def _is_cached(name: str, file: str, commit: str) -> bool:
    return isinstance(try_to_load_from_cache(name, file, revision=commit), str)


def _check_room(where: str, needed: int) -> None:
    cache = Path(constants.HF_HUB_CACHE)
    there = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise DiskFullError(
            f"{where} needs {needed / 1e9:.1f} GB and the hub's cache {cache} has {free / 1e9:.1f} "
            "GB left: make room, or set HF_HOME to a folder on another disk"
        )


@contextmanager
def _one_line_errors(where: str, name: str) -> Iterator[None]:
    try:
        yield
    except (GiffusionError, BrokenPipeError):
        # The latter is of whoever reads the progress.
        raise
    except HFValidationError as error:
        raise ModelError(
            f"{where} is no model on the hub: {one_line(error)[:_MAX_REASON]}"
        ) from None
    except _FAILURES as error:
        raise _explain(error, where, name) from None


def _explain(error: BaseException, where: str, name: str) -> GiffusionError:
    """Says in a line what a failure means; the package wraps those of single files in another."""
    cause = error
    while isinstance(cause, LocalEntryNotFoundError) and cause.__cause__ is not None:
        cause = cause.__cause__
    match cause:
        case GatedRepoError():
            what = "is gated: accept its terms on its page, log in with `hf auth login`"
        case RevisionNotFoundError():
            what = "does not exist: expected another branch, tag or commit after the @"
        case RepositoryNotFoundError():
            what = (
                "is neither on the hub nor a folder here: check the name; if it is private, log in "
                "with `hf auth login`"
            )
        case OfflineModeIsEnabled():
            what = (
                f"is not in the hub's cache, {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE is set: "
                "unset it, or fetch the model once where there is a network"
            )
        case HfHubHTTPError():
            what = _explain_status(cause.response.status_code)
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return DiskFullError(
                f"{where} does not fit in the hub's cache {constants.HF_HUB_CACHE}: make room, or "
                "set HF_HOME to a folder on another disk"
            )
        case OSError(errno=int(), filename=str() as filename):
            what = f"cannot be kept: {cause.strerror}: {filename}"
        case _:
            reason = f"{type(cause).__name__}: {one_line(cause)[:_MAX_REASON]}"
            what = f"cannot be fetched ({reason}): check the network, and try again"
    return ModelError(f"{where} {what}")


def _explain_status(status: int) -> str:
    match status:
        case 401 | 403:
            return f"is refused (HTTP {status}): check the name, and log in with `hf auth login`"
        case 429:
            return (
                "cannot be fetched now, the hub limits how often it is asked: wait, and try again"
            )
    return f"cannot be fetched, the hub answers with HTTP {status}: try again later"
