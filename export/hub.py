"""Fetches a checkpoint from the Hugging Face Hub, or says in one line why not."""

import contextlib
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from t5g2.runtime.errors import T5g2Error

# Files at the top of the repository only: subfolders hold other formats.
_PATTERNS = ["*.safetensors", "*.json", "tokenizer*"]
_IGNORED = ["*/*"]
_TIMEOUT_S = 10


@dataclass(frozen=True)
class HubSnapshot:
    """A downloaded revision: `path` is a checkpoint folder, `commit` the hash that the revision stood for."""

    repo_id: str
    commit: str
    path: Path


def download(repo_id: str, revision: str | None = None, progress_file: TextIO | None = None) -> HubSnapshot:
    """Downloads what an export needs, into the Hub cache; what is there already is not fetched again.

    The hub client's progress bar goes to `progress_file`, None for stderr. Without a network, a complete copy in the
    cache is used. Raises T5g2Error, within seconds if the Hub cannot be reached.
    """
    try:
        with _quiet():
            return _download(repo_id, revision, progress_file)
    except Exception as error:  # the client's HTTP library, and so the errors that escape it, changes with its version
        raise T5g2Error(_reason(repo_id, revision, error)) from error


def _download(repo_id: str, revision: str | None, progress_file: TextIO | None) -> HubSnapshot:
    from huggingface_hub import HfApi, snapshot_download  # here, because it is slow to import

    wanted = {"allow_patterns": _PATTERNS, "ignore_patterns": _IGNORED}
    try:
        # Asked first because the client's own look-up has no time limit.
        commit = HfApi().model_info(repo_id, revision=revision, timeout=_TIMEOUT_S).sha
    except Exception:
        path = _cached(repo_id, revision, wanted)
        if path is None:
            raise
        return HubSnapshot(repo_id, path.name, path)
    bar = _progress_bar(progress_file)
    return HubSnapshot(repo_id, commit, Path(snapshot_download(repo_id, revision=commit, tqdm_class=bar, **wanted)))


def _progress_bar(file: TextIO | None) -> type:
    from huggingface_hub.utils import tqdm

    class Bar(tqdm):
        def __init__(self, *args, **options):
            super().__init__(*args, **options | ({"file": file} if file else {}))

    return Bar


def _cached(repo_id: str, revision: str | None, wanted: dict) -> Path | None:
    """The folder of a complete cached copy; the cache names it by its commit."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo_id, revision=revision, local_files_only=True, **wanted))
    except Exception:
        return None


def _reason(repo_id: str, revision: str | None, error: Exception) -> str:
    from huggingface_hub import errors

    page, folder = f"https://huggingface.co/{repo_id}", "or pass --checkpoint FOLDER"
    chain = _chain(error)
    status = next((s for e in chain if (s := getattr(getattr(e, "response", None), "status_code", None))), None)

    def is_any(*kinds):
        return any(isinstance(e, kinds) for e in chain)

    if is_any(errors.HFValidationError):
        return f"{repo_id}: not the name of a Hub repository; expected OWNER/NAME"
    if is_any(errors.GatedRepoError) or status == 403:
        return f"{repo_id}: gated; accept the licence at {page} and set HF_TOKEN, {folder}"
    if is_any(errors.RevisionNotFoundError):
        return f"{repo_id}: no revision {revision!r} on the Hub; see {page}"
    if is_any(errors.RepositoryNotFoundError) or status in (401, 404):
        return f"{repo_id}: not on the Hub, or private; check the name at {page} and set HF_TOKEN, {folder}"
    if is_any(errors.OfflineModeIsEnabled):
        return f"{repo_id}: not in the local cache, and HF_HUB_OFFLINE is set; unset it, {folder}"
    if status is not None:
        return f"{repo_id}: the Hub answered with HTTP status {status}; try again later, {folder}"
    first_line = (str(error).splitlines() or [""])[0]
    detail = f"{type(error).__name__}: {first_line}" if first_line else type(error).__name__
    if is_any(errors.LocalEntryNotFoundError) or _is_network_error(chain):
        return f"{repo_id}: cannot reach the Hub ({detail}); check the network and try again, {folder}"
    return f"{repo_id}: download failed ({detail}); try again, {folder}"


def _chain(error: BaseException) -> list[BaseException]:
    chain = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


def _is_network_error(chain: list[BaseException]) -> bool:
    # By name, because the class is httpx's, httpx2's or requests', as the client's version has it.
    words = ("Connect", "Timeout", "Network", "Proxy")
    return any(any(word in kind.__name__ for word in words) for e in chain for kind in type(e).__mro__)


@contextlib.contextmanager
def _quiet():
    """Holds back the client's log lines and warnings for as long as the download runs."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
