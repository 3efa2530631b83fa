import importlib
import logging
import os
import subprocess
import sys
import time

import huggingface_hub
import pytest
from huggingface_hub import errors

from t5g2.export.hub import HubSnapshot, download
from t5g2.runtime.errors import T5g2Error

# The client's HTTP library, whichever its version uses.
httpx = importlib.import_module(errors.HfHubHTTPError.__mro__[1].__module__.partition(".")[0])

REPO = "google/t5gemma-2-270m-270m"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def http_error(kind, status):
    request = httpx.Request("GET", f"https://huggingface.co/api/models/{REPO}")
    return kind(f"{status} error\nwith a second line", response=httpx.Response(status, request=request))


class Hub:
    """Stands in for the Hub: what the two client calls raise or return."""

    def __init__(self, monkeypatch, tmp_path):
        self.info_error = self.files_error = self.cached = None
        self.calls = []
        self.folder = tmp_path / "snapshots" / COMMIT
        self.folder.mkdir(parents=True)
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: self)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", self.snapshot_download)

    def model_info(self, repo_id, revision, timeout):
        self.calls.append(("info", repo_id, revision))
        logging.getLogger("huggingface_hub.utils._http").warning("You are sending unauthenticated requests")
        if self.info_error:
            raise self.info_error
        return huggingface_hub.hf_api.ModelInfo(id=repo_id, sha=COMMIT)

    def snapshot_download(
        self, repo_id, revision, local_files_only=False, allow_patterns=None, ignore_patterns=None, tqdm_class=None
    ):
        self.calls.append(("local" if local_files_only else "download", repo_id, revision))
        self.patterns = allow_patterns, ignore_patterns
        if local_files_only and not self.cached:
            raise errors.LocalEntryNotFoundError("not in the cache")
        if self.files_error:
            raise self.files_error
        return str(self.folder)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    return Hub(monkeypatch, tmp_path)


def test_downloads_the_resolved_commit(hub, capfd):
    assert download(REPO, "main") == HubSnapshot(REPO, COMMIT, hub.folder)
    assert hub.calls == [("info", REPO, "main"), ("download", REPO, COMMIT)]
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("huggingface_hub").level != logging.CRITICAL


def test_asks_only_for_what_an_export_needs(hub):
    download(REPO)
    files = [
        "config.json",
        "model-00001-of-00002.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer.model",
        "pytorch_model.bin",
        "README.md",
        "onnx/config.json",
        "onnx/model.safetensors",
    ]
    allow, ignore = hub.patterns
    kept = huggingface_hub.utils.filter_repo_objects(files, allow_patterns=allow, ignore_patterns=ignore)
    assert list(kept) == files[:5]


def test_uses_the_cache_when_offline(hub):
    hub.info_error, hub.cached = httpx.ConnectError("no route"), True
    assert download(REPO).commit == COMMIT
    assert hub.calls == [("info", REPO, None), ("local", REPO, None)]


GATED = rf"{REPO}: gated; accept the licence at https://huggingface.co/{REPO} and set HF_TOKEN, or pass --checkpoint"


@pytest.mark.parametrize(
    "error, message",
    [
        (http_error(errors.GatedRepoError, 401), GATED),
        (http_error(errors.GatedRepoError, 403), GATED),
        (http_error(errors.HfHubHTTPError, 403), GATED),
        (http_error(errors.RepositoryNotFoundError, 401), "not on the Hub, or private; .*HF_TOKEN.*--checkpoint"),
        (http_error(errors.RepositoryNotFoundError, 404), "not on the Hub, or private"),
        (http_error(errors.HfHubHTTPError, 404), "not on the Hub, or private"),
        (http_error(errors.HfHubHTTPError, 503), "the Hub answered with HTTP status 503; try again later"),
        (http_error(errors.RevisionNotFoundError, 404), "no revision 'v9' on the Hub"),
        (errors.OfflineModeIsEnabled("offline"), "HF_HUB_OFFLINE is set; unset it, or pass --checkpoint"),
        (httpx.ConnectError("[Errno -2] Name or service not known"), r"cannot reach the Hub \(ConnectError: \[Errno"),
        (httpx.ConnectTimeout("timed out"), "cannot reach the Hub .*check the network.*--checkpoint FOLDER"),
        (errors.LocalEntryNotFoundError("not found\nin cache"), r"cannot reach the Hub \(LocalEntryNotFoundError: not"),
        (OSError(28, "No space left on device"), r"download failed \(OSError: \[Errno 28\] No space left"),
        (RuntimeError(), r"download failed \(RuntimeError\)"),
    ],
)
@pytest.mark.parametrize("stage", ["info_error", "files_error"])
def test_errors_are_one_line(hub, capfd, stage, error, message):
    setattr(hub, stage, error)
    with pytest.raises(T5g2Error, match=message) as caught:
        download(REPO, "v9")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_reason_behind_a_wrapped_error(hub):
    hub.files_error = errors.LocalEntryNotFoundError("cannot find the files")
    hub.files_error.__cause__ = http_error(errors.GatedRepoError, 403)
    with pytest.raises(T5g2Error, match=GATED):
        download(REPO)


def test_bad_name():
    with pytest.raises(T5g2Error, match="a/b/c: not the name of a Hub repository"):
        download("a/b/c")


def test_interrupt_passes(hub):
    hub.files_error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        download(REPO)


def test_unreachable_hub_fails_fast(tmp_path):
    """The real client, in its own process because it reads its settings once: nothing listens on the port."""
    code = f"from t5g2.export.hub import download; download({REPO!r})"
    env = os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert time.monotonic() - start < 20
    assert done.stdout == ""
    assert f"t5g2.runtime.errors.T5g2Error: {REPO}: cannot reach the Hub" in done.stderr.splitlines()[-1]
