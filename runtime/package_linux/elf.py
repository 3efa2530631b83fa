"""What a 64-bit little-endian ELF file says of the libraries that it needs, and its run path, changed in place."""

from __future__ import annotations

import re
import struct
from pathlib import Path

from t5g2.runtime.package_linux.errors import BuildError

PT_LOAD, PT_DYNAMIC, PT_NOTE = 1, 2, 4
DT_NEEDED, DT_STRTAB, DT_STRSZ, DT_RPATH, DT_RUNPATH = 1, 5, 10, 15, 29
MACHINES = {62: "x86_64", 183: "aarch64"}  # as `uname -m` names them
MACHINE_AT, SEGMENTS_AT = 18, 32  # in the header
ABI_TAG = 1  # the type of the note that names the oldest kernel


class Elf:
    """One file, read once."""

    def __init__(self, path: Path):
        self.path = path
        self.data = path.read_bytes()
        if len(self.data) < 64 or self.data[:6] != b"\x7fELF\x02\x01":
            raise BuildError(f"{path}: not a 64-bit little-endian ELF file; build it anew")
        [self.machine] = struct.unpack_from("<H", self.data, MACHINE_AT)
        self.machine = MACHINES.get(self.machine, f"ELF machine {self.machine}")
        try:
            self._segments = self._read_segments()
            self._dynamic = self._read_dynamic()
        except (struct.error, ValueError, KeyError, StopIteration):
            raise BuildError(f"{path}: a damaged ELF file; build it anew") from None

    def _read_segments(self) -> list[tuple[int, int, int, int]]:
        """Of each segment: type, offset in the file, address, size in the file."""
        [start] = struct.unpack_from("<Q", self.data, SEGMENTS_AT)
        size, count = struct.unpack_from("<HH", self.data, SEGMENTS_AT + 22)
        found = []
        for i in range(count):
            kind, _, offset, address, _, length = struct.unpack_from("<IIQQQQ", self.data, start + i * size)
            found.append((kind, offset, address, length))
        return found

    def _offset(self, address: int) -> int:
        """Where in the file is what will lie at that address."""
        return next(address - at + offset for kind, offset, at, length in self._segments
                    if kind == PT_LOAD and at <= address < at + length)  # fmt: skip

    def _read_dynamic(self) -> list[tuple[int, int]]:
        """Tags and values; none for a static program."""
        found = []
        for kind, offset, _, length in self._segments:
            if kind == PT_DYNAMIC:
                if offset + length > len(self.data):
                    raise ValueError("truncated")
                found = list(struct.iter_unpack("<qQ", self.data[offset : offset + length]))
        values = dict(found)
        if found:
            self._strings = self._offset(values[DT_STRTAB])
            self._strings_size = values[DT_STRSZ]
        return found

    def _string(self, at: int) -> str:
        start = self._strings + at
        return self.data[start : self.data.index(b"\0", start)].decode()

    @property
    def needed(self) -> list[str]:
        """The names of the libraries that it is linked with."""
        return [self._string(value) for tag, value in self._dynamic if tag == DT_NEEDED]

    @property
    def run_path(self) -> str | None:
        return next((self._string(value) for tag, value in self._dynamic if tag in (DT_RPATH, DT_RUNPATH)), None)

    def set_run_path(self, text: str) -> None:
        """Writes a run path that is not longer over the one there is: a build's names folders of the machine it ran on."""
        for tag, value in self._dynamic:
            if tag not in (DT_RPATH, DT_RUNPATH):
                continue
            old, new = self._string(value).encode(), text.encode()
            if len(new) > len(old):
                raise BuildError(f"{self.path}: its run path has no room for {text}; build it anew")
            at = self._strings + value
            self.data = self.data[:at] + new.ljust(len(old), b"\0") + self.data[at + len(old) :]
        self.path.write_bytes(self.data)

    def versions(self, name: str) -> list[tuple[int, ...]]:
        """The versions of symbols that it names, such as those of "GLIBC", in order."""
        if not self._dynamic:
            return []
        strings = self.data[self._strings : self._strings + self._strings_size]
        found = re.findall(rb"\0%s_([0-9.]+)(?=\0)" % name.encode(), strings)
        return sorted(tuple(int(part) for part in version.decode().split(".")) for version in found)

    def oldest_kernel(self) -> tuple[int, ...] | None:
        """The oldest Linux that a C library says it runs on."""
        for kind, offset, _, length in self._segments:
            at = offset
            while kind == PT_NOTE and at + 12 <= offset + length:
                name_size, size, tag = struct.unpack_from("<III", self.data, at)
                name, content = at + 12, at + 12 + (name_size + 3) // 4 * 4
                if tag == ABI_TAG and self.data[name : name + 4] == b"GNU\0":
                    return struct.unpack_from("<III", self.data, content + 4)
                at = content + (size + 3) // 4 * 4
        return None


def dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)
