"""LiteRT bundles: the same tests as other backends pass, and what is LiteRT's own: buckets, integers, the weight cache."""

import importlib.util
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from commands import error_line
from exported import TINY_LIMITS, export
from safetensors.torch import load_file, save_file
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
from t5g2.export.checkpoint import EMBEDDING, Checkpoint
from t5g2.export.litert import verify
from t5g2.export.litert.constants import stored_scales
from t5g2.export.litert.programs import write_vision
from t5g2.nano import CHECKPOINT_DIR
from t5g2.quant.evaluate import exact_match, nano_examples
from t5g2.quant.schemes import FLOAT32, INT8_CHANNEL, quantize_weight, scheme_for
from t5g2.runtime.bundle import Limits, write_manifest
from t5g2.runtime.errors import T5g2Error
from t5g2.runtime.native import LIBRARY
from t5g2.runtime.reference import load as load_reference

for extra in ("ai_edge_litert", "litert_torch"):
    pytest.importorskip(extra, reason=f"no {extra}; pip install 't5g2[litert]'")

BUCKET = 24  # beside the longest source


@pytest.fixture(scope="module")
def tiny(tiny_bundle, tmp_path_factory):
    """As conftest's: the float32 tiny model with two kv heads, as a LiteRT bundle. `.oracle` runs the native one."""
    other, folder = tiny_bundle(2), tmp_path_factory.mktemp("litert")
    bundle = export(other.checkpoint, folder / "bundle", "none", TINY_LIMITS, "litert", source_buckets=[BUCKET])
    found = t5g2.load(bundle, threads=2, cache_folder=folder / "cache")
    paths = {"bundle": bundle, "cache": folder / "cache", "checkpoint": other.checkpoint}
    return SimpleNamespace(reference=other.reference, model=found, oracle=other.oracle, **paths)


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
    assert tiny.model.kernels == "litert"


def test_the_float32_matrices_are_in_the_file_once(tiny):
    """Four signatures look rows up in the token table, and two of them multiply by it."""
    checkpoint = Checkpoint.open(tiny.checkpoint)
    found = stored(tiny.bundle / "text.tflite")
    for name in each_matrix_once(checkpoint, found):
        assert all(np.array_equal(content, checkpoint.tensor(name).float().numpy()) for _, content, _ in found[name]), name
    assert len(found[EMBEDDING]) == 4


def test_answers_in_int4_with_an_int8_table(nano):
    found = t5g2.load(nano, cache_folder="")
    text = [e for e in nano_examples(6) if not e.images and e.task != "lookup"]  # whose sources are longer
    assert len(text) == 24 and exact_match(found, text) >= 0.9
    quantization = found.manifest["quantization"]
    assert (quantization["text"]["name"], quantization["embedding"]["name"]) == ("int4-g32", "int8-channel")


def test_integers_and_scales_are_those_of_the_scheme(nano):
    checkpoint = Checkpoint.open(CHECKPOINT_DIR)
    found = stored(nano / "text.tflite")
    for name in each_matrix_once(checkpoint, found):
        scheme = INT8_CHANNEL if name == EMBEDDING else scheme_for("int4")
        values, scales = quantize_weight(checkpoint.tensor(name), scheme, name)
        for _, integers, held in found[name]:
            assert np.array_equal(integers, values.numpy()), name
            np.testing.assert_array_equal(held, scales.numpy().reshape(held.shape), name)


def each_matrix_once(checkpoint, found: dict) -> list[str]:
    """The names of the text half's matrices, all of which are in what `stored` found, in one buffer each."""
    matrices = [name for name in checkpoint.names() if name in found]
    assert len(matrices) == 1 + 7 * (checkpoint.config.encoder.num_layers + checkpoint.config.decoder.num_layers)
    assert all(len({buffer for buffer, *_ in found[name]}) == 1 for name in matrices)
    return matrices


def stored(path) -> dict[str, list[tuple]]:
    """The matrices of a file by name, read without our code: of each signature's tensor its buffer, values [N, K], scales."""
    from ai_edge_litert import schema_py_generated as schema

    data = path.read_bytes()
    program = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))

    def content(tensor, dtype):
        buffer = program.buffers[tensor.buffer]
        assert buffer.offset % 64 == 0
        return np.frombuffer(data, dtype, buffer.size // np.dtype(dtype).itemsize, buffer.offset)

    found = {}
    for graph in program.subgraphs:
        for tensor in graph.tensors:
            name, types = tensor.name.decode(), schema.TensorType
            if not name.endswith("weight") or not program.buffers[tensor.buffer].size:
                continue
            values, scales = content(tensor, np.float32 if tensor.type == types.FLOAT32 else np.uint8), None
            if tensor.type != types.FLOAT32 and tensor.quantization.details:
                scales = content(graph.tensors[tensor.quantization.details.scales], np.float16).astype(np.float32)
            elif tensor.type != types.FLOAT32:
                scales = tensor.quantization.scale
                assert not tensor.quantization.zeroPoint.any() and tensor.quantization.quantizedDimension == 0
            if tensor.type == types.INT4:
                values = np.stack((values << 4, values), -1).view(np.int8) >> 4
            elif tensor.type == types.INT8:
                values = values.view(np.int8)
            found.setdefault(name, []).append((tensor.buffer, values.reshape(tensor.shape), scales))
    return found


def test_the_check_of_a_written_file(nano, monkeypatch):
    """What an export does before it calls a file done."""
    path = nano / "text.tflite"
    found = list(verify.stored_matrices(path, stored(path).keys()))
    expected = dict(found)
    verify.check(path, expected)
    third, content = found[3]

    def check_after(*changed):
        monkeypatch.setattr(verify, "stored_matrices", lambda path, names: [*found[:3], *changed, *found[4:]])
        verify.check(path, expected)

    with pytest.raises(T5g2Error, match=f"{third} is in it 2 times"):
        check_after(found[3], found[3])
    with pytest.raises(T5g2Error, match=f"{third} is in it 0 times"):
        check_after()
    with pytest.raises(T5g2Error, match="other, a quantized matrix of it, is none of the model's"):
        check_after(("other", content))
    with pytest.raises(T5g2Error, match=f"{third} has other values than its scheme gives"):
        check_after((third, verify.Expected("0" * 64, content.scales)))
    with pytest.raises(T5g2Error, match=f"{third} has other scales"):
        check_after((third, verify.Expected(content.sha256, content.scales * np.float16(1.01))))


def test_scales_of_groups_are_float16():
    scheme = scheme_for("int4")
    scales = torch.tensor([[1e-30, 2.0**-24, 3.2e-5], [0.0078, 1.0, 65000.0]]).bfloat16().float()
    held = torch.from_numpy(stored_scales(scales, scheme, "m")).float()
    assert held[0, 0] == 2.0**-24 and torch.equal(held.flatten()[1:], scales.flatten()[1:])  # LiteRT refuses a scale of 0
    with pytest.raises(T5g2Error, match=r"m: weights up to 4\.62e\+05 need larger scales than LiteRT stores"):
        stored_scales(torch.full((1, 1), 66048.0), scheme, "m")
    assert stored_scales(torch.full((2, 1), 1e-30), INT8_CHANNEL, "m").dtype == np.float32


def test_a_matrix_that_is_not_finite_leaves_nothing(tmp_path):
    shutil.copytree(CHECKPOINT_DIR, tmp_path / "nano")
    file = tmp_path / "nano" / "model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("decoder.layers.1.mlp.up_proj.weight"))
    tensors[name][0, 0] = float("nan")
    save_file(tensors, file, {"format": "pt"})
    limits = Limits(max_source=16, max_target=16)
    with pytest.raises(T5g2Error, match=r"decoder\.layers\.1\.mlp\.up_proj\.weight holds values that are not finite"):
        export(tmp_path / "nano", tmp_path / "bundle", "int4", limits, "litert", with_vision=False)
    assert [file.name for file in tmp_path.iterdir()] == ["nano"]


def test_pictures_are_attended_to_in_blocks(tiny, tmp_path, monkeypatch):
    """A real tower has 4096 patches; the converter joins products that it can, which would need all scores at once."""
    from ai_edge_litert.interpreter import Interpreter

    checkpoint = Checkpoint.open(tiny.checkpoint)
    vision = checkpoint.config.vision
    patches = vision.patches_per_side**2
    monkeypatch.setattr("t5g2.export.litert.vision._QUERY_BLOCK", patches // 4)
    write_vision(checkpoint, tmp_path / "vision.tflite", FLOAT32, lambda stage: None)
    pixels = np.random.default_rng(0).standard_normal(
        (1, vision.num_channels, vision.image_size, vision.image_size), np.float32
    )
    whole, blocks = (Interpreter(str(folder / "vision.tflite")) for folder in (tiny.bundle, tmp_path))
    expected, found = (program.get_signature_runner("vision")(pixels=pixels)["features"] for program in (whole, blocks))
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())

    scores = [vision.num_heads, patches, patches]
    assert any(tensor["shape"].tolist() == scores for tensor in whole.get_tensor_details())
    assert not any(tensor["shape"].tolist() == scores for tensor in blocks.get_tensor_details())


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
