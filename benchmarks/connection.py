"""A device that programs are pushed to and run on: a phone over adb, or a board over ssh."""

from __future__ import annotations

import hashlib
import re
import shlex
import shutil
import subprocess
from abc import ABC, abstractmethod
from pathlib import Path
from typing import NamedTuple

SHORT_S = 120  # commands that only look, or move a file
FOLDER = "t5g2-bench"


class DeviceError(Exception):
    """What went wrong, in one line."""


class Done(NamedTuple):
    code: int
    output: str


class Device(ABC):
    """Runs commands in its own shell, and keeps all files in one folder. Subclasses say how it is reached."""

    name: str
    root: str  # of `folder`; there is always one
    how: str

    @property
    def folder(self) -> str:
        return f"{self.root}/{FOLDER}"

    @abstractmethod
    def shell(self, script: str) -> list[str]:
        """The command here that has the device's shell run the script."""

    @abstractmethod
    def send(self, local: Path, remote: str) -> None:
        """Writes a file there; DeviceError where that fails."""

    def run(self, command: str, limit_s: float | None = SHORT_S) -> Done:
        """Runs it there. `output` has both streams: not every adb keeps them apart, or its exit status, or line ends."""
        script = f"echo t5g2-begin; ({command}\n) 2>&1; code=$?; echo; echo t5g2-end $code"
        text = decoded(self.call(self.shell(f"sh -c {shlex.quote(script)}"), limit_s).stdout)
        found = re.search(r"^t5g2-begin\n(.*)\nt5g2-end (\d+)$", text, re.DOTALL | re.MULTILINE)
        if not found:
            raise DeviceError(f"{self.name}: the connection broke in the middle of a command; try again")
        return Done(int(found[2]), found[1])

    def expect(self, command: str, what: str) -> str:
        """What the command prints; DeviceError saying that `what` failed, and why, where it does not succeed."""
        done = self.run(command)
        if done.code:
            raise DeviceError(f"{self.name}: {what} failed ({last_line(done.output) or f'exit status {done.code}'})")
        return done.output.strip()

    def call(self, command: list[str], limit_s: float | None, **options) -> subprocess.CompletedProcess:
        """Runs a command here; DeviceError where it fails, as the script that it carries never does."""
        try:
            done = subprocess.run(command, capture_output=True, timeout=limit_s, **({"stdin": subprocess.DEVNULL} | options))
        except FileNotFoundError:
            raise DeviceError(f"{command[0]} is missing; install it") from None
        except subprocess.TimeoutExpired:
            raise DeviceError(f"{self.name}: no answer within {limit_s:.0f} seconds; check the connection") from None
        if done.returncode:
            why = last_line(decoded(done.stderr) or decoded(done.stdout)) or f"exit status {done.returncode}"
            raise DeviceError(f"{self.name}: {self.how} fails ({why})")
        return done

    def check(self) -> None:
        """DeviceError where it is not an arm64 device."""
        if (machine := self.expect("uname -m", "uname")) not in ("aarch64", "arm64"):
            raise DeviceError(f"{self.name}: is {machine}, and the program is for arm64; give an arm64 device")

    def push(self, local: Path, remote: str) -> list[str]:
        """Makes the files of a folder be in a folder there; names of those that were not the same already."""
        files = sorted(path for path in local.iterdir() if path.is_file())
        self.expect(f"mkdir -p {shlex.quote(remote)}", f"making {remote}")
        there = self.hashes(remote, [path.name for path in files])
        changed = [path for path in files if there.get(path.name) != digest(path)]
        self.check_space(sum(path.stat().st_size for path in changed))
        for path in changed:
            target = f"{remote}/{path.name}"
            self.send(path, f"{target}.part")
            self.expect(f"mv {shlex.quote(target + '.part')} {shlex.quote(target)}", f"writing {target}")
        return [path.name for path in changed]

    def hashes(self, folder: str, names: list[str]) -> dict[str, str]:
        """The sha256 of those files that are there; nothing where the device has no sha256sum."""
        files = shlex.join(f"./{name}" for name in names)
        done = self.run(f"cd {shlex.quote(folder)} && sha256sum {files}", limit_s=None)
        return {name: value for value, name in re.findall(r"^([0-9a-f]{64}) [ *]\./(.+)$", done.output, re.MULTILINE)}

    def check_space(self, needed: int) -> None:
        """DeviceError where df says that so many bytes are not free."""
        line = last_line(self.run(f"df -Pk {shlex.quote(self.folder)}").output)
        free = re.search(r"(\d+) +\d+% ", line)
        if free and int(free[1]) * 1024 < needed:
            raise DeviceError(
                f"{self.name}: {self.folder}: {needed / 1e6:.0f} MB are to be pushed, and {int(free[1]) * 1024 / 1e6:.0f} MB "
                "are free; free some space"
            )

    def celsius(self) -> float | None:
        """The hottest zone's temperature; None where the device does not tell."""
        values = self.run("cat ${T5G2_SYSFS:-/sys}/class/thermal/thermal_zone*/temp").output.split()
        zones = [int(value) / 1e3 for value in values if re.fullmatch(r"\d{1,6}", value)]
        return max((zone for zone in zones if 0 < zone < 200), default=None)

    @abstractmethod
    def description(self) -> dict:
        """`over`, `name` and `system`."""

    def condition(self) -> dict | None:
        """What it says of its own heat and battery; None where it has nothing to say."""
        return None

    def clean(self) -> None:
        self.expect(f"rm -rf {shlex.quote(self.folder)}", f"removing {self.folder}")


class Adb(Device):
    """An Android device."""

    root, how = "/data/local/tmp", "adb"

    def __init__(self, serial: str | None = None):
        self.name = "adb"
        if not shutil.which("adb"):
            raise DeviceError("adb is missing; install it (on Debian: apt install adb)")
        listed = decoded(self.call(["adb", "devices"], SHORT_S).stdout)
        states = dict(re.findall(r"^(\S+)\t(\S+)", listed, re.MULTILINE))
        self.serial = self.name = choose(states, serial)

    def shell(self, script: str) -> list[str]:
        return ["adb", "-s", self.serial, "shell", script]

    def send(self, local: Path, remote: str) -> None:
        self.call(["adb", "-s", self.serial, "push", str(local), remote], None)

    def description(self) -> dict:
        properties = ("ro.product.manufacturer", "ro.product.model", "ro.soc.model", "ro.build.version.release")
        maker, model, chip, version = (self.run(f"getprop {name}") for name in properties)
        words = [done.output.strip() for done in (maker, model, chip) if not done.code and done.output.strip()]
        android = f"Android {version.output.strip()}" if not version.code else None
        return {"over": "adb", "name": " ".join(words) or None, "system": android}

    def condition(self) -> dict:
        battery, thermal = self.run("dumpsys battery"), self.run("dumpsys thermalservice")
        tenths = number(battery, "temperature")
        return {
            "thermal_status": number(thermal, "Thermal Status"),
            "battery_percent": number(battery, "level"),
            "battery_celsius": None if tenths is None else tenths / 10,
        }


class Ssh(Device):
    """A board with a Linux of its own."""

    how = "ssh"

    def __init__(self, host: str):
        self.name = self.host = host
        home = self.expect('echo "$HOME"', "looking for the home folder")
        self.root = f"{home}/.cache"

    def shell(self, script: str) -> list[str]:
        # BatchMode: a password would be asked for again and again.
        return [
            "ssh",
            "-o",
            "BatchMode=yes",
            "-o",
            "ConnectTimeout=10",
            "-o",
            "ServerAliveInterval=15",
            "--",
            self.host,
            script,
        ]

    def send(self, local: Path, remote: str) -> None:
        with open(local, "rb") as file:
            self.call(self.shell(f"cat > {shlex.quote(remote)}"), None, stdin=file)

    def description(self) -> dict:
        return {"over": "ssh", "name": self.expect("uname -n", "uname"), "system": self.expect("uname -sr", "uname")}


def choose(states: dict[str, str], serial: str | None) -> str:
    """The serial to use, of those that `adb devices` lists with their states."""
    if not states:
        raise DeviceError("adb: no device; connect one and allow USB debugging on it")
    if serial is None and len(states) > 1:
        raise DeviceError(f"adb: several devices ({', '.join(states)}); choose one with --serial")
    serial = serial or next(iter(states))
    if serial not in states:
        raise DeviceError(f"adb: no device {serial}; there is {', '.join(states)}")
    if states[serial] != "device":
        raise DeviceError(f"adb: {serial} is {states[serial]}; unlock it, and allow USB debugging on it")
    return serial


def number(done: Done, key: str) -> int | None:
    """The whole number after `key:` in what a command printed."""
    found = re.search(rf"^\s*{key}: *(-?\d+)", done.output, re.MULTILINE)
    return int(found[1]) if found and not done.code else None


def digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def decoded(data: bytes) -> str:
    return data.decode(errors="replace").replace("\r\n", "\n")


def last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1].strip()
