"""A folder as a .tar.gz that is the same, byte for byte, whenever and wherever it is made from the same files."""

from __future__ import annotations

import gzip
import tarfile
from pathlib import Path


def write(folder: Path, name: str, file: Path) -> None:
    """Writes the folder's files, as if they lay in a folder of that name."""
    unfinished = file.with_name(f".{file.name}.part")
    try:
        with open(unfinished, "wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed:
            with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
                for path in sorted(folder.rglob("*")):
                    tar.add(path, f"{name}/{path.relative_to(folder)}", recursive=False, filter=anonymous)
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)


def anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without what depends on who made it, and when."""
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry
