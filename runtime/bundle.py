"""The bundle: a folder with the exported programs, the tokenizer and a manifest that describes and hashes them.

Written whole or not at all; refused with a clear message when a file is missing, truncated, altered or of a newer format.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from t5g2.runtime.errors import T5g2Error, UsageError

FORMAT = "t5g2-bundle"
FORMAT_VERSION = 3  # 3: encoder states, tokenizer.bin, a manifest hash over the file's bytes
MANIFEST = "manifest.json"
# The files of the text and the vision programs, by backend.
PROGRAMS = {
    "native": ("text.pte", "vision.pte"),
    "xnnpack": ("text.pte", "vision.pte"),
    "litert": ("text.tflite", "vision.tflite"),
}
TOKENIZER = "tokenizer.json"
ENGINE_TOKENIZER = "tokenizer.bin"  # the same tokenizer, as the C++ engine reads it

_EXPORT_AGAIN = "export the bundle again"
_NO_HASH = "0" * 64


@dataclass(frozen=True)
class Limits:
    """What a bundle's memory is planned for, in tokens.

    max_source: the longest source, image tokens and BOS included.
    max_target: the longest target, BOS included.
    max_rows: the most target ids that one decoder step takes, on LiteRT one; also the slack of the sliding-window cache.
    """

    max_source: int = 2048
    max_target: int = 512
    max_rows: int = 16

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            least = 1 if name == "max_rows" else 2  # a dynamic dimension of a traced program cannot be bounded by 1
            if value < least:
                raise UsageError(f"--{name.replace('_', '-')} {value}: must be at least {least}")


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: where it is and what its manifest says (see `t5g2.export.bundle_writer` for the fields)."""

    path: Path
    manifest: dict

    @property
    def limits(self) -> Limits:
        return Limits(**self.manifest["limits"])

    @property
    def backend(self) -> str:
        """native, xnnpack or litert."""
        return self.manifest["backend"]

    @property
    def text_program(self) -> Path:
        return self.path / PROGRAMS[self.backend][0]

    @property
    def vision_program(self) -> Path | None:
        name = PROGRAMS[self.backend][1]
        return self.path / name if name in self.manifest["files"] else None

    @property
    def tokenizer(self) -> Path | None:
        return self.path / TOKENIZER if TOKENIZER in self.manifest["files"] else None


def open_bundle(path: str | os.PathLike) -> Bundle:
    """Reads the manifest and checks the size and the sha256 of every file it names.

    Raises T5g2Error naming what is missing, truncated, altered, or newer than this version of t5g2.
    """
    path = Path(path)
    manifest_path = path / MANIFEST
    if not path.is_dir():
        raise T5g2Error(f"{path}: no such bundle; give a folder made by t5g2-export")
    if not manifest_path.is_file():
        raise T5g2Error(f"{path}: not a bundle (no {MANIFEST}); give a folder made by t5g2-export")
    try:
        content = manifest_path.read_bytes()
        manifest = json.loads(content)
        if manifest["format"] != FORMAT:
            raise KeyError("format")
        version = manifest["format_version"]
        files = {name: (entry["size"], entry["sha256"]) for name, entry in manifest["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise T5g2Error(f"{manifest_path}: not a bundle manifest, or a damaged one; {_EXPORT_AGAIN}") from None
    if version != FORMAT_VERSION:
        remedy = f"upgrade t5g2 or {_EXPORT_AGAIN}" if _newer(version) else _EXPORT_AGAIN
        raise T5g2Error(f"{path}: bundle format {version}, and this t5g2 reads {FORMAT_VERSION}; {remedy}")
    if not _sealed(content, manifest.get("manifest_sha256")):
        raise T5g2Error(f"{manifest_path}: its content does not match its own hash; it was altered, {_EXPORT_AGAIN}")
    for name, (size, sha256) in files.items():
        file = path / name
        if not file.is_file():
            raise T5g2Error(f"{file}: missing from the bundle; {_EXPORT_AGAIN}")
        if file.stat().st_size != size:
            raise T5g2Error(f"{file}: {file.stat().st_size} bytes where {size} are expected; {_EXPORT_AGAIN}")
        if file_hash(file) != sha256:
            raise T5g2Error(f"{file}: sha256 does not match the manifest, the file was altered; {_EXPORT_AGAIN}")
    return Bundle(path, manifest)


def file_hash(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def manifest_text(manifest: dict) -> str:
    """A manifest as its file holds it. manifest_sha256 is the hash of the whole text with 64 zeros in the hash's place."""
    text = json.dumps(manifest | {"manifest_sha256": _NO_HASH}, indent=2) + "\n"
    return text.replace(_NO_HASH, hashlib.sha256(text.encode()).hexdigest())


def write_manifest(folder: Path, manifest: dict) -> dict:
    """Adds sizes and hashes of the files in `folder` to `manifest`, writes it there and returns it."""
    files = {
        file.name: {"size": file.stat().st_size, "sha256": file_hash(file)}
        for file in sorted(folder.iterdir())
        if file.name != MANIFEST
    }
    manifest = {"format": FORMAT, "format_version": FORMAT_VERSION} | manifest | {"files": files}
    text = manifest_text(manifest)
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    for file in folder.iterdir():
        _settle(file)
    return json.loads(text)


def _settle(file: Path) -> None:
    """Puts a file on disk, and out of the page cache: the engine reads it in again by huge pages, where the system has them."""
    with open(file, "rb") as opened:
        os.fsync(opened.fileno())
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _newer(version) -> bool:
    return not isinstance(version, int) or version > FORMAT_VERSION


def _sealed(content: bytes, sha256) -> bool:
    """Whether the manifest's own hash is that of its bytes."""
    if not isinstance(sha256, str) or len(sha256) != len(_NO_HASH):
        return False
    return hashlib.sha256(content.replace(sha256.encode(), _NO_HASH.encode())).hexdigest() == sha256


@contextmanager
def new_folder(target: Path, overwrite: bool) -> Iterator[Path]:
    """A temporary folder beside `target` that takes its name when the block ends, and is removed when it fails.

    Raises T5g2Error where something is already there, unless it is an empty folder, or a bundle and `overwrite` is set.
    """
    check_target(target, overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
    try:
        temporary.chmod(0o755)
        yield temporary
        check_target(target, overwrite)  # an export takes minutes, in which somebody may have put something there
        if target.exists():
            retired = temporary.with_suffix(".old")
            target.rename(retired)
            try:
                temporary.rename(target)
            except BaseException:
                retired.rename(target)
                raise
            shutil.rmtree(retired)
        else:
            temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_file(target: Path, overwrite: bool) -> None:
    """Raises T5g2Error where a new file must not be put at `target`."""
    if target.exists() and not overwrite:
        raise T5g2Error(f"{target}: already exists; choose another --output, or --force to overwrite it")
    if target.exists() and not target.is_file():
        raise T5g2Error(f"{target}: exists and is not a file, so --force does not replace it; choose another --output")


def check_target(target: Path, overwrite: bool) -> None:
    """Raises T5g2Error where a new bundle must not be put at `target`."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not overwrite:
        raise T5g2Error(f"{target}: already exists; choose another --output, or --force to overwrite it")
    if not (target / MANIFEST).is_file():
        raise T5g2Error(f"{target}: exists and is not a bundle, so --force does not replace it; choose another --output")
