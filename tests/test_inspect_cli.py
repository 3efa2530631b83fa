"""t5g2-inspect: what a bundle holds, without loading a program."""

import json
import os

import pytest
from commands import error_line, fail, run_process, succeed
from exported import TINY_LIMITS

from t5g2.runtime import program
from t5g2.runtime.bundle import open_bundle
from t5g2.runtime.inspect import main, memory_estimate


@pytest.fixture(autouse=True)
def no_loading(monkeypatch):
    monkeypatch.setattr(program._C, "_load_program", lambda *_, **__: pytest.fail("loads a program"))


def test_table(capsys, tiny_gqa):
    text = succeed(capsys, main, tiny_gqa.bundle)
    rows, what = {}, None
    for line in text.splitlines():
        if len(cells := [cell.strip() for cell in line.split("│")[1:-1]]) == 2:
            what = cells[0] or what  # a line without a name continues the one above
            rows[what] = f"{rows.get(what, '')} {cells[1]}".strip()
    assert rows["encoder"] == "3 layers (1 with full attention), hidden 64, 4 heads over 2 kv heads of 32, window 16"
    assert rows["decoder"].startswith("4 layers (1 with full attention)")
    assert rows["vocabulary"] == "300" and rows["images"] == "56 x 56, 4 tokens each"
    assert rows["text weights"] == rows["embedding weights"] == rows["vision weights"] == rows["K/V cache"] == "float32"
    assert rows["longest source"] == "320 tokens" and rows["longest target"] == "64 tokens"
    for name, size in {"weights, mapped": "weights", "self cache": "self_cache"}.items():
        assert rows[name] == f"{memory_estimate(open_bundle(tiny_gqa.bundle))[size] / 1e6:.1f} MB"
    flat = "".join(text.replace("│", " ").split())
    for file in open_bundle(tiny_gqa.bundle).manifest["files"].values():
        assert file["sha256"] in flat  # folded at most, never cut
    assert "text.pte(encoder,decoder_step)" in flat and "torch2.13" in flat


def test_json(capsys, tiny_gqa):
    found = json.loads(succeed(capsys, main, tiny_gqa.bundle, "--json"))
    memory = found.pop("memory_estimate")
    assert found == json.loads((tiny_gqa.bundle / "manifest.json").read_text())
    sizes = [(tiny_gqa.bundle / name).stat().st_size for name in ("text.pte", "vision.pte")]
    row_bytes = 2 * 2 * 32 * 4  # key and value, two kv heads of 32 in float32
    slots = [16 + TINY_LIMITS.max_rows, TINY_LIMITS.max_target, *[16 + TINY_LIMITS.max_rows] * 2]
    assert memory["weights"] == sum(sizes)
    assert memory["self_cache"] == row_bytes * sum(slots)
    assert memory["cross_kv"] == row_bytes * 4 * TINY_LIMITS.max_source
    assert memory["planned"] == sum(found["memory"]["planned_bytes"].values()) > 0


def test_refusals(capsys, tmp_path):
    failed = fail(capsys, main, tmp_path / "gone")
    assert (failed.code, failed.line) == (1, f"{tmp_path / 'gone'}: no such bundle; give a folder made by t5g2-export")
    failed = fail(capsys, main, tmp_path)
    assert failed.code == 1 and "not a bundle (no manifest.json)" in failed.line
    failed = fail(capsys, main)
    assert failed.code == 2 and "required: bundle" in failed.line


def test_exit_codes_of_the_process(tiny_gqa, tmp_path):
    """A truncated program: the command says so, and starts without torch."""
    for file in tiny_gqa.bundle.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert run_process("t5g2.runtime.inspect", tmp_path, "--json").code == 0
    os.truncate(tmp_path / "text.pte", 1000)
    done = run_process("t5g2.runtime.inspect", tmp_path)
    assert done.code == 1 and "text.pte: 1000 bytes where" in error_line(done.out, done.err)
