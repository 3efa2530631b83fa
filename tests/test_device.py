"""Measuring on a device: adb and ssh are programs of the test's own, which act on a folder as if it were one.

Most tests run this machine's t5g2-bench behind a loader that only calls it; the last runs the arm64 build under qemu.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from t5g2 import runtime
from t5g2.benchmarks import compare, connection, device, result, rounds

BENCH = os.environ.get("T5G2_BENCH") or str(Path(runtime.__path__[0]) / "t5g2-bench")
SHORT = ["--", "--source", "16", "--depth", "0", "--target", "2", "--repeat", "2", "--threads", "1"]
ADB, SSH = ["--adb"], ["--ssh", "board"]

# As `adb` it has the faults of old ones: one stream, other line ends, exit status 0. The clocks that t5g2-bench measured are
# replaced by those of plan.json, as a shared machine's clock moves.
FAKE = """#!{python}
import json, os, re, shutil, subprocess, sys
from pathlib import Path

device = Path({device!r})
plan = json.loads((device / "plan.json").read_text())

def planned(key, run, otherwise):
    values = plan.get(key, [])
    return values[run] if run < len(values) else otherwise

def shell(script, **options):
    run = -1
    if measures := "--output json" in script:
        count = device / "count"
        run = int(count.read_text()) if count.exists() else 0
        count.write_text(str(run + 1))
        limit = device / "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq"
        limit.write_text(str(planned("limits", run, 1000)))
        script = script.replace(" ./ld-linux", " " + plan.get("emulator", "") + " ./ld-linux")
    script = script.replace("/data/local/tmp", str(device / "data/local/tmp"))
    path = f"{{device}}/bin:{{os.environ['PATH']}}"
    environment = os.environ | {{"PATH": path, "HOME": f"{{device}}/home", "T5G2_SYSFS": f"{{device}}/sys"}}
    done = subprocess.run(["sh", "-c", script], stdout=subprocess.PIPE, env=environment, **options)
    out = done.stdout
    if measures:
        out = re.sub(rb'"throttling": "the clock [^"]*"', b'"throttling": "none"', out)
        out = re.sub(rb'"core_ghz": [^,]*', b'"core_ghz": %.1f' % planned("clocks", run, 2), out)
    return done.returncode, out

match Path(sys.argv[0]).name, sys.argv[1:]:
    case "adb", ["devices"]:
        print("List of devices attached\\n" + "".join(f"{{name}}\\t{{state}}\\n" for name, state in plan["devices"].items()))
    case "adb", ["-s", _, "push", local, remote]:
        with open(device / "pushed", "a") as log:
            print(Path(local).name, file=log)
        shutil.copy(local, str(device) + remote)
    case "adb", ["-s", _, "shell", script]:
        sys.stdout.buffer.write(shell(script, stderr=subprocess.STDOUT)[1].replace(b"\\n", b"\\r\\n"))
    case "ssh", [*_, "--", "board", script]:
        code, out = shell(script)
        sys.stdout.buffer.write(out)
        sys.exit(code)
    case "ssh", _:
        sys.exit("ssh: Could not resolve hostname")
    case _, words:
        sys.exit(f"fake: {{words}}?")
"""

COMMANDS = {  # on the device
    "uname": 'case "$1" in -m) echo aarch64;; -n) echo board;; *) echo Linux 5.10;; esac',
    "getprop": 'case "$1" in *model) echo "Phone 1";; *release) echo 14;; *) echo;; esac',
    "dumpsys": 'case "$1" in battery) printf "  level: 85\\n  temperature: 283\\n";; *) echo "Thermal Status: 1";; esac',
}


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """The device: `.folder`, `.plan(...)`, `.command(name, text)` and `.pushed()`, which also forgets."""
    folder = tmp_path / "device"
    for name in ("data/local/tmp", "home", "sys/devices/system/cpu/cpu0/cpufreq"):
        (folder / name).mkdir(parents=True)
    (folder / "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq").write_text("1000")

    def plan(**changes) -> None:
        (folder / "plan.json").write_text(json.dumps({"devices": {"X1": "device"}} | changes))
        (folder / "count").unlink(missing_ok=True)

    def command(name: str, text: str) -> None:
        script(folder / "bin" / name, f"#!/bin/sh\n{text}\n")

    def pushed() -> list[str]:
        log = folder / "pushed"
        names = log.read_text().split() if log.exists() else []
        log.unlink(missing_ok=True)
        return names

    plan()
    for name, text in COMMANDS.items():
        command(name, text)
    for name in ("adb", "ssh"):
        script(tmp_path / "path" / name, FAKE.format(python=sys.executable, device=str(folder)))
    monkeypatch.setenv("PATH", f"{tmp_path}/path{os.pathsep}{os.environ['PATH']}")
    return SimpleNamespace(folder=folder, plan=plan, command=command, pushed=pushed)


@pytest.fixture
def program(tmp_path):
    """A folder as `--program` takes one, with this machine's program."""
    script(tmp_path / "program" / device.LOADER, '#!/bin/sh\nshift 2\nexec "$@"\n')
    script(tmp_path / "program" / device.PROGRAM, f'#!/bin/sh\nexec "{BENCH}" "$@"\n')
    return tmp_path / "program"


@pytest.fixture
def measure(fake, program, nano_bundle, tmp_path, capsys):
    """`measure(words, bundle…)` runs the command: `.code`, `.out`, `.err`, `.report`."""

    def run(words: list[str], *bundles: Path, options: list[str] = SHORT) -> SimpleNamespace:
        output = tmp_path / "results.json"
        output.unlink(missing_ok=True)
        found = bundles or [nano_bundle("int4")]
        code = device.main([*words, "--program", str(program), "--output", str(output), *map(str, found), *options])
        out, err = capsys.readouterr()
        assert not list(tmp_path.glob("*.part"))
        return SimpleNamespace(code=code, out=out, err=err, report=result.read(output) if output.exists() else None)

    return run


def refused(done: SimpleNamespace) -> str:
    """The message of the error line, the last."""
    assert done.code == 1 and done.out == "" and done.report is None and "Traceback" not in done.err
    prefix, message = done.err.splitlines()[-1].split(": error: ", 1)
    assert prefix == "t5g2-device"
    return message


def noted(err: str, what: str) -> list[str]:
    return [line for line in err.splitlines() if what in line]


# --- what is measured ---


@pytest.mark.parametrize("way", [ADB, SSH], ids=["adb", "ssh"])
def test_bundles_in_turn(measure, fake, nano_bundle, tmp_path, way):
    other = shutil.copytree(nano_bundle("int4"), tmp_path / "it's another")
    core = str(min(os.sched_getaffinity(0)))
    done = measure([*way, "--rounds", "2", "--cores", core], nano_bundle("int4"), other)
    assert done.code == 0, done.err
    assert [line.rsplit(": ", 1)[1] for line in noted(done.err, "round ")] == ["int4", "it's another"] * 2
    found = done.report
    assert [r["bundle"] for r in found["results"]] == [r["bundle"] for r in found["loading"]] == ["int4", "it's another"]
    assert found["repeat"] == 4 and found["pinned"] == [int(core)] and "device.py --" in found["command"]
    for measured in found["results"]:
        for figure in (measured["encode_tok_s"], measured["first_token_s"], measured["decode"][0]["tok_s"]):
            quartiles = [figure[key] for key in ("low", "median", "high")]
            assert len(figure["runs"]) == 4 and quartiles == pytest.approx(list(np.quantile(figure["runs"], [0.25, 0.5, 0.75])))
    assert done.out.splitlines()[0].startswith("| bundle | threads | source | encode tok/s | decode tok/s at 0 |")
    assert "| it's another | 1 | 16 |" in done.out
    assert found["device"]["name"] == ("Phone 1 Phone 1" if way == ADB else "board")
    state = {"thermal_status": 1, "battery_percent": 85, "battery_celsius": 28.3} if way == ADB else None
    for i, run in enumerate(found["device"]["rounds"]):
        assert (run["round"], run["before"], run["after"], run["dropped"]) == (i // 2 + 1, state, state, None)
    assert "1.00 ~" in compare.compare(found, found, ("a", "b"))
    kept = fake.folder / ("data/local/tmp" if way == ADB else "home/.cache")
    assert [path.name for path in kept.iterdir()] == ["t5g2-bench"]


def test_clean_leaves_nothing(measure, fake):
    assert measure([*ADB, "--rounds", "1", "--clean"]).code == 0
    assert list((fake.folder / "data/local/tmp").iterdir()) == []
    assert "needle" in refused(measure([*ADB, "--clean"], options=["--", "--threads", "needle"]))
    assert list((fake.folder / "data/local/tmp").iterdir()) == []


def test_a_device_without_dumpsys(measure, fake):
    for name in ("dumpsys", "getprop"):
        fake.command(name, f'echo "{name}: not found" >&2; exit 127')
    done = measure([*ADB, "--rounds", "1"])
    assert done.code == 0, done.err
    assert done.report["device"]["name"] is None and done.report["device"]["rounds"][0]["after"]["battery_percent"] is None


# --- throttling ---


def test_throttled_rounds_are_left_out(measure, fake):
    fake.plan(limits=[1000, 600, 1000])
    done = measure(ADB)
    assert done.code == 0, done.err
    reason = "int4, 1 thread, source 16, target 2: a core is held to 60 % of its frequency"
    assert noted(done.err, "left out") == [f"t5g2-device: round 2 is left out: {reason}"]
    assert [run["dropped"] for run in done.report["device"]["rounds"]] == [None, reason, None]
    assert done.report["repeat"] == len(done.report["results"][0]["encode_tok_s"]["runs"]) == 4
    assert done.report["results"][0]["throttling"] == "none"


def test_rounds_at_a_lower_clock_are_left_out(measure, fake):
    fake.plan(clocks=[2.0, 1.9, 1.5])
    done = measure(ADB)
    assert noted(done.err, "left out")[0].endswith("round 3 is left out: int4, 1 thread, source 16, target 2: a core ran at "
                                                   "1.50 GHz, and at 2.00 in another round")  # fmt: skip
    assert done.report["repeat"] == 4


@pytest.mark.parametrize(("number", "limits", "left"), [(3, [600, 1000, 600], "1 of 3"), (1, [600], "0 of 1")])
def test_too_few_rounds_are_left(measure, fake, number, limits, left):
    fake.plan(limits=limits)
    message = refused(measure([*SSH, "--rounds", str(number)]))
    assert message == f"int4: {left} rounds were not throttled; cool the device, raise --cool-down, and measure again"


@pytest.mark.parametrize(
    ("temperatures", "start", "waited"), [([50, 45, 43], 40, 4), ([43], 40, 0), ([60] * 99, 40, 10), ([], None, 10)]
)
def test_it_waits_until_the_device_is_as_cool_as_at_first(monkeypatch, temperatures, start, waited):
    now = [0.0]
    monkeypatch.setattr(device.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(device.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    readings = iter(temperatures)
    device.cool_down(SimpleNamespace(celsius=lambda: next(readings)), start, 10)
    assert now[0] == waited


def test_temperature(fake):
    board = connection.Ssh("board")
    assert board.celsius() is None
    for zone, value in enumerate(["41500", "-274000", "39000", "0"]):
        folder = fake.folder / f"sys/class/thermal/thermal_zone{zone}"
        folder.mkdir(parents=True)
        (folder / "temp").write_text(value + "\n")
    assert board.celsius() == 41.5


# --- merging ---


def merged_from(**values) -> dict:
    """A result of three rounds, with each key's three values in them."""
    state = {"core_ghz": 2.0}
    row = {"decode": [], "state_before": state, "state_after": state, "throttling": "none", "read_gb_s": 1, "peak_mb": 1}
    row |= {key: {"runs": [1.0]} for key in rounds.FIGURES} | {key: 1 for key in rounds.RESULT_MEDIANS}
    return rounds.merge_results([row | dict(zip(values, each)) for each in zip(*values.values())])


def test_merging():
    found = merged_from(
        encode_tok_s=[{"runs": [1.0, 2.0]}, {"runs": [3.0]}, {"runs": [5.0, 4.0]}],
        encode_joules_per_token=[None, 3.0, 1.0],
        resident_mb=[5, 9, 7],
        peak_mb=[5, 9, 7],
        read_gb_s=[2, 3, 4],
        state_before=[1, 2, 3],
        state_after=[4, 5, 6],
        throttling=["none", "2 throttle events", "none"],
        decode=[[{"tok_s": {"runs": [x]}, "joules_per_token": None, "bytes_per_token": 10**9}] for x in (1.0, 2.0, 3.0)],
    )
    assert found["encode_tok_s"] == {"median": 3, "low": 2, "high": 4, "runs": [1, 2, 3, 5, 4]}
    assert (found["encode_joules_per_token"], found["resident_mb"], found["peak_mb"]) == (2, 7, 9)
    assert (found["state_before"], found["state_after"], found["throttling"]) == (1, 6, "2 throttle events")
    assert found["decode"][0]["bandwidth_share"] == 0.5 and found["decode"][0]["joules_per_token"] is None


def test_merged_loading():
    rows = [dict.fromkeys(rounds.LOADING_MEDIANS, value) | {"file_mb": 5} for value in (3.0, None, 1.0)]
    assert rounds.merge_loading(rows) == dict.fromkeys(rounds.LOADING_MEDIANS, 2.0) | {"file_mb": 5}
    assert rounds.median_of([None, None]) is None


# --- pushing ---


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    for name in ("one", "two words"):
        (folder / name).write_bytes(os.urandom(1000))
    return folder


@pytest.mark.parametrize("make", [connection.Adb, lambda: connection.Ssh("board")], ids=["adb", "ssh"])
def test_unchanged_files_are_not_pushed_again(fake, files, make):
    phone = make()
    remote = f"{phone.folder}/files"
    assert phone.push(files, remote) == ["one", "two words"]
    assert phone.push(files, remote) == []
    (files / "two words").write_bytes(os.urandom(1000))  # of the same size
    assert phone.push(files, remote) == ["two words"]
    root = fake.folder if make is connection.Adb else Path("/")
    assert all((Path(f"{root}{remote}") / path.name).read_bytes() == path.read_bytes() for path in files.iterdir())
    assert not list(Path(f"{root}{remote}").glob("*.part"))


def test_a_second_run_pushes_nothing(measure, fake):
    first = measure([*ADB, "--rounds", "1"])
    assert first.code == 0 and "text.pte" in " ".join(fake.pushed())
    second = measure([*ADB, "--rounds", "1"])
    assert second.code == 0 and fake.pushed() == [] and len(noted(second.err, "is there already")) == 2


def test_without_sha256sum_everything_is_pushed(fake, files):
    fake.command("sha256sum", "exit 127")
    phone = connection.Adb()
    assert phone.push(files, f"{phone.folder}/files") == phone.push(files, f"{phone.folder}/files") == ["one", "two words"]


def test_too_little_space(fake, files):
    fake.command("df", 'printf "Filesystem 1024-blocks Used Available Capacity Mounted\\n/dev/x 9 8 1 90%% /data\\n"')
    with pytest.raises(connection.DeviceError, match="X1: /data/local/tmp/t5g2-bench: 0 MB are .* free some space"):
        connection.Adb().push(files, "/data/local/tmp/t5g2-bench/files")
    fake.command("df", "echo df: unknown option; exit 1")
    assert connection.Adb().push(files, "/data/local/tmp/t5g2-bench/files")


def test_a_file_that_cannot_be_written(fake, files):
    (fake.folder / "home/.cache").write_text("not a folder")
    with pytest.raises(connection.DeviceError, match=r"board: making .*t5g2-bench/files failed \(mkdir: .*ot a directory"):
        board = connection.Ssh("board")
        board.push(files, f"{board.folder}/files")


# --- what is wrong ---


@pytest.mark.parametrize(
    ("devices", "words", "message"),
    [
        ({}, ADB, "adb: no device; connect one and allow USB debugging on it"),
        ({"X1": "device", "X2": "device"}, ADB, "adb: several devices (X1, X2); choose one with --serial"),
        ({"X1": "device"}, [*ADB, "--serial", "X3"], "adb: no device X3; there is X1"),
        ({"X1": "unauthorized"}, ADB, "adb: X1 is unauthorized; unlock it, and allow USB debugging on it"),
        ({}, ["--ssh", "nowhere"], "nowhere: ssh fails (ssh: Could not resolve hostname)"),
    ],
)
def test_devices_that_are_not_there(measure, fake, devices, words, message):
    fake.plan(devices=devices)
    assert refused(measure(words)) == message


def test_one_of_several_devices(fake):
    fake.plan(devices={"X1": "device", "X2": "device"})
    assert connection.Adb("X2").shell("true")[:3] == ["adb", "-s", "X2"]


@pytest.mark.parametrize(("name", "words"), [("adb", ADB), ("ssh", SSH)])
def test_without_adb_or_ssh(measure, monkeypatch, tmp_path, name, words):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert refused(measure(words)).startswith(f"{name} is missing; install it")


def test_not_an_arm64_device(measure, fake):
    fake.command("uname", "echo armv7l")
    assert refused(measure(ADB)) == "X1: is armv7l, and the program is for arm64; give an arm64 device"


def test_a_connection_that_breaks(fake):
    script(fake.folder.parent / "path/adb", "#!/bin/sh\necho t5g2-begin\n")
    phone = connection.Adb.__new__(connection.Adb)
    phone.serial = phone.name = "X1"
    with pytest.raises(connection.DeviceError, match="X1: the connection broke"):
        phone.check()


@pytest.mark.parametrize("way", [ADB, SSH], ids=["adb", "ssh"])
def test_a_program_that_fails(measure, program, way):
    message = refused(measure(way, options=["--", "--source", "100000"]))
    assert message.endswith("int4: t5g2-bench failed (../bundles/int4: --source 100000; give 1 to 2048)")
    script(program / device.PROGRAM, "#!/bin/sh\nkill -SEGV $$\n")
    assert "int4: t5g2-bench failed (" in refused(measure(way))
    script(program / device.PROGRAM, "#!/bin/sh\necho no json\n")
    assert "int4: t5g2-bench printed no result" in refused(measure(way))


def test_what_is_given_wrong(measure, nano_bundle, tmp_path, program):
    assert refused(measure(ADB, tmp_path)) == f"{tmp_path}: no such bundle; give a folder made by t5g2-export"
    twice = shutil.copytree(nano_bundle("int4"), tmp_path / "copy/int4")
    assert refused(measure(ADB, twice, nano_bundle("int4"))) == "two bundles are named int4; rename one of the folders"
    (program / device.LOADER).unlink()
    assert f"--program {program}: has no ld-linux-aarch64.so.1" in refused(measure(ADB))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["b"], "one of the arguments --adb --ssh is required"),
        (["--adb", "--ssh", "h", "b"], "not allowed with argument"),
        (["--ssh", "h", "--serial", "x", "b"], "--serial: goes with --adb"),
        (["--adb", "b", "--rounds", "0"], "--rounds: give 1 or more"),
        (["--adb", "b", "--", "--save=x"], "--save=x: can't be given after --"),
        (["--adb", "b", "--output", "none/r.json"], "--output none/r.json: there is no folder"),
    ],
)
def test_misuse(capsys, words, message):
    with pytest.raises(SystemExit) as ended:
        device.main(words)
    assert ended.value.code == 2 and message in capsys.readouterr().err.splitlines()[-1]


# --- the arm64 program ---


def test_arm64_program_as_it_is_pushed(fake, nano_bundle, tmp_path, capsys):
    for tool in (device.COMPILER, "qemu-aarch64-static"):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is missing")
    fake.plan(emulator="qemu-aarch64-static -cpu max,sme=off")
    output = tmp_path / "results.json"
    short = ["--", "--source", "16", "--depth", "0", "--target", "2", "--repeat", "1", "--threads", "1"]
    assert device.main([*ADB, "--rounds", "2", "--output", str(output), str(nano_bundle("int4")), *short]) == 0
    assert "| int4 | 1 | 16 |" in capsys.readouterr().out
    [measured] = result.read(output)["results"]
    assert measured["kernels"].startswith("neon") and len(measured["decode"][0]["tok_s"]["runs"]) == 2
    # Nothing but what was pushed: no library of the system that it runs on.
    folder = fake.folder / "data/local/tmp/t5g2-bench/program"
    listed = subprocess.run(
        ["qemu-aarch64-static", f"./{device.LOADER}", "--library-path", ".", "--list", f"./{device.PROGRAM}"],
        cwd=folder, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    places = [line.split(" => ")[1].split()[0] for line in listed.splitlines() if " => " in line]
    assert places and all(place.startswith("./") for place in places), listed
