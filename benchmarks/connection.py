"""A device that programs are pushed to and run on: a phone over adb, or a board over ssh."""

from __future__ import annotations

import hashlib
import re
import shlex
import shutil
import subprocess
from abc import ABC, abstractmethod
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from t5g2.benchmarks.cores import CORES_SCRIPT, Core, parse_cores

MACHINES = {"aarch64": "aarch64", "arm64": "aarch64", "x86_64": "x86_64"}  # as `uname -m` has them
ALTERED = 65  # the exit status of a script that finds a file altered
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

    @cached_property
    def machine(self) -> str:
        """The kind of CPU, as MACHINES has it; DeviceError where there are no programs for it."""
        machine = self.expect("uname -m", "uname")
        if machine not in MACHINES:
            raise DeviceError(f"{self.name}: is {machine}, and t5g2 is for arm64 and x86-64; give a device of these")
        return MACHINES[machine]

    def push(self, local: Path, remote: str) -> list[str]:
        """Makes the files of a folder be in a folder there; names of those that were not the same already."""
        files = sorted(path for path in local.iterdir() if path.is_file())
        self.expect(f"mkdir -p {shlex.quote(remote)}", f"making {remote}")
        digests = {path.name: digest(path) for path in files}
        there = self.hashes(remote, list(digests))
        changed = [path for path in files if there.get(path.name) != digests[path.name]]
        self.check_space(sum(path.stat().st_size for path in changed))
        for path in changed:
            try:
                self.send(path, f"{remote}/{path.name}.part")
                self.keep(path, f"{remote}/{path.name}", digests[path.name])
            except BaseException:
                with suppress(DeviceError):  # the first error counts
                    self.run(f"rm -f {shlex.quote(f'{remote}/{path.name}.part')}")
                raise
        return [path.name for path in changed]

    def keep(self, local: Path, remote: str, expected: str) -> None:
        """Gives a file that was sent its name; DeviceError where it is not what was sent: by its sha256, or by its size alone
        where the device has no sha256sum."""
        target, part = shlex.quote(remote), shlex.quote(f"{remote}.part")
        done = self.run(
            f"set -- $(sha256sum < {part} 2> /dev/null); "
            f'if [ -n "$1" ]; then [ "$1" = {expected} ]; else [ $(wc -c < {part}) -eq {local.stat().st_size} ]; fi '
            f"|| exit {ALTERED}; mv {part} {target}",
            limit_s=None,
        )
        if done.code == ALTERED:
            raise DeviceError(f"{self.name}: {local.name}: arrived altered; check cable or network and the device's storage, "
                              "and try again")  # fmt: skip
        if done.code:
            raise DeviceError(f"{self.name}: writing {remote} failed ({last_line(done.output)})")

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
        """`over`, `name`, `model`, `soc` and `system`; None where it has nothing to say."""

    def cores(self) -> list[Core]:
        """Those that its programs may run on, as far as the system tells of them."""
        return parse_cores(self.run(CORES_SCRIPT).output)

    def start(self, command: str, folder: str) -> Done:
        """Runs a program in a folder there for as long as it takes; `stop` ends it, also after a connection broke."""
        script = f"echo $$ > {shlex.quote(self.folder + '/pid')} && cd {shlex.quote(folder)} && exec {command}"
        return self.run(f"sh -c {shlex.quote(script)}", limit_s=None)

    def stop(self, name: str) -> None:
        """Ends what `start` ran and is still running, a program of that name."""
        number = shlex.quote(f"{self.folder}/pid")
        # The number may be another program's by now.
        self.run(f"pid=$(cat {number} 2> /dev/null) && grep -q {shlex.quote(name)} /proc/$pid/cmdline && kill $pid; "
                 f"rm -f {number}")  # fmt: skip

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
        name = self.properties("ro.product.manufacturer", "ro.product.model")
        chip = self.properties("ro.soc.manufacturer", "ro.soc.model") or self.properties("ro.board.platform")
        version = self.properties("ro.build.version.release")
        return {"over": "adb", "name": name, "model": name, "soc": chip, "system": f"Android {version}" if version else None}

    def properties(self, *names: str) -> str | None:
        """Their values, one after the other."""
        done = [self.run(f"getprop {name}") for name in names]
        return " ".join(each.output.strip() for each in done if not each.code and each.output.strip()) or None

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
        tree = "${T5G2_DEVICE_TREE:-/proc/device-tree}"
        model = self.run(f"cat {tree}/model")
        # From the board's own name to its chip's, such as "raspberrypi,5-model-b", "brcm,bcm2712", each ended by a zero byte.
        compatible = self.run(f"cat {tree}/compatible")
        return {
            "over": "ssh",
            "name": self.expect("uname -n", "uname"),
            "model": model.output.strip("\0\n ") or None if not model.code else None,
            "soc": compatible.output.strip("\0\n ").split("\0")[-1] or None if not compatible.code else None,
            "system": self.expect("uname -sr", "uname"),
        }


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
