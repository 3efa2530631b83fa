"""Measuring on a device: adb and ssh are programs of the test's own, which act on a folder as if it were one.

Most tests run this machine's t5g2-bench behind a loader that only calls it; one runs the arm64 build under qemu, and the last
ones measure on this machine through a real sshd (tests/local_sshd.py).
"""

import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from emulated import need_arm
from local_sshd import sshd  # noqa: F401, a fixture

from t5g2 import runtime
from t5g2.benchmarks import compare, connection, device, devices, result, rounds
from t5g2.benchmarks.cores import Core, big_cores, numbers, parse_cores, ranges
from t5g2.runtime.package_linux.toolchain import LOADERS

BENCH = os.environ.get("T5G2_BENCH") or str(Path(runtime.__path__[0]) / "t5g2-bench")
SHORT = ["--", "--source", "16", "--depth", "0", "--target", "2", "--repeat", "2", "--threads", "1"]
ADB, SSH = ["--adb"], ["--ssh", "board"]
LOADER = LOADERS["aarch64"]  # the fake device says that it is one
ON_DEVICE = Path(device.__file__).with_name("on_device.sh")

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
    environment = os.environ | {{"PATH": path, "HOME": f"{{device}}/home", "T5G2_SYSFS": f"{{device}}/sys",
                                 "T5G2_DEVICE_TREE": f"{{device}}/tree"}}
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
        if plan.get("alters") == Path(local).name:
            with open(str(device) + remote, "r+b") as file:
                file.write(b"?")
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
    "getprop": 'case "$1" in *product.model) echo "Phone 1";; *soc.model) echo SM1;; *release) echo 14;; *) echo;; esac',
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
    script(tmp_path / "program" / LOADER, '#!/bin/sh\nshift 2\nexec "$@"\n')
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
    expected = ("Phone 1", "Phone 1", "SM1", "Android 14") if way == ADB else ("board", None, None, "Linux 5.10")
    assert tuple(found["device"][key] for key in ("name", "model", "soc", "system")) == expected
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


# --- big cores ---


def set_cores(fake, capacities: list, khz: list) -> None:
    folder = fake.folder / "sys/devices/system/cpu"
    shutil.rmtree(folder)
    for number, (capacity, frequency) in enumerate(zip(capacities, khz)):
        (folder / f"cpu{number}/cpufreq").mkdir(parents=True)
        if capacity:
            (folder / f"cpu{number}/cpu_capacity").write_text(f"{capacity}\n")
        if frequency:
            (folder / f"cpu{number}/cpufreq/cpuinfo_max_freq").write_text(f"{frequency}\n")
    (folder / "cpufreq").mkdir()  # where the system has its policies, is no core


@pytest.mark.parametrize(
    ("capacities", "khz", "big"),
    [
        ([382] * 6 + [1024] * 2, [2000] * 6 + [2200] * 2, [6, 7]),  # two A76 and six A55: by frequency alone all are alike
        ([1024, 1024, 300], [None] * 3, [0, 1]),
        ([None] * 8, [1900] * 4 + [2400] * 4, [4, 5, 6, 7]),
        ([None] * 8, [3530] * 6 + [4320] * 2, [0, 1, 2, 3, 4, 5, 6, 7]),
        ([None] * 4, [2400] * 4, [0, 1, 2, 3]),
        ([1024, None], [None, 2000], []),
        ([], [], []),
    ],
)
def test_big_cores(capacities, khz, big):
    assert big_cores([Core(i, *pair) for i, pair in enumerate(zip(capacities, khz))]) == big


def test_cores_of_a_device(fake):
    set_cores(fake, [250, 1024, None], [1800, None, 2000])
    found = parse_cores(connection.Adb().run(connection.CORES_SCRIPT).output.replace("Cpus_allowed", "other"))
    assert found == [(0, 250, 1800), (1, 1024, None), (2, None, 2000)]
    (fake.folder / "sys/devices/system/cpu/online").write_text("0-1\n")
    allowed = os.sched_getaffinity(0) & {0, 1}
    assert [core.number for core in connection.Adb().cores()] == sorted(allowed)
    shutil.rmtree(fake.folder / "sys")
    assert connection.Adb().cores() == []


def test_lists_of_cores():
    assert ranges([5, 0, 1, 2, 7, 6]) == "0-2,5-7" and ranges([3]) == "3" and ranges([]) == ""
    assert numbers("0-2,5,7-8") == {0, 1, 2, 5, 7, 8}


def cores_chosen(capsys, fake, *words: str) -> tuple[str | None, str]:
    args = device.parse([*ADB, "bundle", *words])
    chosen = device.cores_to_use(args, connection.Adb())
    return chosen, capsys.readouterr().err


def test_which_cores_are_used(capsys, fake):
    mine = sorted(os.sched_getaffinity(0))[:2]
    if len(mine) < 2:
        pytest.skip("one core only")
    set_cores(fake, [1024 if i == mine[1] else 200 for i in range(mine[1] + 1)], [1000] * (mine[1] + 1))
    assert cores_chosen(capsys, fake) == (None, "")
    chosen, err = cores_chosen(capsys, fake, "--big-cores")
    assert chosen == str(mine[1]) and f"X1: the big cores are {mine[1]}, of " in err
    assert cores_chosen(capsys, fake, "--big-cores", "--cores", "0") == ("0", "")
    set_cores(fake, [1024] * (mine[1] + 1), [1000] * (mine[1] + 1))
    chosen, err = cores_chosen(capsys, fake, "--big-cores")
    assert chosen is None and "all cores are big" in err
    shutil.rmtree(fake.folder / "sys/devices/system/cpu")
    chosen, err = cores_chosen(capsys, fake, "--big-cores")
    assert chosen is None and "tells no cores apart" in err


# --- the table of devices ---


def test_rows_are_added_to_the_table(measure, fake, tmp_path):
    for name, text in (("model", "Board 5\0"), ("compatible", "maker,board-5\0maker,soc-5\0")):
        (fake.folder / "tree").mkdir(exist_ok=True)
        (fake.folder / "tree" / name).write_text(text)
    table = tmp_path / "devices.md"
    table.write_text(f"# Devices\n\n{devices.HEAD_LINE}\n{devices.RULE_LINE}\n| old |\n\nafter it\n")
    fake.plan(limits=[1000, 600, 1000])
    done = measure([*SSH, "--record", str(table), "--by", "Ada"])
    assert done.code == 0, done.err
    lines = table.read_text().splitlines()
    assert lines[:5] == ["# Devices", "", devices.HEAD_LINE, devices.RULE_LINE, "| old |"] and lines[6:] == ["", "after it"]
    cells = [cell.strip() for cell in lines[5].strip("|").split("|")]
    row = dict(zip(devices.HEAD, cells, strict=True))
    [measured] = done.report["results"]
    assert [row[key] for key in ("device", "SoC", "bundle")] == ["Board 5", "maker,soc-5", "int4"]
    assert (row["threads"], row["source"]) == ("1", "16")
    assert row["encode tok/s"] == devices.spread(measured["encode_tok_s"])
    assert row["decode tok/s at depth"] == f"{devices.spread(measured['decode'][0]['tok_s'])} at 0"
    assert row["throttled"] == "in 1 of 3 rounds, left out" and row["measured by"] == "Ada"
    assert row["JSON"] == "[JSON](results.json)" and row["t5g2"] == done.report["version"]
    assert row["cores"] == f"all {done.report['machine']['cores']}" and row["resident MB"] == f"{measured['resident_mb']:.0f}"
    assert not list(tmp_path.glob(".*"))


def test_a_new_table_and_a_named_report(fake, program, nano_bundle, tmp_path):
    (tmp_path / "results").mkdir()
    table = tmp_path / "tables.md"
    words = [*ADB, "--rounds", "1", "--record", str(table), "--output", str(tmp_path / "results")]
    assert device.main([*words, "--program", str(program), str(nano_bundle("int4")), *SHORT]) == 0
    [file] = (tmp_path / "results").iterdir()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d-phone-1-int4\.json", file.name)
    head, rule, row = table.read_text().splitlines()
    assert (head, rule) == (devices.HEAD_LINE, devices.RULE_LINE) and row.endswith(f"| – | [JSON](results/{file.name}) |")


def test_a_file_without_a_table(measure, tmp_path):
    (tmp_path / "notes.md").write_text("notes\n")
    message = refused(measure([*ADB, "--record", str(tmp_path / "notes.md")]))
    assert message.startswith(f"{tmp_path}/notes.md: has no table of devices that begins with | date | device |")
    assert (tmp_path / "notes.md").read_text() == "notes\n"


def test_the_table_in_the_repository_takes_rows():
    devices.check(Path(devices.__file__).with_name("devices.md"))


# --- on_device.sh ---


@pytest.fixture
def on_device(tmp_path, monkeypatch):
    """Runs a copy of the script beside a device.py that prints its words; returns the process."""
    (tmp_path / "it's").mkdir()
    script(tmp_path / "it's/benchmarks/on_device.sh", ON_DEVICE.read_text())
    (tmp_path / "it's/benchmarks/device.py").write_text("import json, sys; print(json.dumps(sys.argv[1:]))")

    def run(*words: str, **environment: str) -> subprocess.CompletedProcess:
        command = [tmp_path / "it's/benchmarks/on_device.sh", *words]
        return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, cwd=tmp_path)

    return run


def test_on_device_has_good_defaults(on_device, tmp_path):
    here = f"{tmp_path}/it's/benchmarks"
    usual = ["--big-cores", "--cool-down", "60", "--rounds", "3"]
    usual += ["--output", f"{here}/results", "--record", f"{here}/devices.md"]
    last = ["--", "--source", "512", "--depth", "256"]
    done = on_device("out/a b", PYTHON=sys.executable)
    assert json.loads(done.stdout) == ["--adb", *usual, "out/a b", *last], done.stderr
    assert json.loads(on_device("--ssh", "pi", "b", "--rounds", "5", PYTHON=sys.executable).stdout) == [
        *usual, "--ssh", "pi", "b", "--rounds", "5", *last,
    ]  # fmt: skip
    given = ["--ssh=pi", "b", "--", "--threads", "1"]
    assert json.loads(on_device(*given, PYTHON=sys.executable).stdout) == [*usual, *given]
    assert device.parse([*usual[:-4], "--rounds", "5", "--ssh", "pi", "b", *last]).rounds == 5


def test_on_device_without_a_python(on_device, tmp_path):
    script(tmp_path / "bin/dirname", '#!/bin/sh\nexec /usr/bin/dirname "$@"\n')
    done = on_device("b", PATH=str(tmp_path / "bin"), PYTHON="", VIRTUAL_ENV="/none")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == (
        "on_device.sh: error: no Python with t5g2; run `make demo`, or pip install -e '.[test]' into an environment\n"
    )


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


@pytest.mark.parametrize("summed", [True, False], ids=["sha256sum", "wc"])
def test_a_file_that_arrives_altered(fake, files, summed):
    if not summed:
        fake.command("sha256sum", "exit 127")
        fake.command("wc", "echo 999")
    fake.plan(alters="two words" if summed else None)
    phone = connection.Adb()
    name = "two words" if summed else "one"
    with pytest.raises(connection.DeviceError, match=f"^X1: {name}: arrived altered; check cable or network and the device's"):
        phone.push(files, f"{phone.folder}/files")
    there = fake.folder / "data/local/tmp/t5g2-bench/files"
    assert [path.name for path in there.iterdir()] == (["one"] if summed else [])
    fake.plan()
    assert name in (phone.push(files, f"{phone.folder}/files") if summed else [name])


def test_a_push_that_breaks_leaves_nothing_half_written(fake, files, monkeypatch):
    def send(phone, local, remote):
        if local.name == "two words":
            phone.run(f"printf half > '{remote}'")
            raise connection.DeviceError("X1: adb fails (device offline)")
        original(phone, local, remote)

    original = connection.Adb.send
    monkeypatch.setattr(connection.Adb, "send", send)
    phone = connection.Adb()
    with pytest.raises(connection.DeviceError, match="^X1: adb fails"):
        phone.push(files, f"{phone.folder}/files")
    assert [path.name for path in (fake.folder / "data/local/tmp/t5g2-bench/files").iterdir()] == ["one"]


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


def test_a_device_of_another_kind(measure, fake, program):
    fake.command("uname", "echo armv7l")
    assert refused(measure(ADB)) == "X1: is armv7l, and t5g2 is for arm64 and x86-64; give a device of these"
    fake.command("uname", "echo x86_64")
    assert refused(measure(ADB)) == f"--program {program}: is for aarch64, and the device is x86_64; give one for x86_64"


def test_a_connection_that_breaks(fake):
    script(fake.folder.parent / "path/adb", "#!/bin/sh\necho t5g2-begin\n")
    phone = connection.Adb.__new__(connection.Adb)
    phone.serial = phone.name = "X1"
    with pytest.raises(connection.DeviceError, match="X1: the connection broke"):
        _ = phone.machine


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
    (program / LOADER).unlink()
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
        (["--adb", "b", "--record", "none/d.md"], "--record none/d.md: there is no folder"),
    ],
)
def test_misuse(capsys, words, message):
    with pytest.raises(SystemExit) as ended:
        device.main(words)
    assert ended.value.code == 2 and message in capsys.readouterr().err.splitlines()[-1]


# --- the arm64 program ---


def test_arm64_program_as_it_is_pushed(fake, nano_bundle, tmp_path, capsys):
    need_arm()
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
        ["qemu-aarch64-static", f"./{LOADER}", "--library-path", ".", "--list", f"./{device.PROGRAM}"],
        cwd=folder, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    places = [line.split(" => ")[1].split()[0] for line in listed.splitlines() if " => " in line]
    assert places and all(place.startswith("./") for place in places), listed


# --- this machine through a real sshd ---


@pytest.fixture
def slow(program, tmp_path):
    """A folder as --program takes one for this machine, whose program takes a minute: its number is in `.pid`."""
    folder = tmp_path / "slow"
    script(folder / LOADERS[platform.machine()], '#!/bin/sh\nshift 2\nexec "$@"\n')
    (tmp_path / "as").mkdir()
    (tmp_path / "as/t5g2-bench").symlink_to(shutil.which("sleep"))
    script(folder / "t5g2-bench", f'#!/bin/sh\necho $$ > "{tmp_path}/slow.pid"\nexec "{tmp_path}/as/t5g2-bench" 60\n')
    return SimpleNamespace(folder=folder, pid=tmp_path / "slow.pid")


def test_this_machine_over_ssh(sshd, nano_bundle, tmp_path):  # noqa: F811
    """No --program: the one that is installed here, with its own loader and libraries."""
    words = ["--ssh", "board", "--rounds", "2", "--big-cores", "--clean", "--output", str(tmp_path / "r.json")]
    words += ["--record", str(tmp_path / "d.md"), str(nano_bundle("int4")), *SHORT]
    done = sshd.run([sys.executable, device.__file__, *words])
    assert done.returncode == 0, done.stderr
    report = result.read(tmp_path / "r.json")
    assert len(report["results"][0]["encode_tok_s"]["runs"]) in (2, 4)  # a shared machine's clock moves
    assert report["device"]["over"] == "ssh" and report["device"]["name"] == platform.node()
    assert "| int4 | 1 | 16 |" in done.stdout and "| int4 | 1 | 16 |" in (tmp_path / "d.md").read_text()
    assert not (sshd.home / ".cache/t5g2-bench").exists()


def test_pushing_to_a_full_disk_and_to_a_closed_port(sshd, monkeypatch):  # noqa: F811
    monkeypatch.setenv("PATH", sshd.path)
    board = connection.Ssh("board")
    with pytest.raises(connection.DeviceError, match=r"board: ssh fails \(.*(No space left|ENOSPC|error writing).*\)"):
        board.send(Path(__file__), "/dev/full")
    sshd.stop()
    with pytest.raises(connection.DeviceError, match=r"board: ssh fails \(.*(refused|reset|closed).*\)"):
        board.run("true")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_an_interrupted_command_ends_the_program_there(sshd, slow, tmp_path, number):  # noqa: F811
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle/manifest.json").touch()
    words = [sys.executable, device.__file__, "--ssh", "board", "--program", str(slow.folder), str(tmp_path / "bundle")]
    command = sshd.start([*words, "--output", str(tmp_path / "r.json")])
    until = time.monotonic() + 60
    while not slow.pid.exists() or not slow.pid.read_text():
        assert command.poll() is None and time.monotonic() < until, command.stderr.read()
        time.sleep(0.05)
    pid = int(slow.pid.read_text())
    assert Path(f"/proc/{pid}").exists()
    command.send_signal(number)
    assert command.wait(timeout=60) == (130 if number == signal.SIGINT else 128 + number), command.stderr.read()
    ended = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < ended:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()
    assert not (tmp_path / "r.json").exists() and not (sshd.home / ".cache/t5g2-bench/pid").exists()


def test_what_a_killed_command_left_is_ended_by_the_next(fake):
    left = subprocess.Popen(["t5g2-bench", "60"], executable=shutil.which("sleep"))
    other = subprocess.Popen(["sleep", "60"])
    phone = connection.Adb()
    phone.run(f"mkdir -p {phone.folder}")
    try:
        for process in (left, other):
            phone.run(f"echo {process.pid} > {phone.folder}/pid")
            phone.stop("t5g2-bench")
        assert left.wait(timeout=10) == -signal.SIGTERM and other.poll() is None
        phone.stop("t5g2-bench")  # nothing there
    finally:
        for process in (left, other):
            process.kill()
            process.wait()
