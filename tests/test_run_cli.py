"""t5g2-run: prompts in, answers out, and everything that can be wrong with either."""

import io
import shutil
import sys

import numpy as np
import pytest
from commands import error_line, fail, run_process, succeed
from PIL import Image

from t5g2.runtime.run import main

TEXT = "w10 w20 w30"
MARKER = "<start_of_image>"


@pytest.fixture
def bundle(tiny_gqa):
    return tiny_gqa.bundle


@pytest.fixture
def picture(tmp_path):
    file = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)).save(file)
    return file


@pytest.fixture
def stdin(monkeypatch):
    """`stdin(bytes)`: what the command then reads."""
    return lambda content: monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


# --- prompts ---


def test_prompt(capsys, bundle, tiny_gqa):
    expected = tiny_gqa.model.generate(TEXT, max_new_tokens=8).text
    assert succeed(capsys, main, bundle, "--prompt", TEXT, "--max-new-tokens", 8) == expected + "\n"


def test_prompt_from_a_file_and_from_stdin(capsys, bundle, tiny_gqa, tmp_path, stdin):
    expected = tiny_gqa.model.generate(TEXT, max_new_tokens=8).text + "\n"
    file = tmp_path / "prompt.txt"
    for end in ("", "\n", "\r\n"):
        file.write_bytes(f"{TEXT}{end}".encode())
        assert succeed(capsys, main, bundle, "--file", file, "--max-new-tokens", 8) == expected
        for option in ([], ["--file", "-"]):
            stdin(file.read_bytes())
            assert succeed(capsys, main, bundle, *option, "--max-new-tokens", 8) == expected


def test_ids(capsys, bundle, tiny_gqa):
    expected = tiny_gqa.model.generate([2, 10, 20], max_new_tokens=8).ids
    for ids in ("2 10 20", "2,10, 20"):
        out = succeed(capsys, main, bundle, "--ids", ids, "--max-new-tokens", 8)
        assert [int(word) for word in out.split()] == expected and out.endswith("\n")


def test_ids_when_text_was_held_back(capsys, bundle, tiny_gqa):
    """A stop string that begins but does not come: its text comes at the end, without an id."""
    expected = tiny_gqa.model.generate([2, 10, 20], max_new_tokens=8)
    out = succeed(capsys, main, bundle, "--ids", "2 10 20", "--max-new-tokens", 8, "--stop", expected.text[-2:] + " never")
    assert [int(word) for word in out.split()] == expected.ids


def test_images(capsys, bundle, tiny_gqa, picture):
    source = f"{MARKER} w10 {MARKER} w11"
    expected = tiny_gqa.model.generate(source, [picture, picture], max_new_tokens=8).text
    out = succeed(capsys, main, bundle, "--prompt", source, "--image", picture, "--image", picture, "--max-new-tokens", 8)
    assert out == expected + "\n"


def test_generation_options(capsys, bundle, tiny_gqa):
    options = ["--temperature", "1.5", "--top-k", "40", "--top-p", "0.9", "--seed", "4", "--min-new-tokens", "2"]
    out = succeed(capsys, main, bundle, "--prompt", TEXT, "--max-new-tokens", 12, "--allow-unused", *options)
    expected = tiny_gqa.model.generate(
        TEXT, max_new_tokens=12, temperature=1.5, top_k=40, top_p=0.9, seed=4, min_new_tokens=2, suppress_unused=False
    )
    assert out == expected.text + "\n"


def test_stop(capsys, bundle, tiny_gqa):
    whole = tiny_gqa.model.generate(TEXT, max_new_tokens=12).text
    string = whole.split()[4]
    out = succeed(capsys, main, bundle, "--prompt", TEXT, "--max-new-tokens", 12, "--stop", string)
    assert out == whole.split(string)[0] + "\n"


# --- usage errors, exit 2 ---


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--prompt", "a", "--ids", "2"], "give one of --prompt, --file and --ids, not 2"),
        (["--ids", "2 x"], "--ids '2 x': give whole numbers separated by spaces"),
        (["--ids", "2 1.5"], "--ids '2 1.5': give whole numbers separated by spaces"),
        (["--prompt", "a", "--max-new-tokens", "0"], "max_new_tokens: 0; give 1 to 64, the bundle's --max-target"),
        (["--prompt", "a", "--max-new-tokens", "65"], "max_new_tokens: 65; give 1 to 64, the bundle's --max-target"),
        (["--prompt", "a", "--temperature", "-1"], "temperature: -1.0; give 0 (greedy) or more"),
        (["--prompt", "a", "--top-p", "2"], "top_p: 2.0; give more than 0 and at most 1 (1 keeps every token)"),
        (["--prompt", "a", "--threads", "0"], "threads: 0; must be at least 1"),
        (["--prompt", "a", "--seed", "x"], "argument --seed: invalid int value: 'x' (see t5g2-run --help)"),
    ],
)
def test_usage(capsys, bundle, argv, message):
    failed = fail(capsys, main, bundle, *argv)
    assert (failed.code, failed.line) == (2, message)


def test_no_prompt(capsys, bundle, stdin, monkeypatch):
    stdin(b"")
    failed = fail(capsys, main, bundle)
    assert failed.code == 2 and failed.line.startswith("no prompt, stdin is empty; give --prompt TEXT")
    sys.stdin.isatty = lambda: True
    failed = fail(capsys, main, bundle)
    assert failed.code == 2 and failed.line.startswith("no prompt; give --prompt TEXT")
    monkeypatch.setattr(sys, "stdin", None)
    assert fail(capsys, main, bundle).code == 2


# --- inputs that are wrong, exit 1 ---


def refused(capsys, *argv) -> str:
    failed = fail(capsys, main, *argv)
    assert failed.code == 1
    return failed.line


def test_a_source_over_the_limit(capsys, bundle):
    line = refused(capsys, bundle, "--prompt", "w9 " * 320)
    assert line == "the source: 321 tokens, and this bundle takes 320; shorten it, or export with --max-source 321"


def test_ids_outside_the_vocabulary(capsys, bundle):
    line = refused(capsys, bundle, "--ids", "2 300")
    assert line == "the source: id 300 is outside the vocabulary of 300; use this model's tokenizer"
    assert refused(capsys, bundle, "--ids", "") == "the source: no tokens; give at least one"


def test_image_counts(capsys, bundle, picture):
    line = refused(capsys, bundle, "--prompt", "w9", "--image", picture)
    assert line.startswith("the text has 0 <start_of_image> marker(s) and 1 image(s)")
    line = refused(capsys, bundle, "--prompt", MARKER)
    assert line.startswith("the text has 1 <start_of_image> marker(s) and 0 image(s)")


def test_broken_images(capsys, bundle, picture, tmp_path):
    assert refused(capsys, bundle, "--prompt", MARKER, "--image", tmp_path / "gone.png") == (
        f"{tmp_path / 'gone.png'}: no such image file; check the path"
    )
    picture.write_bytes(picture.read_bytes()[:-500])
    assert refused(capsys, bundle, "--prompt", MARKER, "--image", picture).startswith(f"{picture}: damaged image file")
    picture.write_text("no picture")
    assert refused(capsys, bundle, "--prompt", MARKER, "--image", picture).startswith(f"{picture}: not an image")


def test_broken_files(capsys, bundle, tmp_path, stdin):
    file = tmp_path / "prompt.txt"
    assert refused(capsys, bundle, "--file", file) == f"{file}: no such file or directory; check the path"
    assert str(tmp_path) in refused(capsys, bundle, "--file", tmp_path)
    file.write_bytes(b"caf\xe9")
    assert refused(capsys, bundle, "--file", file) == f"{file}: not UTF-8 text (byte 3); convert it to UTF-8"
    stdin(b"\xff")
    assert refused(capsys, bundle) == "stdin: not UTF-8 text (byte 0); convert it to UTF-8"


def test_no_bundle(capsys, tmp_path):
    assert refused(capsys, tmp_path / "gone", "--prompt", "a").endswith("no such bundle; give a folder made by t5g2-export")
    assert "not a bundle (no manifest.json)" in refused(capsys, tmp_path, "--prompt", "a")


@pytest.mark.parametrize("name", ["text.pte", "vision.pte", "tokenizer.json", "manifest.json"])
def test_a_flipped_byte(capsys, bundle, tmp_path, name):
    copy = shutil.copytree(bundle, tmp_path / "copy")
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 0x10
    (copy / name).write_bytes(content)
    line = refused(capsys, copy, "--prompt", TEXT)
    assert name in line and line.endswith("export the bundle again")


# --- as a shell sees it ---


def test_exit_codes_of_the_process(bundle, tiny_gqa, tmp_path):
    done = run_process("t5g2.runtime.run", bundle, "--max-new-tokens", 8, input=TEXT + "\n")
    assert (done.code, done.err) == (0, "")
    assert done.out == tiny_gqa.model.generate(TEXT, max_new_tokens=8).text + "\n"
    done = run_process("t5g2.runtime.run", bundle, input="")
    assert done.code == 2 and error_line(done.out, done.err).startswith("no prompt")
    done = run_process("t5g2.runtime.run", tmp_path, "--prompt", "a")
    assert done.code == 1 and "not a bundle" in error_line(done.out, done.err)
    done = run_process("t5g2.runtime.run", bundle, "--prompt", "w9 " * 320)
    assert done.code == 1 and error_line(done.out, done.err).startswith("the source: 321 tokens")
