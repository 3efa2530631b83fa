"""LiteRT bundles: the same tests as other backends pass, and what is LiteRT's own: buckets, integers, the weight cache."""

import importlib.util
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from commands import error_line
from exported import TINY_LIMITS, export
from test_model import (  # noqa: F401  the same tests over this module's `tiny`
    TEXT,
    model,
    oracle,
    test_a_dropped_stream_is_freed,
    test_a_fork_outlives_its_origin,
    test_a_saved_session,
    test_a_session_answers_many_times,
    test_beams_equal_transformers,
    test_cancel_from_another_thread,
    test_closing_while_another_thread_generates,
    test_greedy_ids_equal_transformers,
    test_prefix,
    test_scores,
    test_several_pictures_in_order,
    test_the_engine_and_the_reference_agree,
    test_threads_share_a_model,
    test_threads_share_a_stream,
)
from test_parity import (  # noqa: F401
    random_ids,
    test_encoder_states,
    test_end_of_image_without_an_image,
    test_images,
    test_target_lengths_around_blocks_and_windows,
    test_text,
    test_the_comparison_sees_small_changes,
)

import t5g2
from t5g2.nano import CHECKPOINT_DIR
from t5g2.quant.evaluate import exact_match, nano_examples
from t5g2.quant.schemes import INT8_CHANNEL
from t5g2.runtime.bundle import Limits, write_manifest
from t5g2.runtime.errors import T5g2Error
from t5g2.runtime.native import LIBRARY
from t5g2.runtime.reference import load as load_reference

for extra in ("ai_edge_litert", "ai_edge_quantizer", "litert_torch"):
    pytest.importorskip(extra, reason=f"no {extra}; pip install 't5g2[litert]'")

BUCKET = 24  # beside the longest source


@pytest.fixture(scope="module")
def tiny(tiny_bundle, tmp_path_factory):
    """As conftest's: the float32 tiny model with two kv heads, as a LiteRT bundle. `.oracle` runs the native one."""
    other, folder = tiny_bundle(2), tmp_path_factory.mktemp("litert")
    bundle = export(other.checkpoint, folder / "bundle", "none", TINY_LIMITS, "litert", source_buckets=[BUCKET])
    found = t5g2.load(bundle, threads=2, cache_folder=folder / "cache")
    return SimpleNamespace(reference=other.reference, bundle=bundle, model=found, oracle=other.oracle, cache=folder / "cache")


@pytest.fixture(scope="module")
def tiny_gqa(tiny):
    return tiny


@pytest.fixture(scope="module")
def nano(tmp_path_factory):
    """The shipped checkpoint in int4 with an int8 token table."""
    folder = tmp_path_factory.mktemp("nano") / "bundle"
    limits = Limits(max_source=128, max_target=64)
    return export(CHECKPOINT_DIR, folder, "int4", limits, "litert", table_scheme=INT8_CHANNEL, with_vision=False)


def test_source_lengths_around_a_bucket(tiny):
    for length in (BUCKET - 1, BUCKET, BUCKET + 1, TINY_LIMITS.max_source):
        source, target = random_ids(length, seed=length).tolist(), random_ids(5, seed=1).tolist()
        expected = tiny.oracle.logits(source, target)
        np.testing.assert_allclose(tiny.model.logits(source, target), expected, atol=1e-5 * np.abs(expected).max())


def test_a_short_source_after_a_long_one(tiny):
    """What the longer one left in the rows of the padding must not be seen."""
    short, target = random_ids(5, seed=1).tolist(), random_ids(5, seed=2).tolist()
    expected = tiny.model.logits(short, target)
    tiny.model.logits(random_ids(BUCKET, seed=3).tolist(), target)
    assert np.array_equal(tiny.model.logits(short, target), expected)


def test_manifest(tiny):
    manifest = tiny.model.manifest
    assert manifest["backend"] == "litert" and manifest["source_buckets"] == [BUCKET, TINY_LIMITS.max_source]
    assert {"text.tflite", "vision.tflite", "tokenizer.bin"} <= manifest["files"].keys()
    assert "litert-torch" in manifest["provenance"]["tools"]


def test_the_float32_token_table_is_in_the_file_once(tiny):
    """Four signatures look rows up in it, and two of them multiply by it."""
    from ai_edge_litert import schema_py_generated as schema

    decoder = tiny.model.manifest["model"]["config"]["decoder"]
    program = schema.Model.GetRootAs((tiny.bundle / "text.tflite").read_bytes(), 0)
    sizes = [program.Buffers(i).DataLength() for i in range(program.BuffersLength())]
    assert sizes.count(4 * decoder["vocab_size"] * decoder["hidden_size"]) == 1


def test_answers_in_int4_with_an_int8_table(nano):
    found = t5g2.load(nano, cache_folder="")
    text = [e for e in nano_examples(6) if not e.images and e.task != "lookup"]  # whose sources are longer
    assert len(text) == 24 and exact_match(found, text) >= 0.9
    quantization = found.manifest["quantization"]
    assert (quantization["text"]["name"], quantization["embedding"]["name"]) == ("int4-g32", "int8-channel")


def test_the_file_holds_each_matrix_once_with_the_scheme_s_integers(nano):
    """The export checks its file against the integers of quant/; here that the check sees what it is for."""
    from t5g2.export.checkpoint import EMBEDDING, Checkpoint
    from t5g2.export.litert import verify
    from t5g2.export.litert.weights import LiteRtWeights
    from t5g2.quant.schemes import scheme_for

    checkpoint = Checkpoint.open(CHECKPOINT_DIR)
    weights = LiteRtWeights(checkpoint, scheme_for("int4"))
    weights.rounded(EMBEDDING, INT8_CHANNEL)
    table = dict(weights.expected.matrices)
    for stack, layers in (("encoder", checkpoint.config.encoder.num_layers), ("decoder", checkpoint.config.decoder.num_layers)):
        for layer in range(layers):
            attention, mlp = (weights.scope(f"{stack}.layers.{layer}.{part}") for part in ("self_attn", "mlp"))
            for scope, names in ((attention, "qkvo"), (mlp, ("gate", "up", "down"))):
                for name in names:
                    scope.linear(f"{name}_proj")
    verify.check(nano / "text.tflite", weights.expected)

    with pytest.raises(T5g2Error, match="a quantized matrix of it is none of the model's"):
        verify.check(nano / "text.tflite", verify.Expected(table))
    weights.rounded(EMBEDDING, scheme_for("int4"))
    with pytest.raises(T5g2Error, match=r"embed_tokens.weight is in it 0 times with the integers"):
        verify.check(nano / "text.tflite", weights.expected)


def test_other_scales_and_a_second_copy_are_found(nano, monkeypatch):
    from t5g2.export.litert import verify

    path = nano / "text.tflite"
    found = list(verify.quantized_matrices(path))
    expected = verify.Expected({key: (f"matrix {i}", scales) for i, (key, scales) in enumerate(found)})
    verify.check(path, expected)
    monkeypatch.setattr(verify, "quantized_matrices", lambda path: [*found, found[3]])
    with pytest.raises(T5g2Error, match="matrix 3 is in it 2 times"):
        verify.check(path, expected)
    other = found[3][1].copy()
    other[1] *= 1.01
    monkeypatch.setattr(verify, "quantized_matrices", lambda path: [*found[:3], (found[3][0], other), *found[4:]])
    with pytest.raises(T5g2Error, match="matrix 3 has other scales"):
        verify.check(path, expected)


# --- the weight cache ---


def test_packed_weights_are_kept_by_the_hash_of_the_program(tiny):
    hashes = {entry["sha256"] for name, entry in tiny.model.manifest["files"].items() if name.endswith(".tflite")}
    tiny.model.generate(f"<start_of_image> {TEXT}", [np.zeros((8, 8, 3), np.uint8)], max_new_tokens=1)  # loads the tower
    kept = list((tiny.cache / "litert").iterdir())
    assert {file.name.split("-")[0] for file in kept} == hashes and all(file.stat().st_size > 1000 for file in kept)
    before = {file: file.stat().st_mtime_ns for file in kept}
    again = t5g2.load(tiny.bundle, cache_folder=tiny.cache)
    assert again.generate(TEXT, max_new_tokens=5) == tiny.model.generate(TEXT, max_new_tokens=5)
    assert {file: file.stat().st_mtime_ns for file in (tiny.cache / "litert").iterdir()} == before


@pytest.mark.parametrize("options", [{"cache_folder": ""}, {"weight_cache": False}])
def test_without_a_weight_cache(tiny, tmp_path, monkeypatch, options):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = t5g2.load(tiny.bundle, **options)
    assert found.generate(TEXT, max_new_tokens=5) == tiny.model.generate(TEXT, max_new_tokens=5)
    assert not list(tmp_path.rglob("*.xnnpack"))


def test_a_cache_folder_that_cannot_be_written(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    found = t5g2.load(tiny.bundle, cache_folder=tmp_path / "file")
    assert found.generate(TEXT, max_new_tokens=5) == tiny.model.generate(TEXT, max_new_tokens=5)


# --- what goes wrong ---


def test_without_the_extra(tiny, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if "edge" in name else find_spec(name, *a))
    with pytest.raises(T5g2Error, match=r"LiteRT's, which are not installed; pip install 't5g2\[litert\]'"):
        t5g2.load(tiny.bundle)
    with pytest.raises(T5g2Error, match=r"--backend litert: ai_edge_\w+ is not installed; pip install 't5g2\[litert\]'"):
        export(CHECKPOINT_DIR, tiny.bundle.with_name("none"), "none", TINY_LIMITS, "litert")


def test_a_program_that_litert_does_not_load(tiny, tmp_path):
    for file in tiny.bundle.iterdir():
        shutil.copyfile(file, tmp_path / file.name)
    (tmp_path / "text.tflite").write_bytes(b"no program" * 400)
    with pytest.raises(T5g2Error, match=r"text\.tflite: 4000 bytes where"):
        t5g2.load(tmp_path)
    (tmp_path / "manifest.json").unlink()
    write_manifest(tmp_path, {k: v for k, v in tiny.model.manifest.items() if k not in ("files", "manifest_sha256")})
    with pytest.raises(T5g2Error, match=r"text\.tflite: LiteRT does not load it .*; export the bundle again"):
        t5g2.load(tmp_path, cache_folder=tmp_path / "cache")
    assert not [file for file in (tmp_path / "cache").rglob("*") if file.is_file() and "xnnpack" in file.name]


def test_what_python_raises_in_a_program_is_raised_again(tiny, monkeypatch):
    found = t5g2.load(tiny.bundle, cache_folder=tiny.cache)
    programs = found._handle.made_from[0]
    session = found.session(TEXT)
    for error in (KeyboardInterrupt(), MemoryError("x")):

        def fail(*_, error=error):
            raise error

        monkeypatch.setattr(programs._decoders.setdefault(BUCKET, SimpleNamespace()), "run", fail, raising=False)
        with pytest.raises(type(error)):
            session.generate(max_new_tokens=3)
        monkeypatch.undo()
        programs._decoders.clear()
    assert session.generate(max_new_tokens=3) == tiny.model.generate(TEXT, max_new_tokens=3)


def test_other_runners_say_where_to_go(tiny):
    with pytest.raises(T5g2Error, match=r"its programs are LiteRT's, and this runner calls ExecuTorch's; use t5g2\.load"):
        load_reference(tiny.bundle)
    done = subprocess.run(
        [LIBRARY.with_name("t5g2-run"), tiny.bundle, "--prompt", TEXT], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "its programs are LiteRT's, which run in Python: t5g2.load" in error_line(done.stdout, done.stderr)


def test_nothing_is_printed(tiny):
    """By the libraries, while a bundle is loaded and answers."""
    script = (
        "import sys, t5g2\n"
        "model = t5g2.load(sys.argv[1], cache_folder='')\n"
        "model.generate('w10 w20', max_new_tokens=2)\n"
        "sys.stdout.flush(), sys.stderr.flush()\n"
        "import os; os._exit(0)\n"  # at the end of a process LiteRT says that it frees its accelerators
    )
    done = subprocess.run([sys.executable, "-c", script, tiny.bundle], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source_buckets": []}, "not a bundle manifest, or a damaged one"),
        ({"source_buckets": [24, 24, 320]}, "not a bundle manifest, or a damaged one"),
        ({"source_buckets": [24, 300]}, "not a bundle manifest, or a damaged one"),
        ({"backend": "other"}, "not a bundle manifest, or a damaged one"),
    ],
)
def test_a_manifest_of_another_kind(tiny, tmp_path, change, message):
    for file in tiny.bundle.iterdir():
        if file.name != "manifest.json":
            os.link(file, tmp_path / file.name)
    manifest = {k: v for k, v in tiny.model.manifest.items() if k not in ("files", "manifest_sha256")}
    write_manifest(tmp_path, manifest | change)
    with pytest.raises(T5g2Error, match=message):
        t5g2.load(tmp_path)
