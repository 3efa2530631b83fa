"""t5g2-bench: what it measures is there and plausible (never how fast), and what is wrong is said in one line.

The environment variable T5G2_BENCH names another program than the installed one, such as one built with sanitizers.
"""

import csv
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from commands import error_line
from exported import CHECKPOINT_DIR, Limits, export
from native_programs import REPOSITORY
from PIL import Image

from t5g2 import runtime
from t5g2.benchmarks import picture, result

PROGRAM = os.environ.get("T5G2_BENCH") or str(Path(runtime.__path__[0]) / "t5g2-bench")
COMMAND = str(Path(sys.executable).with_name("t5g2-bench"))
SHORT = ["--source", "40", "--depth", "3", "--target", "4", "--repeat", "2", "--threads", "1"]


def run(*argv, program: str = PROGRAM, **options) -> SimpleNamespace:
    done = subprocess.run([program, *map(str, argv)], capture_output=True, text=True, timeout=120, **options)
    return SimpleNamespace(code=done.returncode, out=done.stdout, err=done.stderr)


def succeed(*argv, **options) -> str:
    done = run(*argv, **options)
    assert done.code == 0, done.err
    assert all(line.startswith("t5g2-bench: ") and "error" not in line for line in done.err.splitlines()), done.err
    return done.out


def refused(*argv, code: int = 1, **options) -> str:
    """The message of its one error line."""
    done = run(*argv, **options)
    assert done.code == code, done.err
    return error_line(done.out, done.err)


def report(*argv, **options) -> dict:
    return json.loads(succeed(*argv, "--output", "json", **options))


@pytest.fixture
def bundle(tiny_gqa):
    return tiny_gqa.bundle


def check_figure(figure: dict, repeat: int) -> None:
    assert len(figure["runs"]) == repeat and all(value > 0 for value in figure["runs"])
    assert figure["low"] <= figure["median"] <= figure["high"]
    assert [figure["low"], figure["median"]] == pytest.approx(list(np.quantile(figure["runs"], [0.25, 0.5])))


# --- what is measured ---


def test_every_combination_is_measured(bundle):
    found = report(bundle, "--threads", "1,2", "--source", "5,300", "--depth", "0,7-8", "--target", 3, "--repeat", 3)
    assert [(r["threads"], r["source"]) for r in found["results"]] == [(1, 5), (1, 300), (2, 5), (2, 300)]
    assert [row["threads"] for row in found["loading"]] == [1, 2]
    for measured in found["results"]:
        check_figure(measured["encode_tok_s"], 3)
        check_figure(measured["first_token_s"], 3)
        assert [d["depth"] for d in measured["decode"]] == [0, 7, 8]
        for decode in measured["decode"]:
            check_figure(decode["tok_s"], 3)
            share = decode["bytes_per_token"] * decode["tok_s"]["median"] / measured["read_gb_s"] / 1e9
            assert decode["bandwidth_share"] == pytest.approx(share)
        assert 0 < measured["loaded_mb"] <= measured["resident_mb"] <= measured["peak_mb"]
        assert measured["state_before"]["core_ghz"] > 0.1 and measured["throttling"]
        # The first token takes the encoder and a step, so at least as long as the encoder alone; four times for noise.
        encoder_s = measured["source"] / measured["encode_tok_s"]["high"]
        assert 4 * measured["first_token_s"]["high"] > encoder_s
    for row in found["loading"]:
        assert 0 < row["load_warm_s"] < 60 and (
            row["load_cold_s"] is None or 0 < row["load_cold_s"] < row["first_token_cold_s"]
        )
    assert found["machine"]["cores"] >= 1 and found["date"].endswith("Z")


def test_defaults_are_what_the_bundle_takes(bundle):
    found = report(bundle, "--repeat", 1, "--threads", 1)  # at most 320 source tokens and 64 target tokens
    assert [r["source"] for r in found["results"]] == [64]
    assert [(r["target"], [d["depth"] for d in r["decode"]]) for r in found["results"]] == [(64, [0])]


@pytest.mark.parametrize("quant", ["int8", "int4"])
def test_bytes_a_token_touches_are_those_recorded(nano_bundle, quant):
    """benchmarks/bytes_per_token.json: a change of format, padding or cache that makes a step read more is to be seen."""
    found = report(nano_bundle(quant), "--source", 512, "--depth", 8, "--target", 1, "--repeat", 1, "--threads", 1)
    recorded = json.loads((REPOSITORY / "benchmarks/bytes_per_token.json").read_text())
    assert found["results"][0]["decode"][0]["bytes_per_token"] == recorded[f"nano {quant}, source 512, depth 8"]


def test_bytes_a_token_touches_are_no_more_than_what_is_there(nano_bundle):
    """All of the text program but the encoder's layers is weights of the step; 40 source tokens of cross K/V are on top."""
    folder = nano_bundle("int4")
    found = report(folder, *SHORT)["results"][0]["decode"][0]["bytes_per_token"]
    assert (folder / "text.pte").stat().st_size / 3 < found < (folder / "text.pte").stat().st_size


def test_stock_backend(tiny_bundle):
    found = report(tiny_bundle(2, "xnnpack").bundle, *SHORT)
    [measured] = found["results"]
    assert measured["backend"] == "xnnpack" and "bytes_per_token" not in measured["decode"][0]
    assert " – |" in succeed(tiny_bundle(2, "xnnpack").bundle, *SHORT)


def test_pictures(nano_bundle):
    found = report(nano_bundle("int4"), *SHORT[2:], "--images", 1, "--source", 200)
    [measured] = found["results"]
    assert measured["images"] == 1 and measured["picture_s"] >= 0
    plain = report(nano_bundle("int4"), *SHORT[2:], "--source", 200)["results"][0]
    assert "picture_s" not in plain and plain["images"] == 0


def test_profile(bundle, tmp_path):
    trace = tmp_path / "trace.etdump"
    found = report(bundle, *SHORT, "--profile", trace)["profile"]
    assert trace.read_bytes()[8:12] == b"ED00"  # after its size, as a flatbuffer
    assert list(tmp_path.iterdir()) == [trace]
    for program, attention in [("encoder", "t5g2::attention"), ("decoder_step", "t5g2::merged_attention")]:
        names = {row["operator"]: row for row in found[program]}
        assert names[attention]["calls"] == {"encoder": 3, "decoder_step": 4}[program]
        rows = {"encoder": 40, "decoder_step": 1}[program]
        assert any(name.startswith("linear [") and name.endswith(f"] x {rows}") for name in names)
        assert all(row["ms"] >= 0 and row["calls"] > 0 for row in found[program])
    table = succeed(bundle, *SHORT, "--profile", trace)
    assert "\ndecoder_step, one run, " in table and "| t5g2::merged_attention | 4 |" in table


# --- how it is shown ---


def test_tables(bundle):
    out = succeed(bundle, *SHORT)
    speed, loading, last = out.split("\n\n")
    head, line, row = speed.splitlines()
    assert head.count("|") == line.count("|") == row.count("|")
    assert "decode tok/s at 3" in head and row.startswith("| bundle | float32 | 1 | 40 |")
    assert "load cold ms" in loading
    assert "2 runs; 4 tokens a decoding run" in last and "Command: `t5g2-bench " in last


def test_csv_has_every_figure(bundle):
    rows = list(csv.DictReader(io.StringIO(succeed(bundle, *SHORT, "--output", "csv"))))
    figures = {row["figure"]: row for row in rows}
    assert {"encode_tok_s", "first_token_s", "decode_tok_s", "bytes_per_token", "peak_mb", "load_warm_s"} <= figures.keys()
    assert figures["decode_tok_s"]["depth"] == "3" and figures["load_warm_s"]["source"] == ""
    for row in rows:
        assert row["bundle"] == "bundle" and float(row["low"]) <= float(row["median"]) <= float(row["high"])


def test_saved_and_drawn(bundle, tmp_path):
    saved, drawn = tmp_path / "results.json", tmp_path / "speed.png"
    out = succeed(bundle, *SHORT, "--save", saved, "--picture", drawn, program=COMMAND)
    assert out.startswith("| bundle |")
    assert Image.open(drawn).size[0] > 800
    assert len(result.read(saved)["results"]) == 1
    other = tmp_path / "again.svg"
    done = subprocess.run([sys.executable, "-m", "t5g2.benchmarks.picture", saved, saved, "-o", other])
    assert done.returncode == 0 and b"<svg" in other.read_bytes()
    assert sorted(tmp_path.iterdir()) == sorted([saved, drawn, other])


def test_python_command_is_the_program(bundle):
    assert succeed("--version", program=COMMAND) == succeed("--version")
    assert succeed("--help", program=COMMAND).startswith(succeed("--help"))
    assert json.loads(succeed(bundle, *SHORT, "--output", "json", program=COMMAND))["results"]


def test_labels_tell_results_apart():
    def one(**changes):
        return {"bundle": "a", "threads": 1, "source": 64, "images": 0} | changes

    results = [one(), one(threads=2), one(source=512), one(bundle="b")]
    assert [picture.label(r, results) for r in results] == [
        "a, 1 thread, source 64", "a, 2 threads, source 64", "a, 1 thread, source 512", "b, 1 thread, source 64",
    ]  # fmt: skip
    assert picture.label(one(images=2), [one(images=2)]) == "a, 2 images"


# --- the machine's counters, as the kernel shows them ---


@pytest.fixture
def sysfs(tmp_path):
    """`sysfs(path, value)` writes a file of a /sys of the test's own; `.environment` makes the program read it."""

    def write(path: str, value) -> None:
        file = tmp_path / "sys" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        replacement = file.with_suffix(".new")
        replacement.write_text(f"{value}\n")
        replacement.replace(file)

    write.environment = os.environ | {"T5G2_SYSFS": str(tmp_path / "sys")}
    return write


def test_energy_by_rapl(bundle, sysfs):
    counter, stop = "class/powercap/intel-rapl:0/energy_uj", threading.Event()
    sysfs(counter, 0)

    def burn():
        for microjoules in range(10**6, 10**12, 10**6):  # a joule every millisecond or more
            if stop.wait(0.001):
                return
            sysfs(counter, microjoules)

    thread = threading.Thread(target=burn)
    thread.start()
    try:
        found = report(bundle, *SHORT, "--source", 300, "--repeat", 200, env=sysfs.environment)
    finally:
        stop.set()
        thread.join()
    [measured] = found["results"]
    assert measured["energy_source"] == "rapl" and measured["encode_joules_per_token"] > 0
    assert "mJ a decoded token" in succeed(bundle, *SHORT, env=sysfs.environment)


@pytest.mark.parametrize(
    ("status", "counter", "source", "why"),
    [
        ("Charging", "charge_counter", None, "the battery is not discharging; unplug the device"),
        ("Discharging", "capacity", None, "the battery has no counter of charge or energy"),
        ("Discharging", "energy_now", "battery", None),
    ],
)
def test_energy_by_battery(bundle, sysfs, status, counter, source, why):
    for name, value in [("type", "Battery"), ("status", status), (counter, 3_000_000)]:
        sysfs(f"class/power_supply/battery/{name}", value)
    [measured] = report(bundle, *SHORT, env=sysfs.environment)["results"]
    assert measured["energy_source"] == source and measured.get("no_energy") == why
    assert measured["encode_joules_per_token"] is None  # the counter did not move


def test_throttling_is_seen(bundle, sysfs):
    for core, limit in enumerate([2_000_000, 1_200_000]):
        sysfs(f"devices/system/cpu/cpu{core}/cpufreq/cpuinfo_max_freq", 2_000_000)
        sysfs(f"devices/system/cpu/cpu{core}/cpufreq/scaling_max_freq", limit)
    sysfs("class/thermal/thermal_zone0/temp", 41_500)
    sysfs("class/thermal/thermal_zone1/temp", -274_000)
    found = report(bundle, *SHORT, env=sysfs.environment)["results"][0]
    assert found["state_before"]["frequency_limit"] == 0.6 and found["state_after"]["celsius"] == 41.5
    assert found["throttling"] == "a core is held to 60 % of its frequency"
    assert "Throttled: bundle, 1 threads" not in succeed(bundle, *SHORT)
    assert "is held to 60 % of its frequency; measure again when it is cool" in succeed(bundle, *SHORT, env=sysfs.environment)


def test_it_waits_until_the_cpu_is_cool(bundle, sysfs):
    zone = "class/thermal/thermal_zone0/temp"
    sysfs(zone, 40_000)
    argv = [PROGRAM, str(bundle), *SHORT, "--cool-down", "60", "--output", "json"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=sysfs.environment) as running:
        assert "cold" in running.stderr.readline()  # it has looked at the zone, and measures
        sysfs(zone, 80_000)
        threading.Timer(2, lambda: sysfs(zone, 42_000)).start()
        found = json.loads(running.stdout.read())
    assert found["results"][0]["state_before"]["celsius"] == 42


def test_cores(bundle):
    core = min(os.sched_getaffinity(0))
    found = report(bundle, *SHORT[:-2], "--cores", core)
    assert found["pinned"] == [core] and found["results"][0]["threads"] == 1


def test_kernels(bundle):
    assert report(bundle, *SHORT, "--kernels", "portable")["results"][0]["kernels"] == "portable"


# --- what is wrong ---


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "no bundle; give folders made by t5g2-export (see t5g2-bench --help)"),
        (["--frobnicate"], "--frobnicate: no such option (see t5g2-bench --help)"),
        (["--threads", "0", "x"], "--threads '0': give a whole number from 1 to 256"),
        (["--threads", "1,,2", "x"], "--threads '': give a whole number"),
        (["--threads", "2-1", "x"], "--threads '1': give a whole number from 2 to 256"),
        (["--threads", "1,2,1", "x"], "--threads '1,2,1': gives a number twice"),
        (["--source"], "--source: give LIST after it"),
        (["--depth", "-1", "x"], "--depth '-1': give a whole number from 0 to 16777216"),
        (["--output", "xml", "x"], "--output 'xml': give md, csv or json"),
        (["--repeat", "0", "x"], "--repeat '0': give a whole number from 1 to 10000"),
        (["--profile", "f", "x", "y"], "--profile: give one bundle, one number of --threads and one --source with it"),
        (["--kernels", "mmx", "x"], "--kernels mmx: this CPU has no such kernels; it has portable"),
        (["--cores", "1000", "x"], "--cores: core 1000 is not there, or not given to this program; see /proc/cpuinfo"),
    ],
)
def test_misuse(argv, message):
    assert refused(*argv, code=2).startswith(message)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--source", "321"], "--source 321; give 1 to 320"),
        (["--target", "65"], "--target 65 is longer than the bundle takes; give at most 64, or export with --max-target 65"),
        (["--target", "60", "--depth", "5"], "with 60 tokens after it, --depth 5; give 0 to 4"),
    ],
)
def test_what_the_bundle_does_not_take(tmp_path, bundle, argv, message):
    done = run(bundle, *argv)
    assert done.code in (1, 2) and error_line(done.out, done.err) == f"{bundle}: {message}"


def test_pictures_that_it_does_not_take(nano_bundle, tmp_path):
    assert " source tokens, and the bundle takes 2048; give fewer, or export with --max-source " in refused(
        nano_bundle("int4"), "--images", 1000
    )
    text_only = export(CHECKPOINT_DIR, tmp_path / "text", "int4", Limits(), with_vision=False)
    assert refused(text_only, "--images", 1) == (
        f"{text_only}: a bundle without vision, so --images 1 can't be had; export without --no-vision"
    )


def test_missing_and_damaged_bundles(bundle, tmp_path):
    assert refused(tmp_path / "none") == f"{tmp_path}/none: no such bundle; give a folder made by t5g2-export"
    damaged = shutil.copytree(bundle, tmp_path / "damaged")
    with open(damaged / "text.pte", "r+b") as file:
        file.truncate(1000)
    assert "text.pte" in refused(damaged)
    assert run(bundle, damaged, *SHORT).out == ""  # nothing is measured where a later bundle is wrong


def test_too_little_memory(bundle):
    limit = 64 << 20

    def limited():
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    message = refused(bundle, "--threads", 2, preexec_fn=limited)
    assert message == (
        "--threads 2: measuring how fast memory is read takes 268 MB, and 67 MB are available; close other programs, or give "
        "fewer threads"
    )


def test_a_bundle_that_does_not_fit_in_memory(nano_bundle):
    folder = nano_bundle("int4")
    limit = (folder / "text.pte").stat().st_size

    def limited():
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

    done = run(folder, *SHORT, preexec_fn=limited)
    assert done.code == 1 and "memory" in done.err.splitlines()[-1] and "Traceback" not in done.err


def test_results_that_cannot_be_written(bundle, tmp_path):
    done = run(bundle, *SHORT, "--save", tmp_path / "none" / "results.json")
    assert done.code == 1 and "none/results.json" in done.err.splitlines()[-1]
    assert refused(bundle, "--picture", tmp_path / "x.gif", code=2, program=COMMAND).endswith(
        "a picture ends in .png, .svg, .pdf"
    )
    assert refused(bundle, "--picture", code=2, program=COMMAND) == "--picture: give FILE after it"


def test_results_that_cannot_be_read(tmp_path):
    for text, what in [("", "not a result"), ("[]", "not a result"), ('{"format": "t5g2-bench"}', "format None")]:
        file = tmp_path / "results.json"
        file.write_text(text)
        with pytest.raises(ValueError, match=f"results.json: {what}"):
            result.read(file)


def test_a_killed_program_leaves_nothing_running(bundle):
    words = [PROGRAM, bundle, *SHORT, "--repeat", "10000"]
    bench = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    next(line for line in bench.stderr if line.endswith(", source 40\n"))  # this takes a minute, in a process of its own
    children = Path(f"/proc/{bench.pid}/task/{bench.pid}/children")
    while not (found := children.read_text().split()):
        assert bench.poll() is None
    child = Path("/proc", found[0])
    bench.kill()
    assert bench.wait() == -signal.SIGKILL
    until = time.monotonic() + 5
    while child.exists() and time.monotonic() < until:
        time.sleep(0.02)
    assert not child.exists()
