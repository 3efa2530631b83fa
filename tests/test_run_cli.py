"""t5g2-run: prompts in, answers out, and everything that can be wrong with either.

The environment variable T5G2_RUN names another program than the installed one, such as one built with sanitizers.
"""

import json
import os
import pty
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
from commands import error_line
from PIL import Image

from t5g2.runtime import bindings
from t5g2.runtime.bundle import write_manifest

TEXT = "w184 w151 w187"  # its answer has several tokens, none of them special
LONG = " ".join(["w9"] * 320)
MARKER = "<start_of_image>"


def program() -> str:
    return os.environ.get("T5G2_RUN") or str(Path(sys.executable).with_name("t5g2-run"))


def run(*argv, input: str | bytes = b"", **options) -> SimpleNamespace:
    input = input.encode() if isinstance(input, str) else input
    arguments = [os.fsencode(a) if isinstance(a, (str, Path)) else str(a) for a in argv]
    done = subprocess.run([program(), *arguments], input=input, capture_output=True, timeout=120, **options)
    return SimpleNamespace(code=done.returncode, out=done.stdout.decode(), err=done.stderr.decode())


def succeed(*argv, **options) -> str:
    """What it printed on stdout, and nothing on stderr."""
    done = run(*argv, **options)
    assert (done.code, done.err) == (0, "")
    return done.out


def refused(*argv, code: int = 1, **options) -> str:
    """The message of its one error line."""
    done = run(*argv, **options)
    assert done.code == code, done.err
    return error_line(done.out, done.err)


@pytest.fixture
def bundle(tiny_gqa):
    return tiny_gqa.bundle


@pytest.fixture
def model(tiny_gqa):
    return tiny_gqa.model


@pytest.fixture
def picture(tmp_path):
    file = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)).save(file)
    return file


# --- one source ---


def test_prompt(bundle, model):
    expected = model.generate(TEXT, max_new_tokens=8).text
    assert succeed(bundle, "--prompt", TEXT, "--max-new-tokens", 8) == expected + "\n"
    assert succeed(f"--prompt={TEXT}", "--max-new-tokens=8", "--", bundle) == expected + "\n"


def test_the_reference_runner_agrees(bundle, tiny_gqa):
    expected = tiny_gqa.oracle.generate(TEXT, max_new_tokens=8).text
    assert succeed(bundle, "--prompt", TEXT, "--max-new-tokens", 8, "--threads", 1) == expected + "\n"


def test_prompt_from_a_file_and_from_stdin(bundle, model, tmp_path):
    expected = model.generate(TEXT, max_new_tokens=8).text + "\n"
    file = tmp_path / "prompt.txt"
    for end in ("", "\n", "\r\n"):
        file.write_bytes(f"{TEXT}{end}".encode())
        assert succeed(bundle, "--file", file, "--max-new-tokens", 8) == expected
        for option in ([], ["--file", "-"]):
            assert succeed(bundle, *option, "--max-new-tokens", 8, input=file.read_bytes()) == expected


def test_prompt_from_a_pipe(bundle, model, tmp_path):
    """As a shell's `--file <(command)`."""
    read, write = os.pipe()
    os.write(write, TEXT.encode())
    os.close(write)
    out = succeed(bundle, "--file", f"/dev/fd/{read}", "--max-new-tokens", 8, pass_fds=[read])
    os.close(read)
    assert out == model.generate(TEXT, max_new_tokens=8).text + "\n"


def test_ids(bundle, model):
    expected = " ".join(map(str, model.generate([2, 10, 20], max_new_tokens=8).ids)) + "\n"
    for ids in ("2 10 20", "2,10, 20"):
        assert succeed(bundle, "--ids", ids, "--max-new-tokens", 8) == expected


def test_ids_when_text_was_held_back(bundle, model):
    """A stop string that begins but does not come: its text comes at the end, without an id."""
    expected = model.generate([2, 10, 20], max_new_tokens=8)
    out = succeed(bundle, "--ids", "2 10 20", "--max-new-tokens", 8, "--stop", expected.text[-2:] + " never")
    assert [int(word) for word in out.split()] == expected.ids


def test_images(bundle, model, picture):
    source = f"{MARKER} w10 {MARKER} w11"
    expected = model.generate(source, [picture, picture], max_new_tokens=8).text
    out = succeed(bundle, "--prompt", source, "--image", picture, "--image", picture, "--max-new-tokens", 8)
    assert out == expected + "\n"


OPTIONS = [
    (
        {"temperature": 1.5, "top_k": 40, "top_p": 0.9, "seed": 4, "min_new_tokens": 2, "suppress_unused": False},
        ["--allow-unused"],
    ),
    ({"temperature": 1.0, "min_p": 0.01, "seed": 2**62, "repetition_penalty": 1.3}, []),
    ({"no_repeat_ngram": 1, "suppressed": [10, 11]}, ["--suppressed-ids", "10,11"]),
    ({"prefix": "w12 w13"}, ["--prefix", "w12 w13"]),
    ({"prefix": [12, 13]}, ["--prefix-ids", "12 13"]),
    ({"stop": list(range(4, 150))}, ["--stop-ids", " ".join(map(str, range(4, 150)))]),
]


@pytest.mark.parametrize(("options", "argv"), OPTIONS)
def test_generation_options(bundle, model, options, argv):
    expected = model.generate(TEXT, max_new_tokens=12, **options)
    for name, value in options.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            argv = [*argv, f"--{name.replace('_', '-')}", value]
    assert succeed(bundle, "--prompt", TEXT, "--max-new-tokens", 12, *argv) == expected.text + "\n"
    greedy = model.generate(TEXT, max_new_tokens=12).ids
    assert expected.ids != greedy  # the option does something here


def test_beams(bundle, model):
    expected = model.beams(TEXT, beams=3, length_penalty=0.5, early_stopping=True, max_new_tokens=12)[0]
    options = ["--beams", 3, "--length-penalty", 0.5, "--early-stopping", "--max-new-tokens", 12]
    assert succeed(bundle, "--prompt", TEXT, *options) == expected.text + "\n"


def test_stop(bundle, model):
    string = model.text(model.generate(TEXT, max_new_tokens=12).ids[4:5]).strip()
    expected = model.generate(TEXT, max_new_tokens=12, stop=["never", string])
    assert expected.finish_reason == "stop" and string not in expected.text
    out = succeed(bundle, "--prompt", TEXT, "--max-new-tokens", 12, "--stop", "never", "--stop", string)
    assert out == expected.text + "\n"


def test_a_saved_session(bundle, model, tmp_path, picture):
    file = tmp_path / "a.session"
    source = [bundle, "--prompt", f"{MARKER} w10", "--image", picture]
    first = succeed(*source, "--save-session", file, "--max-new-tokens", 8)
    assert succeed(bundle, "--session", file, "--max-new-tokens", 8) == first
    assert model.load_session(file).generate(max_new_tokens=8).text + "\n" == first
    prefixed = model.generate(f"{MARKER} w10", [picture], prefix="w7", max_new_tokens=8).text
    assert succeed(bundle, "--session", file, "--prefix", "w7", "--max-new-tokens", 8) == prefixed + "\n"


def test_a_saved_session_without_a_tokenizer(bundle, model, tmp_path):
    """Targets are ids, as the source was."""
    copy, file = shutil.copytree(bundle, tmp_path / "copy"), tmp_path / "a.session"
    manifest = json.loads((copy / "manifest.json").read_text())
    for name in ("tokenizer.json", "tokenizer.bin", "manifest.json"):
        (copy / name).unlink()
    write_manifest(copy, {k: v for k, v in manifest.items() if k not in ("files", "manifest_sha256")})
    ids = succeed(copy, "--ids", "2 184 151 187", "--max-new-tokens", 8, "--save-session", file)
    assert succeed(copy, "--session", file, "--max-new-tokens", 8) == ids
    assert succeed(copy, "--session", file, "--score", "10 11").endswith("\t10 11\n")
    assert "has no tokenizer" in refused(copy, "--prompt", TEXT) and "has no tokenizer" in refused(copy, "-i")


def test_score(bundle, model):
    targets = ["w10 w11", "w40", "w10 w11 w12"]
    totals = [score.total for score in model.session(TEXT).score(targets)]
    best_first = sorted(zip(totals, targets), reverse=True)
    options = [word for target in targets for word in ("--score", target)]
    lines = [line.split("\t") for line in succeed(bundle, "--prompt", TEXT, *options).splitlines()]
    assert [target for _, target in lines] == [target for _, target in best_first]
    assert [float(number) for number, _ in lines] == pytest.approx([total for total, _ in best_first], abs=1e-5)
    out = succeed(bundle, "--ids", " ".join(map(str, model.source_ids(TEXT))), "--score", "40")
    assert float(out.split("\t")[0]) == pytest.approx(totals[1], abs=1e-5) and out.endswith("\t40\n")


def test_states(bundle, model, tmp_path):
    session, file = model.session(TEXT), tmp_path / "states.npy"
    assert succeed(bundle, "--prompt", TEXT, "--states", file) == ""
    np.testing.assert_array_equal(np.load(file), session.states())
    assert succeed(bundle, "--prompt", TEXT, "--states", file, "--pooled") == ""
    np.testing.assert_array_equal(np.load(file), session.states(pooled=True))
    assert os.listdir(tmp_path) == ["states.npy"]


# --- prompts by the line ---


def test_prompts(bundle, model, tmp_path):
    prompts = [TEXT, "w40", "", "w41 w42"]
    expected = "".join(model.generate(prompt, max_new_tokens=8).text + "\n" for prompt in prompts)
    for content in ("\n".join(prompts), "\r\n".join(prompts) + "\r\n"):
        file = tmp_path / "prompts.txt"
        file.write_bytes(content.encode())
        assert succeed(bundle, "--prompts", file, "--max-new-tokens", 8) == expected
        assert succeed(bundle, "--prompts", "-", "--max-new-tokens", 8, input=content) == expected
    assert succeed(bundle, "--prompts", "-") == ""


def test_pictures_go_with_each_prompt(bundle, model, picture):
    prompts = [f"{MARKER} w10", f"w11 {MARKER}"]
    expected = [model.generate(prompt, [picture], max_new_tokens=8).text for prompt in prompts]
    out = succeed(bundle, "--prompts", "-", "--image", picture, "--max-new-tokens", 8, input="\n".join(prompts))
    assert out.splitlines() == expected


def test_a_prompt_that_fails_leaves_its_line_empty(bundle, model):
    done = run(bundle, "--prompts", "-", "--max-new-tokens", 8, input=TEXT + "\n" + LONG + "\nw40\n")
    assert done.code == 1
    assert done.out.splitlines() == [model.generate(text, max_new_tokens=8).text if text else "" for text in (TEXT, "", "w40")]
    assert error_line("", done.err).startswith("stdin: line 2: the source: 321 tokens")


def test_line_ends_in_answers_are_escaped(nano_bundle):
    """An answer that may hold nothing but line ends and backslashes."""
    import t5g2

    model = t5g2.load(nano_bundle("int4"))
    kept = {i for text in ("\n", "\r", "\\", "\\n") for i in model.target_ids(text)}
    others = [i for i in range(model.vocab_size) if i not in kept]
    expected = model.generate("w", suppressed=others, no_repeat_ngram=3, max_new_tokens=40).text
    assert "\n" in expected and "\\" in expected
    options = ["--suppressed-ids", " ".join(map(str, others)), "--no-repeat-ngram", 3, "--max-new-tokens", 40]
    line = succeed(nano_bundle("int4"), "--prompts", "-", *options, input="w\n")
    assert line == expected.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r") + "\n"


# --- JSON lines ---


def json_lines(bundle, *requests, argv=(), code: int = 0) -> list[dict]:
    content = "\n".join(r if isinstance(r, str) else json.dumps(r) for r in requests)
    done = run(bundle, "--jsonl", *argv, input=content)
    assert (done.code, done.err) == (code, "")
    return [json.loads(line) for line in done.out.splitlines()]


def test_json_lines(bundle, model, picture):
    expected = model.generate(TEXT, max_new_tokens=8)
    by_ids = model.generate([2, 10], max_new_tokens=4)
    pictured = model.generate(f"{MARKER} w10", [picture], max_new_tokens=8)
    answers = json_lines(
        bundle,
        {"id": "a", "prompt": TEXT},
        "",
        {"ids": [2, 10], "max_new_tokens": 4},
        {"id": 7.5, "prompt": f"{MARKER} w10", "images": [str(picture)]},
        argv=["--max-new-tokens", 8],
    )
    assert answers == [
        {"id": "a", "text": expected.text, "ids": expected.ids, "finish": "length", "source_tokens": 4},
        {"text": by_ids.text, "ids": by_ids.ids, "finish": "length", "source_tokens": 2},
        {"id": 7.5, "text": pictured.text, "ids": pictured.ids, "finish": "length", "source_tokens": pictured.source_tokens},
    ]


def test_json_lines_from_a_file(bundle, tmp_path):
    file = tmp_path / "requests.jsonl"
    file.write_text(json.dumps({"prompt": TEXT, "max_new_tokens": 8}))
    assert succeed(bundle, "--jsonl", "--file", file) == succeed(bundle, "--jsonl", input=file.read_bytes())


def test_json_lines_answer_as_they_come(bundle):
    """A program may ask, wait for the answer, and ask again."""
    process = subprocess.Popen([program(), bundle, "--jsonl"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for i in range(3):
        process.stdin.write(json.dumps({"id": i, "prompt": TEXT, "max_new_tokens": 2}) + "\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["id"] == i
    assert process.communicate()[0] == "" and process.returncode == 0


def test_logprobs(bundle, model):
    expected = model.generate(TEXT, max_new_tokens=3, logprobs=2)
    (answer,) = json_lines(bundle, {"prompt": TEXT, "max_new_tokens": 3, "logprobs": 2})
    assert [token["id"] for token in answer["logprobs"]] == expected.ids
    assert [token["logprob"] for token in answer["logprobs"]] == pytest.approx(expected.logprobs, rel=1e-5)
    for token, top in zip(answer["logprobs"], expected.top, strict=True):
        assert [t["id"] for t in token["top"]] == [i for i, _ in top]
        assert [t["logprob"] for t in token["top"]] == pytest.approx([p for _, p in top], rel=1e-5)
    (answer,) = json_lines(bundle, {"prompt": TEXT}, argv=["--max-new-tokens", 2, "--logprobs", 0])
    assert [token["top"] for token in answer["logprobs"]] == [[], []]


def test_beams_in_json(bundle, model):
    expected = model.beams(TEXT, beams=3, max_new_tokens=6)
    (answer,) = json_lines(bundle, {"prompt": TEXT, "max_new_tokens": 6, "beams": 3})
    assert answer["ids"] == expected[0].ids
    assert [beam["ids"] for beam in answer["beams"]] == [beam.ids for beam in expected]
    assert [beam["score"] for beam in answer["beams"]] == pytest.approx([beam.score for beam in expected], rel=1e-5)


def test_targets_in_json(bundle, model):
    (answer,) = json_lines(bundle, {"id": 1, "prompt": TEXT, "targets": ["w10 w11", [40]]})
    totals = [score.total for score in model.session(TEXT).score(["w10 w11", [40]])]
    assert answer == {"id": 1, "source_tokens": 4, "scores": pytest.approx(totals, rel=1e-5)}


def test_json_takes_every_option_of_the_header(bundle):
    """By name; with the wrong type, which tells a field that is known from one that is not."""
    fields = [name for name, _ in bindings.GenerationOptions._fields_ if not re.search(r"size|_length$|_count$", name)]
    assert len(fields) > 15
    for name, answer in zip(fields, json_lines(bundle, *({"prompt": "a", f: {}} for f in fields), code=1), strict=True):
        assert re.search(f'"{name}": give', answer["error"]), answer


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x", "not JSON (at byte 1); give one object a line"),
        ('{"prompt": "a"', "not JSON (at byte 15)"),
        ('{"prompt": "\xff"}'.encode("latin-1"), "not JSON (at byte "),
        ('{"prompt": "a", "seed": 1e999}', "a number that no computer holds"),
        ("[" * 100_000, "lists or objects more than 4 deep"),
        ("[]", "not a JSON object"),
        ("{}", 'no "prompt" and no "ids"; give one'),
        ('{"prompt": "a", "ids": [2]}', '"prompt" and "ids"; give one of them'),
        ('{"prompt": 1}', '"prompt": give a text'),
        ('{"ids": [2, 1.5]}', '"ids": give a whole number'),
        ('{"ids": [2, 4294967296]}', '"ids": 4294967296 is out of range'),
        ('{"prompt": "a", "seed": 18446744073709551615}', '"seed": 18446744073709551615 is out of range'),
        ('{"prompt": "a", "temperature": 1e300}', '"temperature": give a number'),
        ('{"prompt": "a", "temperature": "1"}', '"temperature": give a number'),
        ('{"prompt": "a", "suppress_unused": 1}', '"suppress_unused": give true or false'),
        ('{"prompt": "a", "stop_strings": ["b\\u0000c"]}', '"stop_strings": give texts without \\u0000'),
        ('{"prompt": "a", "images": ["/dev/null\\u0000.png"]}', '"images": give texts without \\u0000'),
        ('{"prompt": "a", "images": ["/gone.png"]}', "/gone.png: "),
        ('{"prompt": "a", "Temperature": 1}', '"Temperature": no such field'),
        ('{"prompt": "a", "id": [1]}', '"id": give a text or a number'),
        ('{"prompt": "a", "targets": [1]}', '"targets": give a list of texts or of lists of ids'),
        ('{"prompt": "a", "targets": ["b"], "top_k": 1}', '"top_k": nothing is generated where there are "targets"'),
        ('{"prompt": "a", "max_new_tokens": 65}', "max_new_tokens: 65; give 1 to 64"),
        ('{"ids": [2, 300]}', "the source: id 300 is outside the vocabulary of 300"),
    ],
)
def test_a_json_line_that_fails(bundle, line, message):
    """Others are answered all the same."""
    good = b'{"id": "x", "prompt": "w10", "max_new_tokens": 2}\n'
    done = run(bundle, "--jsonl", input=good + (line if isinstance(line, bytes) else line.encode()) + b"\n" + good)
    assert (done.code, done.err) == (1, "")
    first, failed, second = map(json.loads, done.out.splitlines())
    assert first == second and first["text"]
    assert failed.pop("error").startswith(f"stdin: line 2: {message}")
    assert failed == {}


def test_the_id_of_a_json_line_that_fails(bundle):
    answers = json_lines(bundle, {"prompt": "a", "top_k": 0.5, "id": 3}, {"id": "b", "ids": []}, code=1)
    assert [answer["id"] for answer in answers] == [3, "b"]
    assert answers[1]["error"] == "stdin: line 2: the source: no tokens; give at least one"


# --- the interactive loop ---


def converse(bundle, *lines, argv=(), code: int = 0) -> SimpleNamespace:
    done = run(bundle, "--interactive", "--max-new-tokens", 8, *argv, input="\n".join(map(str, lines)) + "\n")
    assert done.code == code, done.err
    return SimpleNamespace(answers=done.out.splitlines(), err=done.err)


def test_interactive(bundle, model):
    session = model.session(TEXT)
    answers = [session.generate(prefix=prefix, max_new_tokens=8).text for prefix in ("", "w7", "/w8", "")]
    done = converse(bundle, TEXT, "", "w7", "//w8", "", "/quit", "w9")
    assert done.answers == answers
    assert re.fullmatch(r"source: 4 tokens, encoded in \d+\.\d{3} s\n", done.err)  # once, and no prompts without a terminal


@pytest.mark.parametrize("option", ["--prompt", "--file", "--session"])
def test_interactive_with_a_source_at_hand(bundle, model, tmp_path, option):
    file = tmp_path / "source"
    if option == "--session":
        model.session(TEXT).save(file)
    else:
        file.write_text(TEXT)
    done = converse(bundle, "", argv=[option, TEXT if option == "--prompt" else file])
    assert done.answers == [model.generate(TEXT, max_new_tokens=8).text]


def test_interactive_sources(bundle, model, tmp_path, picture):
    text, saved = tmp_path / "a text.txt", tmp_path / "a.session"
    text.write_text("w40 w41\n")
    lines = ["/source w50", "", f"/file {text}", "", f"/save {saved}", f"/image {picture}", f"/source {MARKER} w11", ""]
    done = converse(bundle, *lines, f"/load {saved}", "", f"/image {picture}", "/image", "/source w12", "")
    sources = [("w50",), ("w40 w41",), (f"{MARKER} w11", [picture]), ("w40 w41",), ("w12",)]
    assert done.answers == [model.generate(*source, max_new_tokens=8).text for source in sources]
    assert "source: 3 tokens, loaded\n" in done.err


def test_interactive_picture_of_the_command_line(bundle, model, picture):
    done = converse(bundle, f"{MARKER} w11", "", argv=["--image", picture])
    assert done.answers == [model.generate(f"{MARKER} w11", [picture], max_new_tokens=8).text]


def test_interactive_settings(bundle, model):
    session = model.session(TEXT)
    string = model.text(session.generate(max_new_tokens=8).ids[4:5]).strip()
    options = [{"max_new_tokens": 3}, {"max_new_tokens": 8, "stop": string}, {"max_new_tokens": 8}]
    lines = [TEXT, "/set max-new-tokens 3", "", "/set max-new-tokens 8", f"/set stop {string}", "", "/set stop", ""]
    done = converse(bundle, *lines, "/set no-repeat-ngram 2", "/set allow-unused on", "/set")
    assert done.answers == [session.generate(**o).text for o in options]
    for line in ("max-new-tokens 8", "no-repeat-ngram 2", "allow-unused on", "early-stopping off"):
        assert f"  {line}\n" in done.err


def test_interactive_errors(bundle, model, tmp_path):
    """Each is one line, and what was before goes on."""
    wrong = {
        "": "no source yet; give it on a line or with /source, /file or /load",
        "/save x": "/save: no source yet",
        "/source": "/source: give a text after it",
        "/bogus": "/bogus: no such command; see /help",
        f"/source {TEXT}": None,
        f"/source {LONG}": "the source: 321 tokens, and this bundle takes 320",
        "/file": "/file: give a file after it",
        f"/file {tmp_path}/gone": f"{tmp_path}/gone: cannot read it",
        f"/image {tmp_path}/gone.png": f"{tmp_path}/gone.png: cannot read it",
        f"/load {tmp_path}/gone": f"{tmp_path}/gone: ",
        f"/save {tmp_path}/gone/x": f"{tmp_path}/gone/x: cannot write it",
        "/set temprature 1": "temprature: no such option; /set alone shows them",
        "/set logprobs 1": "logprobs: no such option",
        "/set top-k x": "top-k 'x': give a whole number",
        "/set top-p 2": "top_p: 2; give more than 0 and at most 1",
        "/set early-stopping maybe": "early-stopping 'maybe': give on or off",
    }
    done = converse(bundle, *wrong, "w7", code=1)
    errors = [line for line in done.err.splitlines() if line.startswith("t5g2-run: error: ")]
    for line, message in zip(errors, filter(None, wrong.values()), strict=True):
        assert line.startswith(f"t5g2-run: error: {message}")
    assert done.answers == [model.generate(TEXT, prefix="w7", max_new_tokens=8).text]


def test_interactive_help_names_the_commands(bundle):
    text = converse(bundle, "/help").err
    for command in ("/source", "/file", "/image", "/save", "/load", "/set", "/help", "/quit"):
        assert re.search(rf"^  {command}\b", text, re.MULTILINE)


class Terminal:
    """The command on a terminal of its own."""

    def __init__(self, *argv) -> None:
        self.process, self.descriptor = pty.fork()
        if self.process == 0:
            try:
                os.execv(program(), [program(), *map(str, argv)])
            finally:
                os._exit(127)  # else a second run of the tests would go on here
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self.descriptor, text.encode())

    def wait_for(self, text: str) -> str:
        """What it printed up to that."""
        deadline = time.monotonic() + 60
        while text not in self.seen:
            assert time.monotonic() < deadline
            self.seen += os.read(self.descriptor, 4096).decode()
        before, self.seen = self.seen.split(text, 1)
        return before

    def end(self) -> int:
        code = os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])
        os.close(self.descriptor)
        return code


def test_interactive_on_a_terminal(bundle, model):
    terminal = Terminal(bundle, "-i", "--max-new-tokens", 4)
    terminal.wait_for("source> ")
    terminal.type(TEXT + "\n")
    assert "see /help" in terminal.wait_for("target> ")
    terminal.type("\n")
    assert model.generate(TEXT, max_new_tokens=4).text in terminal.wait_for("target> ")
    terminal.type("/set top-k x\n")
    terminal.wait_for("target> ")
    terminal.type("\x04")  # the end of the input
    assert terminal.end() == 0


def test_ctrl_c_on_a_terminal(nano_bundle):
    """Ends a long answer, and without one the program."""
    terminal = Terminal(nano_bundle("int4"), "-i", "--prompt", "w", "--min-new-tokens", 512, "--beams", 64)
    terminal.wait_for("target> ")
    terminal.type("\n")
    time.sleep(0.3)
    terminal.type("\x03")
    assert "cancelled" in terminal.wait_for("target> ")
    terminal.type("\x03")
    terminal.wait_for("t5g2-run: interrupted")
    assert terminal.end() == 130


# --- what is said beside the answer ---


def test_stats(bundle, model):
    done = run(bundle, "--prompt", TEXT, "--max-new-tokens", 8, "--stats", "--threads", 1)
    assert (done.code, done.out) == (0, model.generate(TEXT, max_new_tokens=8).text + "\n")
    lines = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in done.err.splitlines())
    assert list(lines) == ["load", "encode", "first token", "decode", "peak memory", "threads", "kernels"]
    assert ", 4 tokens, " in lines["encode"] and ", 7 tokens, " in lines["decode"]
    assert lines["threads"] == "1" and lines["kernels"] == model.kernels
    assert 1 < float(lines["peak memory"].removesuffix(" MB")) < 1000


@pytest.mark.parametrize(("mode", "line"), [("--prompts=-", "w11"), ("--jsonl", '{"prompt": "w11"}')])
def test_stats_of_many(bundle, mode, line):
    """One summary of all of them."""
    done = run(bundle, mode, "--stats", "--max-new-tokens", 3, input=f"{line}\n" * 2)
    assert done.code == 0 and done.err.count("encode") == 1
    assert re.search("^encode .* 4 tokens", done.err, re.MULTILINE) and re.search("^decode .* 4 tokens", done.err, re.MULTILINE)


def test_stats_of_the_interactive_loop(bundle):
    """After each answer; the source is read once."""
    done = converse(bundle, "w11", "", "", argv=["--stats"])
    assert done.err.count("first token") == 2 and len(re.findall("^encode .* 2 tokens", done.err, re.MULTILINE)) == 1


def test_verbose(bundle, model):
    done = run(bundle, "--prompt", TEXT, "--max-new-tokens", 2, "--verbose")
    assert done.code == 0 and all(line.startswith("t5g2-run: ") for line in done.err.splitlines())
    for what in (
        f"{model.kernels} kernels",
        "320 source and 64 target tokens",
        "source of 4 tokens: 2 184 151 187",
        "max_new_tokens",
    ):
        assert what in done.err


def test_version():
    from importlib.metadata import version

    assert succeed("--version") == f"t5g2-run {version('t5g2')}\n"


def test_help():
    text = succeed("--help")
    assert succeed("-h") == text
    assert max(map(len, text.splitlines())) <= 110
    options = re.findall(r"^  --([a-z-]+)", text, re.MULTILINE)
    assert len(options) == len(set(options)) > 35
    numbers = re.findall(r"^  --[a-z-]+ [NTKPX] +(.*?)(?=^  --|^$)", text, re.MULTILINE | re.DOTALL)
    assert len(numbers) == 13 and all("(default:" in n for n in numbers)


def test_cache_folder(bundle, tmp_path):
    folder, home = tmp_path / "cache", tmp_path / "home"
    argv = [bundle, "--prompt", TEXT, "--max-new-tokens", 1]
    environment = {**os.environ, "XDG_CACHE_HOME": str(home)}
    succeed(*argv, "--no-cache", env=environment)
    succeed(*argv, "--cache-folder", folder, env=environment)
    assert any(folder.iterdir()) and not home.exists()
    succeed(*argv, env=environment)
    assert any((home / "t5g2").iterdir())


# --- usage errors, exit 2 ---


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--prompt", "a", "--ids", "2"], "give one of --prompt, --file, --ids and --session, not 2"),
        (["--ids", "2 x"], "--ids '2 x': give whole numbers separated by spaces"),
        (["--ids", "2 1.5"], "--ids '2 1.5': give whole numbers separated by spaces"),
        (["--ids", "2 99999999999"], "--ids '2 99999999999': give whole numbers separated by spaces"),
        (
            ["--prompt", "a", "--max-new-tokens", "65"],
            "max_new_tokens: 65; give 1 to 64, what the bundle's --max-target leaves",
        ),
        (["--prompt", "a", "--temperature", "-1"], "temperature: -1; give 0 (greedy) or more"),
        (["--prompt", "a", "--temperature", "nan"], "temperature: nan; give 0 (greedy) or more"),
        (["--prompt", "a", "--temperature", "1x"], "--temperature '1x': give a number"),
        (["--prompt", "a", "--top-p", "2"], "top_p: 2; give more than 0 and at most 1 (1 keeps every token)"),
        (["--prompt", "a", "--threads", "-1"], "--threads '-1': give a whole number from 0 to 256"),
        (["--prompt", "a", "--seed", "x"], "--seed 'x': give a whole number"),
        (
            ["--prompt", "a", "--top-k", "2147483648"],
            "--top-k '2147483648': give a whole number from -2147483648 to 2147483647",
        ),
        (["--prompt", "a", "--beams", "2", "--temperature", "1"], "temperature: beams do not sample; give 0, or beams 1"),
        (["--prompt", "a", "--stop", ""], "stop: an empty string; leave it out"),
        (["--temp", "1"], "--temp: no such option (see t5g2-run --help)"),
        (["-x"], "-x: no such option (see t5g2-run --help)"),
        (["--prompt"], "--prompt: give TEXT after it"),
        (["--jsonl=yes"], "--jsonl: takes no value; leave '=yes' out"),
        (["a question"], "'a question': one bundle is taken, "),
        (["--prompts", "-", "--jsonl"], "give one of --prompts, --jsonl and --interactive"),
        (["--prompts", "-", "--prompt", "a"], "--prompts: has the sources; "),
        (["--prompts", "-", "--score", "a"], "--prompts: takes no --score, --states or --save-session"),
        (["--jsonl", "--image", "a.png"], "--jsonl: its lines have the sources and pictures; "),
        (["--jsonl", "--states", "a.npy"], "--jsonl: takes no --score, --states or --save-session"),
        (["-i", "--ids", "2"], "--interactive: takes no --ids, --score, --states or --save-session; "),
        (["-i", "--prefix", "a"], "--prefix: with --interactive each line is one; leave it out"),
        (["-i", "--file", "-"], "--file -: stdin has the lines of --interactive; give a file"),
        (["--prompt", "a", "--score", "a", "--states", "a.npy"], "give --score or --states, not both"),
        (["--prompt", "a", "--score", "a", "--top-k", "1"], "--score and --states generate nothing; "),
        (["--prompt", "a", "--pooled"], "--pooled: give --states FILE with it"),
        (["--prompt", "a", "--logprobs", "1"], "--logprobs: give it with --jsonl, which has a place for them"),
        (["--session", "a", "--image", "a.png"], "--image: the pictures of a --session are in it; leave them out"),
    ],
)
def test_usage(bundle, argv, message):
    assert refused(bundle, *argv, code=2).startswith(message)


def test_no_bundle_named():
    assert refused(code=2) == "no bundle; give a folder made by t5g2-export (see t5g2-run --help)"


def test_no_prompt(bundle):
    assert refused(bundle, code=2).startswith("no prompt, stdin is empty; give --prompt TEXT")
    terminal = Terminal(bundle)
    terminal.wait_for("t5g2-run: error: no prompt; give --prompt TEXT, --file FILE, or pipe a text in")
    assert terminal.end() == 2


# --- inputs that are wrong, exit 1 ---


def test_a_source_over_the_limit(bundle):
    line = refused(bundle, "--prompt", LONG)
    assert line == "the source: 321 tokens, and this bundle takes 320; shorten it, or export with --max-source 321"


def test_ids_outside_the_vocabulary(bundle):
    line = refused(bundle, "--ids", "2 300")
    assert line == "the source: id 300 is outside the vocabulary of 300; use this model's tokenizer"
    assert refused(bundle, "--ids", "") == "the source: no tokens; give at least one"


def test_image_counts(bundle, picture):
    line = refused(bundle, "--prompt", "w9", "--image", picture)
    assert line.startswith("the text has 0 <start_of_image> marker(s) and 1 image(s)")
    line = refused(bundle, "--prompt", MARKER)
    assert line.startswith("the text has 1 <start_of_image> marker(s) and 0 image(s)")


def test_broken_images(bundle, picture, tmp_path):
    gone = tmp_path / "gone.png"
    line = refused(bundle, "--prompt", MARKER, "--image", gone)
    assert line == f"{gone}: cannot read it (No such file or directory); check the path"
    picture.write_bytes(picture.read_bytes()[:-500])
    assert refused(bundle, "--prompt", MARKER, "--image", picture).startswith(f"{picture}: damaged image file")
    picture.write_text("no picture")
    assert refused(bundle, "--prompt", MARKER, "--image", picture).startswith(f"{picture}: not a JPEG or PNG")


def test_broken_files(bundle, tmp_path):
    file = tmp_path / "prompt.txt"
    assert refused(bundle, "--file", file) == f"{file}: cannot read it (No such file or directory); check the path"
    assert refused(bundle, "--file", tmp_path) == f"{tmp_path}: cannot read it (Is a directory); check the path"
    file.write_bytes(b"caf\xe9")
    assert refused(bundle, "--file", file) == f"{file}: not UTF-8 text (byte 3); convert it to UTF-8"
    assert refused(bundle, input=b"\xff") == "stdin: not UTF-8 text (byte 0); convert it to UTF-8"
    assert refused(bundle, "--prompt", b"caf\xe9".decode(errors="surrogateescape")).startswith("the text is not valid UTF-8")
    for option in ([], ["--prompts", "-"], ["--jsonl"]):
        assert "longer than 16777216 bytes" in refused(bundle, *option, input=b"w" * (2**24 + 2**17))


def test_broken_sessions(bundle, model, tiny_bundle, tmp_path):
    file = tmp_path / "a.session"
    model.session(TEXT).save(file)
    assert str(file) in refused(tiny_bundle(1).bundle, "--session", file)
    file.write_bytes(file.read_bytes()[:-1])
    assert str(file) in refused(bundle, "--session", file)
    for option in ("--save-session", "--states"):
        gone = tmp_path / "gone" / "x"
        assert refused(bundle, "--prompt", TEXT, option, gone).startswith(f"{gone}: cannot write it")


def test_no_bundle(tmp_path):
    assert refused(tmp_path / "gone", "--prompt", "a").endswith("no such bundle; give a folder made by t5g2-export")
    assert "not a bundle (no manifest.json)" in refused(tmp_path, "--prompt", "a")


@pytest.mark.parametrize("name", ["text.pte", "vision.pte", "tokenizer.bin", "manifest.json"])
def test_a_flipped_byte(bundle, tmp_path, name):
    copy = shutil.copytree(bundle, tmp_path / "copy")
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 0x10
    (copy / name).write_bytes(content)
    line = refused(copy, "--prompt", TEXT)
    assert name in line and line.endswith("export the bundle again")


def test_an_error_is_one_line_whatever_a_name_holds():
    line = refused("no\x1b[31m\nsuch\u202e \udcff bundle", "--prompt", "a")
    assert line.startswith(r"no\x1b[31m such\xe2\x80\xae \xff bundle: no such bundle")


# --- as a shell sees it ---


def test_a_reader_that_went_away(bundle):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([program(), bundle, "--prompt", TEXT], stdout=write, stderr=subprocess.PIPE, timeout=120)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_full_disk(bundle):
    with open("/dev/full", "wb") as full:
        done = subprocess.run([program(), bundle, "--prompt", TEXT], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert error_line("", done.stderr) == (
        "the output: cannot write it (No space left on device); free some space or write elsewhere"
    )


def test_closed_streams(bundle):
    for closed, code in ((">&-", 0), ("2>&-", 0), ("<&-", 0), (">&- 2>&- <&-", 0)):
        script = f'"$0" "$1" --prompt "{TEXT}" --max-new-tokens 2 {closed}'
        assert subprocess.run(["sh", "-c", script, program(), bundle], timeout=120).returncode == code


def test_interrupted(bundle):
    process = subprocess.Popen(
        [program(), bundle, "--prompts", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdin.write(TEXT + "\n")
    process.stdin.flush()
    assert process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.wait(timeout=60)  # while its input is open: at its end it would stop anyway
    out, err = process.communicate()
    assert (process.returncode, out, err) == (130, "", "t5g2-run: interrupted\n")
