"""What is left after a kill or a full disk: nothing that looks like a bundle or a session."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import t5g2
from t5g2.runtime.bundle import open_bundle

EXPORT = [Path(sys.executable).with_name("t5g2-export"), "--size", "nano", "--quant", "int4", "-o"]
RUN = Path(sys.executable).with_name("t5g2-run")


def limit_files(size: int):
    """For a child: writing beyond `size` bytes of a file fails, as on a full disk."""

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


def test_a_killed_export(tmp_path):
    target = tmp_path / "bundle"
    export = subprocess.Popen([*EXPORT, target], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob(".bundle.*.part/tokenizer.bin")):
        assert export.poll() is None
        time.sleep(0.01)
    export.kill()
    assert export.wait() == -signal.SIGKILL
    assert not target.exists()
    subprocess.run([*EXPORT, target], check=True, capture_output=True)
    open_bundle(target)


def test_an_export_to_a_full_disk(tmp_path):
    done = subprocess.run([*EXPORT, tmp_path / "b"], capture_output=True, text=True, preexec_fn=limit_files(100_000))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("t5g2-export: error: ") and "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == []


def test_a_session_to_a_full_disk(nano_bundle, tmp_path):
    command = [RUN, nano_bundle("int4"), "--prompt", "ISO date: 3 March 2021", "--save-session", tmp_path / "s", "--no-cache"]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit_files(1000))
    assert done.returncode == 1 and f"{tmp_path}/s: cannot write it (File too large); free some space" in done.stderr
    assert os.listdir(tmp_path) == []


def test_a_session_over_another_one(nano_bundle, tmp_path):
    model = t5g2.load(nano_bundle("int4"))
    path = tmp_path / "s"
    for prompt in ("ISO date: 3 March 2021", "ISO date: 4 May 1999"):
        model.session(prompt).save(path)
        assert model.load_session(path).ids == model.source_ids(prompt)
    with pytest.raises(t5g2.T5g2Error, match="gone/s: cannot write it .*check the path"):
        model.session("x").save(tmp_path / "gone" / "s")
    assert os.listdir(tmp_path) == ["s"]
