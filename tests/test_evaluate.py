"""t5g2-eval: exact match on a file of examples."""

import json
import re

import pytest
from commands import error_line, fail, run_process, succeed
from PIL import Image

from t5g2.quant.evaluate import Example, exact_match, main, nano_examples, read_examples
from t5g2.runtime.errors import T5g2Error


@pytest.fixture
def answer(tiny_gqa):
    """`answer(source)`: the greedy answer of the tiny model."""
    return lambda source, *images: tiny_gqa.model.generate(source, images).text


@pytest.fixture
def write(tmp_path):
    """`write(example, ...)`: a file with each on a line; text goes in as it is."""

    def write(*examples):
        lines = [e if isinstance(e, str) else json.dumps(e, ensure_ascii=False) for e in examples]
        file = tmp_path / "examples.jsonl"
        file.write_text("\n".join(lines), encoding="utf-8")
        return file

    return write


def shares(out: str) -> dict[str, float]:
    return json.loads(out)["exact_match"]


def test_right_and_wrong_answers(capsys, tiny_gqa, answer, write):
    right = {"task": "a", "source": "w10 w20", "target": answer("w10 w20")}
    file = write(
        right,
        {"task": "b", "source": "w11", "target": "w1"},
        {"task": "b", "source": "w12", "target": answer("w12")},
        right | {"target": right["target"] + " "},  # to the letter
        {"source": "w13", "target": answer("w13")},  # of the task "all"
        "",
    )
    out = succeed(capsys, main, tiny_gqa.bundle, "--data", file, "--json")
    assert shares(out) == {"a": 0.5, "b": 0.5, "all": 1.0}
    table = succeed(capsys, main, tiny_gqa.bundle, "--data", file)
    assert re.search(r"b\W+2\W+50\.0%", table) and re.search(r"all\W+1\W+100\.0%", table)


def test_examples_limits_each_task(capsys, tiny_gqa, answer, write):
    right, wrong = {"source": "w10", "target": answer("w10")}, {"source": "w10", "target": "w1"}
    file = write(right, wrong, wrong, right | {"task": "b"}, wrong | {"task": "b"})
    assert shares(succeed(capsys, main, tiny_gqa.bundle, "--data", file, "--json", "--examples", 1)) == {"all": 1, "b": 1}
    assert shares(succeed(capsys, main, tiny_gqa.bundle, "--data", file, "--json", "--examples", 2)) == {"all": 0.5, "b": 0.5}


def test_images_lie_beside_the_file(capsys, tiny_gqa, answer, write, tmp_path):
    image = Image.radial_gradient("L").resize((70, 60))
    image.save(tmp_path / "a.png")
    source = "<start_of_image> w10"
    file = write({"source": source, "target": answer(source, image), "images": ["a.png"]})
    assert shares(succeed(capsys, main, tiny_gqa.bundle, "--data", file, "--json")) == {"all": 1}


def test_line_separators_inside_a_string(write):
    """JSON may hold them as they are; only a newline ends an example."""
    text = "one\u2028two\u0085three"
    assert list(read_examples(write({"source": text, "target": "x"}))) == [Example("all", text, "x")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not an example; write"),
        ("[]", "not an example; write"),
        ("3", "not an example; write"),
        ('{"source": "a"}', "not an example; write"),
        ('{"source": "a", "target": 3}', "task, source and target must be strings"),
        ('{"source": "a", "target": "b", "task": null}', "task, source and target must be strings"),
        ('{"source": "a", "target": "b", "images": "a.png"}', "images must be a list of file names"),
        ('{"source": "a", "target": "b", "images": [3]}', "images must be a list of file names"),
        ('{"source": "a", "target": "b", "images": null}', "images must be a list of file names"),
    ],
)
def test_a_malformed_line_is_named(capsys, write, line, message, tmp_path):
    file = write({"source": "a", "target": "b"}, "", line)
    failed = fail(capsys, main, tmp_path / "not reached", "--data", file)
    assert failed.code == 1 and failed.line.startswith(f"{file}:3: {message}")


def test_refusals(capsys, tiny_gqa, write, tmp_path):
    failed = fail(capsys, main, tiny_gqa.bundle, "--examples", 0)
    assert (failed.code, failed.line) == (2, "--examples 0: must be at least 1")
    failed = fail(capsys, main, tiny_gqa.bundle, "--data", tmp_path / "gone")
    assert (failed.code, failed.line) == (1, f"{tmp_path / 'gone'}: no such file or directory; check the path")
    file = write("", "  ")
    failed = fail(capsys, main, tiny_gqa.bundle, "--data", file)
    assert failed.code == 1 and failed.line.startswith(f"{file}: no examples in it; write")
    file.write_bytes(b"\xff")
    failed = fail(capsys, main, tiny_gqa.bundle, "--data", file)
    assert failed.code == 1 and failed.line == f"{file}: not UTF-8 text (byte 0); convert it to UTF-8"


def test_a_source_over_the_limit(capsys, tiny_gqa, write):
    failed = fail(capsys, main, tiny_gqa.bundle, "--data", write({"source": "w9 " * 320, "target": "x"}), stages=True)
    assert failed.code == 1 and failed.line.startswith("the source: 321 tokens, and this bundle takes 320")


def test_exit_codes_of_the_process(tiny_gqa, write, tmp_path):
    file = write({"source": "w10", "target": "w1"})
    done = run_process("t5g2.quant.evaluate", tiny_gqa.bundle, "--data", file, "--json")
    assert done.code == 0 and shares(done.out) == {"all": 0} and "Traceback" not in done.err
    done = run_process("t5g2.quant.evaluate", tmp_path, "--data", file)
    assert done.code == 1 and "not a bundle" in error_line(done.out, done.err)


def test_exact_match_counts():
    class Echo:
        def generate(self, source, images):
            return type("Result", (), {"text": source})

    pairs = [("a", "a"), ("a", "b"), ("c", "c "), ("", "")]
    assert exact_match(Echo(), [Example("t", source, target) for source, target in pairs]) == 0.5


def test_nano_s_held_out_examples():
    examples = list(nano_examples(3))
    tasks = {e.task for e in examples}
    assert len(examples) == 3 * len(tasks) and examples == list(nano_examples(3)) != list(nano_examples(3, seed=1))
    assert any(e.images for e in examples) and all(e.source.count("<start_of_image>") == len(e.images) for e in examples)


def test_reading_stops_at_the_bad_line(write):
    examples = read_examples(write({"source": "a", "target": "b"}, "{"))
    assert next(examples) == Example("all", "a", "b")
    with pytest.raises(T5g2Error, match=":2: not an example"):
        next(examples)
