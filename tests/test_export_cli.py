"""t5g2-export: what it writes, says and refuses. Lowering is faked here; real exports are in the tests of programs."""

import json
import os
import shutil

import pytest
from commands import error_line, fail, run_process, succeed
from exported import save_tiny

from t5g2.export import config, export_bundle, hub
from t5g2.export.checkpoint import Checkpoint
from t5g2.export.cli import main
from t5g2.export.export_bundle import BACKENDS
from t5g2.runtime.bundle import open_bundle, write_manifest
from t5g2.runtime.reference import load

LITERT = ["--size", "nano", "--backend", "litert"]
BUCKETS = "give lengths of 2 or more, each longer than the one before, such as 128,512,2048"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "my-model"
    save_tiny(folder, num_hidden_layers=1, layer_types=["sliding_attention"], vision={"num_hidden_layers": 1})
    return folder


@pytest.fixture
def checkpoint(saved, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(saved, tmp_path / "in" / saved.name)


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out" / "bundle"


def fake_lower(programs, path):
    path.write_bytes(b"program of " + ", ".join(programs).encode())
    return {name: 1000 for name in programs}


@pytest.fixture(autouse=True)
def no_lowering(monkeypatch):
    for backend in (BACKENDS["native"], BACKENDS["xnnpack"]):
        for name in ("trace_encoder", "trace_decoder_step", "trace_vision"):
            monkeypatch.setattr(backend, name, lambda *_: None)
        monkeypatch.setattr(backend, "lower", fake_lower)
    monkeypatch.setattr(export_bundle, "check_tokenizer", lambda *_: None)  # it would load the programs


def left_behind(output):
    """Whatever lies where the bundle would be, temporary folders included."""
    return list(output.parent.iterdir()) if output.parent.exists() else []


# --- what it writes ---


def test_writes_a_bundle(checkpoint, output, capsys):
    code = main(["--checkpoint", str(checkpoint), "--quant", "int4", "--max-source", "100", "-o", str(output)])
    out, err = capsys.readouterr()
    assert code == 0 and out == f"{output}\n"
    for word in ("lowering the encoder and the decoder step", "lowering the vision tower", "int4-g32", "100 / 512 tokens"):
        assert word in err
    manifest = open_bundle(output).manifest
    assert left_behind(output) == [output]
    assert sorted(manifest["files"]) == ["text.pte", "tokenizer.bin", "tokenizer.json", "vision.pte"]
    assert (output / "tokenizer.json").read_bytes() == (checkpoint / "tokenizer.json").read_bytes()
    assert manifest["model"]["name"] == "my-model" and manifest["backend"] == "native"
    assert config.ModelConfig.from_dict(manifest["model"]["config"]) == Checkpoint.open(checkpoint).config
    assert manifest["limits"] == {"max_source": 100, "max_target": 512, "max_rows": 16}
    assert manifest["cache_slots"] == [16 + 16]
    quantization = manifest["quantization"]
    assert [quantization[part]["name"] for part in ("text", "embedding", "vision")] == ["int4-g32", "int4-g32", "int8-channel"]
    assert manifest["tokens"] == {
        "bos": 2, "eos": [1], "pad": 0, "image": 292, "boi": 290, "eoi": 291, "tokens_per_image": 4,
    }  # fmt: skip
    assert manifest["image"] == {"side": 56, "channels": 3, "mean": [0.5] * 3, "std": [0.5] * 3}
    assert quantization["kv_cache"] == "float16" and quantization["packed_format"] == 1
    row_bytes = 2 * 1 * 32 * 2  # key and value, one kv head of 32 in float16
    assert manifest["memory"] == {
        "self_cache_bytes": 32 * row_bytes,
        "cross_kv_bytes_per_source_token": row_bytes,
        "planned_bytes": {"encoder": 1000, "decoder_step": 1000, "vision": 1000},
    }
    provenance = manifest["provenance"]
    assert provenance["folder"] == "my-model" and provenance["sha256"] == Checkpoint.open(checkpoint).sha256()
    assert set(provenance["tools"]) == {"t5g2", "torch", "executorch", "torchao"}


def test_no_vision(checkpoint, output, capsys):
    succeed(capsys, main, "--checkpoint", checkpoint, "--no-vision", "-o", output)
    manifest = open_bundle(output).manifest
    assert sorted(manifest["files"]) == ["text.pte", "tokenizer.bin", "tokenizer.json"]
    assert manifest["image"] is None and manifest["quantization"]["vision"] is None
    assert manifest["programs"] == {"text.pte": ["encoder", "decoder_step"]}


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--quant", "none"], ["float32", "float32"]),
        (["--quant", "int4"], ["int4-g32", "int8-channel"]),
        (["--quant", "int8"], ["int8-g32", "int8-channel"]),
        (["--quant", "int8", "--backend", "xnnpack"], ["int8-channel", "int8-channel"]),
        (["--quant", "int4", "--backend", "xnnpack"], ["int4-g32", "int8-channel"]),
        (["--quant", "int8", "--group-size", "channel"], ["int8-channel", "int8-channel"]),
        (["--quant", "int8", "--group-size", "64"], ["int8-g64", "int8-channel"]),
    ],
)
def test_quantization(checkpoint, output, capsys, options, names):
    succeed(capsys, main, "--checkpoint", checkpoint, "-o", output, *options)
    quantization = open_bundle(output).manifest["quantization"]
    assert [quantization["text"]["name"], quantization["vision"]["name"]] == names


def test_the_default_output_is_named_after_model_and_quantization(checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert succeed(capsys, main, "--checkpoint", checkpoint, "--quant", "int8") == "out/my-model-int8\n"
    open_bundle("out/my-model-int8")


def test_random_weights(output, capsys, monkeypatch, saved):
    monkeypatch.setitem(config.SIZES, "270m", Checkpoint.open(saved).config)
    succeed(capsys, main, "--size", "270m", "--random-weights", 3, "-o", output)
    manifest = open_bundle(output).manifest
    assert sorted(manifest["files"]) == ["text.pte", "vision.pte"]
    assert manifest["model"]["name"] == "270m-random"
    assert manifest["provenance"]["random_weights"] == 3 and manifest["provenance"]["size"] == "270m"
    monkeypatch.setattr("t5g2.runtime.reference.Program", lambda *_: None)
    monkeypatch.setattr("t5g2.runtime.text_programs.Program", lambda *_, **__: None)
    assert load(output).tokenizer is None


@pytest.mark.parametrize(
    ("options", "repo"), [(["--size", "1b"], "google/t5gemma-2-1b-1b"), (["--hub-id", "me/mine"], "me/mine")]
)
def test_from_the_hub(checkpoint, output, capsys, monkeypatch, options, repo):
    asked = []

    def download(repo_id, revision, progress_file):
        asked.append((repo_id, revision))
        return hub.HubSnapshot(repo_id, "abc123", checkpoint)

    monkeypatch.setattr(hub, "download", download)
    succeed(capsys, main, *options, "--revision", "v2", "-o", output)
    provenance = open_bundle(output).manifest["provenance"]
    assert asked == [(repo, "v2")] and provenance["hub_id"] == repo and provenance["commit"] == "abc123"


# --- usage errors, exit 2 ---


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--size", "2b"], "--size 2b: not one of nano, 270m, 1b, 4b"),
        ([], "give one of --size, --checkpoint and --hub-id"),
        (["--size", "nano", "--checkpoint", "x"], "give one of --size, --checkpoint and --hub-id"),
        (["--size", "nano", "--random-weights", "1"], "--random-weights: needs --size 270m, 1b or 4b"),
        (["--checkpoint", "x", "--random-weights", "1"], "--random-weights: needs --size 270m, 1b or 4b"),
        (["--size", "nano", "--revision", "main"], "--revision: only for a checkpoint from the Hub"),
        (
            ["--size", "nano", "--max-source", "long"],
            "argument --max-source: invalid int value: 'long' (see t5g2-export --help)",
        ),
        (["--size", "nano", "--backend", "cuda"], "--backend cuda: not one of native, xnnpack, litert"),
        (["--size", "nano", "--quant", "int4-mixed"], "--quant int4-mixed: only with --backend litert"),
        (["--size", "nano", "--source-buckets", "8"], "--source-buckets 8: only with --backend litert"),
        (["--size", "nano", "--package", "litertlm"], "--package litertlm: only with --backend litert"),
        ([*LITERT, "--package", "zip"], "--package zip: not one of litertlm"),
        (
            [*LITERT, "--package", "litertlm", "--source-buckets", "8"],
            "--source-buckets 8: a package has one length, of --max-source",
        ),
        ([*LITERT, "--source-buckets", "8,x"], f"--source-buckets 8,x: {BUCKETS}"),
        ([*LITERT, "--source-buckets", "64,8"], f"--source-buckets 64,8: {BUCKETS}"),
        ([*LITERT, "--source-buckets", "1,8"], f"--source-buckets 1,8: {BUCKETS}"),
        (
            [*LITERT, "--source-buckets", "8", "--max-source", "9"],
            "--max-source 9: the last of --source-buckets is the longest source; give one of them",
        ),
        (["--size", "nano", "--quantise", "int8"], "unrecognized arguments: --quantise int8 (see t5g2-export --help)"),
    ],
)
def test_usage(capsys, output, argv, message):
    failed = fail(capsys, main, *argv, "-o", output)
    assert (failed.code, failed.line) == (2, message) and not left_behind(output)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--quant", "int5"], "--quant int5: not one of none, int8, int4"),
        (["--group-size", "many"], "--group-size many: not one of 32, 64, 128, channel"),
        (["--quant", "none", "--group-size", "64"], "--group-size 64: --quant none has no scales; leave it out"),
        (["--group-size", "48"], "--group-size 48: not one of 32, 64, 128, channel"),
        (["--quant", "int4", "--group-size", "channel"],
         "--group-size channel: one int4 scale for a whole row is too coarse; use 32, 64 or 128"),
        (["--max-source", "0"], "--max-source 0: must be at least 2"),
        (["--max-target", "-3"], "--max-target -3: must be at least 2"),
        (["--group-size", "64", "--backend", "xnnpack"],
         "decoder.layers.0.mlp.down_proj.weight: rows of 96 weights do not divide into groups of 64, as XNNPACK needs; "
         "use another --group-size, or --backend native"),
        (["--quant", "int8", "--group-size", "32", "--backend", "xnnpack"],
         "--group-size 32: XNNPACK has no int8 kernel for groups; use --group-size channel, or --backend native"),
    ],
)  # fmt: skip
def test_usage_that_the_checkpoint_decides(capsys, checkpoint, output, argv, message):
    failed = fail(capsys, main, "--checkpoint", checkpoint, "-o", output, *argv, stages=True)
    assert (failed.code, failed.line) == (2, message) and not left_behind(output)


# --- inputs that are wrong, exit 1 ---


def refused(capsys, checkpoint, output, *options):
    failed = fail(capsys, main, "--checkpoint", checkpoint, "-o", output, *options, stages=True)
    assert failed.code == 1 and not left_behind(output)
    return failed.line


def test_no_checkpoint_folder(capsys, tmp_path, output):
    assert "gone: not there; expected a folder with config.json" in refused(capsys, tmp_path / "gone", output)
    assert "no checkpoint; expected config.json" in refused(capsys, tmp_path, output)


def test_truncated_weights(capsys, checkpoint, output):
    weights = checkpoint / "model.safetensors"
    os.truncate(weights, weights.stat().st_size - 100)
    line = refused(capsys, checkpoint, output)
    assert line.startswith(f"{weights}: truncated or damaged") and line.endswith("download it again")


def test_an_unsupported_config(capsys, checkpoint, output):
    data = json.loads((checkpoint / "config.json").read_text())
    data["decoder"]["attn_logit_softcapping"] = 50.0
    (checkpoint / "config.json").write_text(json.dumps(data))
    line = refused(capsys, checkpoint, output)
    assert line == f"{checkpoint / 'config.json'}: decoder.attn_logit_softcapping is 50.0; supported: null"


@pytest.mark.parametrize("content", [None, b"{", b"\xff"])
def test_a_missing_or_damaged_tokenizer(capsys, checkpoint, output, content):
    (checkpoint / "tokenizer.json").unlink()
    if content:
        (checkpoint / "tokenizer.json").write_bytes(content)
    line = refused(capsys, checkpoint, output)
    assert "tokenizer.json" in line and ("missing; it is saved" in line or "copy tokenizer.json" in line)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("generation_config.json", "{", "generation_config.json: not valid JSON"),
        ("generation_config.json", "[]", "generation_config.json: not a JSON object; download it again"),
        ("generation_config.json", '{"eos_token_id": [1, 300]}', "eos_token_id is [1, 300]; give ids below vocab_size 300"),
        ("generation_config.json", '{"eos_token_id": []}', "eos_token_id is []; give ids below vocab_size 300"),
        ("preprocessor_config.json", '{"size": {"height": 64, "width": 64}}', "'width': 64}, and only {'height': 56"),
        ("preprocessor_config.json", '{"do_pan_and_scan": true}', "do_pan_and_scan is True, and only False"),
        ("processor_config.json", '{"image_processor": {"do_normalize": false}}', "do_normalize is False, and only True"),
        ("preprocessor_config.json", '{"resample": 3}', "resample is 3, and only 2 is supported"),
    ],
)
def test_side_files_that_do_not_fit(capsys, checkpoint, output, file, content, message):
    (checkpoint / file).write_text(content)
    assert message in refused(capsys, checkpoint, output)


def test_side_files_are_followed(capsys, checkpoint, output):
    (checkpoint / "generation_config.json").write_text('{"eos_token_id": [5, 1]}')
    image = {"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1]}
    (checkpoint / "processor_config.json").write_text(json.dumps({"image_processor": image}))
    succeed(capsys, main, "--checkpoint", checkpoint, "-o", output)
    manifest = open_bundle(output).manifest
    assert manifest["tokens"]["eos"] == [5, 1] and manifest["image"]["mean"] == [0.1, 0.2, 0.3]


# --- the output ---


def test_an_existing_output(capsys, checkpoint, output):
    succeed(capsys, main, "--checkpoint", checkpoint, "-o", output)
    before = open_bundle(output).manifest
    failed = fail(capsys, main, "--checkpoint", checkpoint, "-o", output)
    assert (failed.code, failed.line) == (1, f"{output}: already exists; choose another --output, or --force to overwrite it")
    assert open_bundle(output).manifest == before
    succeed(capsys, main, "--checkpoint", checkpoint, "-o", output, "--force", "--quant", "int8")
    assert open_bundle(output).manifest["quantization"]["text"]["name"] == "int8-g32"
    assert left_behind(output) == [output]


def test_force_keeps_what_is_no_bundle(capsys, checkpoint, output):
    output.mkdir(parents=True)
    (output / "thesis.txt").write_text("years")
    failed = fail(capsys, main, "--checkpoint", checkpoint, "-o", output, "--force")
    assert failed.code == 1 and "exists and is not a bundle, so --force does not replace it" in failed.line
    assert (output / "thesis.txt").read_text() == "years"


def test_an_output_below_a_file(capsys, checkpoint, tmp_path):
    (tmp_path / "file").write_text("content")
    failed = fail(capsys, main, "--checkpoint", checkpoint, "-o", tmp_path / "file" / "bundle", stages=True)
    assert failed.code == 1 and str(tmp_path / "file") in failed.line
    assert (tmp_path / "file").read_text() == "content"


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize(
    ("error", "code", "word"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (RuntimeError("lowering broke"), 1, "lowering broke"),
        (OSError(28, "No space left on device"), 1, "no space left on device; free some space"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_a_failing_export_leaves_nothing(capsys, checkpoint, output, monkeypatch, error, code, word, there):
    if there:
        output.mkdir(parents=True)
        write_manifest(output, {"mark": "old"})

    def failing(programs, path):
        path.write_bytes(b"half a program")
        raise error

    monkeypatch.setattr(BACKENDS["native"], "lower", failing)
    assert main(["--checkpoint", str(checkpoint), "-o", str(output), "--force"]) == code
    out, err = capsys.readouterr()
    assert out == "" and word in err.splitlines()[-1] and "Traceback" not in err
    assert left_behind(output) == ([output] if there else [])
    if there:
        assert open_bundle(output).manifest["mark"] == "old"


# --- as a shell sees it ---


def test_exit_codes_of_the_process(checkpoint, output):
    done = run_process("t5g2.export.cli", "--size", "2b")
    assert done.code == 2 and error_line(done.out, done.err).startswith("--size 2b")
    (checkpoint / "config.json").unlink()
    done = run_process("t5g2.export.cli", "--checkpoint", checkpoint, "-o", output)
    assert done.code == 1 and "config.json is missing" in error_line(done.out, done.err, stages=True)
    assert not left_behind(output)


def test_help_shows_defaults(capsys):
    text = " ".join(succeed(capsys, main, "--help").split())
    assert "none, int8 or int4; int4-mixed on litert (default: int4)" in text and "longest source (default: 2048)" in text
