"""Ratios of two results, and what can't be compared."""

import copy
import json

import pytest

from t5g2.benchmarks import compare


def figure(median: float, half: float = 0.01) -> dict:
    return {"median": median, "low": median * (1 - half), "high": median * (1 + half), "runs": [median]}


def result(bundle: str = "a", threads: int = 1, **changes) -> dict:
    state = {"core_ghz": 2.0, "celsius": 40, "frequency_limit": 1.0, "throttle_events": None}
    made = {
        "bundle": bundle, "threads": threads, "source": 64, "images": 0, "target": 8,
        "encode_tok_s": figure(100), "first_token_s": figure(0.5),
        "decode": [{"depth": 0, "tok_s": figure(20)}, {"depth": 8, "tok_s": figure(10)}],
        "resident_mb": 300, "peak_mb": 400, "state_before": dict(state), "state_after": dict(state), "throttling": "none",
    }  # fmt: skip
    return made | changes


def report(*results: dict, cpu: str = "CPU X") -> dict:
    loading = [{"bundle": r["bundle"], "threads": r["threads"], "load_warm_s": 0.2, "load_cold_s": None,
                "first_token_cold_s": None} for r in results if r["source"] == 64 and not r["images"]]  # fmt: skip
    return {"format": "t5g2-bench", "format_version": 1, "machine": {"cpu": cpu}, "results": list(results), "loading": loading}


@pytest.fixture
def files(tmp_path):
    def write(before: dict, after: dict) -> list[str]:
        for name, content in (("before", before), ("after", after)):
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        return [str(tmp_path / "before.json"), str(tmp_path / "after.json")]

    return write


def succeed(capsys, paths: list[str]) -> list[str]:
    code = compare.main(paths)
    out, err = capsys.readouterr()
    assert code == 0 and err == ""
    return out.splitlines()


def refused(capsys, paths: list[str]) -> str:
    """The message, with the files' names in place of their paths."""
    code = compare.main(paths)
    out, err = capsys.readouterr()
    assert code == 1 and out == "" and len(err.splitlines()) == 1
    prefix, message = err.strip().split(": error: ", 1)
    assert prefix == "t5g2-compare"
    for path in paths:
        message = message.replace(path, path.rsplit("/", 1)[1])
    return message


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_ratios(capsys, files):
    changed = result(encode_tok_s=figure(150), first_token_s=figure(0.25), resident_mb=150)
    changed["decode"] = [{"depth": 0, "tok_s": figure(20.2)}, {"depth": 8, "tok_s": figure(5)}]
    after = report(changed)
    after["loading"][0]["load_warm_s"] = 0.1
    out = succeed(capsys, files(report(result()), after))
    assert cells(out[0]) == [
        "configuration", "encode tok/s", "decode tok/s at 0", "decode tok/s at 8", "first token s", "resident MB", "peak MB",
    ]  # fmt: skip
    assert cells(out[2]) == ["a, 1 thread, source 64, target 8", "1.50", "1.01 ~", "0.50", "0.50", "0.50", "1.00"]
    assert cells(out[6]) == ["a, 1 thread", "0.50", "–", "–"]
    assert "In one file only" not in out[-1] and "within the noise" in out[-1]


def test_noise_is_the_overlap_of_the_quartiles():
    assert compare.overlap(figure(100, 0.05), figure(110, 0.05))
    assert not compare.overlap(figure(100, 0.04), figure(110, 0.04))
    assert not compare.overlap(figure(110, 0.04), figure(100, 0.04))


def test_configurations_of_one_file_only(capsys, files):
    before = report(result(), result(source=512), result("b"))
    after = report(result(threads=2), result(images=1), result(), result("b"))
    after["results"][-1]["decode"] = [{"depth": 7, "tok_s": figure(20)}]
    out = succeed(capsys, files(before, after))
    assert [cells(line)[0] for line in out[2:4]] == ["a, 1 thread, source 64, target 8", "b, 1 thread, source 64, target 8"]
    assert cells(out[3])[2:4] == ["–", "–"]  # no depth that both hold
    assert out[-1].startswith("In one file only: a, 1 thread, source 512, target 8 (")
    assert "; a, 2 threads, source 64, target 8 (" in out[-1] and "; a, 1 thread, source 64, target 8, 1 image (" in out[-1]


def with_state(**values) -> dict:
    changed = copy.deepcopy(result())
    for state in ("state_before", "state_after"):
        changed[state] |= values
    return changed


@pytest.mark.parametrize("turned", [False, True])
def test_throttled(capsys, files, turned):
    pair = [report(result()), report(result(), result("b", throttling="3 throttle events"))]
    message = refused(capsys, files(*(pair[::-1] if turned else pair)))
    assert message == (
        f"{'before' if turned else 'after'}.json: b, 1 thread, source 64, target 8: throttled (3 throttle events); "
        "let it cool down and measure again"
    )


def test_other_frequency_limit(capsys, files):
    message = refused(capsys, files(report(result()), report(with_state(frequency_limit=0.6))))
    assert message == (
        "after.json: a, 1 thread, source 64, target 8: a core was held to 60% of its frequency, and to 100% in before.json; "
        "let the machine cool down and measure both again"
    )


def test_other_clock(capsys, files):
    message = refused(capsys, files(report(with_state(core_ghz=2.5)), report(result())))
    assert message.startswith(
        "after.json: a, 1 thread, source 64, target 8: a core ran at 2.00 GHz, and at 2.50 in before.json"
    )
    slow_start = result()
    slow_start["state_before"]["core_ghz"] = 1.0
    succeed(capsys, files(report(slow_start), report(with_state(core_ghz=2.1, frequency_limit=None))))


def test_other_machine(capsys, files):
    message = refused(capsys, files(report(result()), report(result(), cpu="CPU Y")))
    assert message == "after.json: measured on CPU Y, and before.json on CPU X; measure both on the same machine"
    phones = [report(result()) | {"device": {"name": name}} for name in ("Phone 1", "Phone 2")]
    assert "measured on Phone 2, and before.json on Phone 1" in refused(capsys, files(*phones))
    succeed(capsys, files(report(result()), phones[0]))


def test_nothing_in_common(capsys, files):
    message = refused(capsys, files(report(result()), report(result("b"))))
    assert message == "before.json and after.json have no configuration in common; measure the same bundles and options"


def test_a_configuration_twice(capsys, files):
    message = refused(capsys, files(report(result(), result()), report(result())))
    assert message.startswith("before.json: holds a, 1 thread, source 64, target 8 twice; ")


def test_not_a_result(capsys, files):
    assert refused(capsys, files({}, report())) == "before.json: not a result of t5g2-bench --output json"


@pytest.mark.parametrize(
    ("where", "key", "message"),
    [
        ((), "results", "the report lacks results"),
        (("machine",), "cpu", "machine lacks cpu"),
        (("results", 1), "encode_tok_s", "results[1] lacks encode_tok_s"),
        (("results", 0, "decode", 1), "tok_s", "results[0].decode[1] lacks tok_s"),
        (("results", 0, "state_after"), "core_ghz", "results[0].state_after lacks core_ghz"),
        (("results", 0, "first_token_s"), "high", "results[0].first_token_s lacks high"),
        (("loading", 0), "load_warm_s", "loading[0] lacks load_warm_s"),
    ],
)
@pytest.mark.parametrize("name", ["before", "after"])
def test_a_result_that_lacks_keys(capsys, files, where, key, message, name):
    broken, whole = report(result(), result("b")), report(result(), result("b"))
    place = broken
    for step in where:
        place = place[step]
    del place[key]
    paths = files(*((broken, whole) if name == "before" else (whole, broken)))
    assert refused(capsys, paths) == f"{name}.json: {message}; measure again with t5g2-bench"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("machine", None, "machine is no object"),
        ("loading", {}, "loading is no list"),
        ("results", [3], "results[0] is no object"),
    ],
)
def test_a_result_with_other_kinds_of_values(capsys, files, key, value, message):
    paths = files(report(result()), report(result()) | {key: value})
    assert refused(capsys, paths) == f"after.json: {message}; measure again with t5g2-bench"
