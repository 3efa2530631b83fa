import hashlib
import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_config, tiny_model

from t5g2.export.checkpoint import Checkpoint, canonical_name, expected_shapes
from t5g2.export.config import SIZES
from t5g2.runtime.errors import T5g2Error

EMBEDDING = "model.encoder.embed_tokens.weight"


@pytest.fixture(scope="module")
def model():
    return tiny_model(3, num_key_value_heads=2)


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved")
    model.save_pretrained(path)
    return path


@pytest.fixture
def folder(saved, tmp_path):
    """A copy that a test may damage."""
    path = tmp_path / "checkpoint"
    path.mkdir()
    for name in ("config.json", "model.safetensors"):
        (path / name).write_bytes((saved / name).read_bytes())
    return path


def edit(folder, change):
    """Rewrites the weight file with `change(dict of tensors)`."""
    tensors = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
    changed = change(tensors)
    save_file(tensors if changed is None else changed, folder / "model.safetensors")
    return folder


def edit_config(folder, change):
    data = json.loads((folder / "config.json").read_text())
    change(data)
    (folder / "config.json").write_text(json.dumps(data))
    return folder


def assert_same_weights(checkpoint, model, dtype=torch.float32):
    """Every parameter of the model, in transformers' own naming, is in the checkpoint, and nothing else."""
    state = model.state_dict()
    wanted = {}
    for name, tensor in state.items():
        name = name.removeprefix("model.").replace("encoder.text_model.", "encoder.")
        if name.startswith(("encoder.vision_tower.", "encoder.multi_modal_projector.")):
            name = name.removeprefix("encoder.")
        if not name.startswith(("lm_head.", "decoder.embed_tokens.")):
            wanted[name] = tensor.to(dtype)
    assert set(checkpoint.names()) == wanted.keys()
    for name, tensor in wanted.items():
        loaded = checkpoint.tensor(name)
        assert loaded.dtype == dtype and torch.equal(loaded, tensor), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sharded", [False, True])
def test_matches_the_model(tmp_path, dtype, sharded):
    model = tiny_model(1)
    model.to(dtype).save_pretrained(tmp_path, max_shard_size="200KB" if sharded else "5GB")
    assert (len(list(tmp_path.glob("*.safetensors"))) > 2) == sharded
    checkpoint = Checkpoint.open(tmp_path)
    assert_same_weights(checkpoint, model, dtype)
    assert checkpoint.has_vision and checkpoint.path == tmp_path and checkpoint.tokenizer is None
    assert checkpoint.config.dtype == str(dtype).removeprefix("torch.")
    assert checkpoint.bytes == sum(file.stat().st_size for file in tmp_path.glob("*.safetensors"))


def rename(pattern, replacement):
    return lambda tensors: {re.sub(pattern, replacement, name): tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(rename(r"^model\.", ""), id="no model prefix"),
        pytest.param(rename(r"^model\.encoder\.(layers|norm|embed)", r"model.encoder.text_model.\1"), id="text_model"),
        pytest.param(rename(r"vision_tower\.", "vision_tower.vision_model."), id="vision_model"),
        pytest.param(
            lambda tensors: rename(r"^model\.", "")(
                rename(r"^model\.encoder\.(layers|norm|embed)", r"model.encoder.text_model.\1")(
                    rename(r"vision_tower\.", "vision_tower.vision_model.")(tensors)
                )
            ),
            id="all at once",
        ),
        pytest.param(lambda tensors: {canonical_name(n): t for n, t in tensors.items()}, id="canonical"),
    ],
)
def test_every_naming(folder, model, change):
    before = set(load_file(folder / "model.safetensors"))
    edit(folder, change)
    after = set(load_file(folder / "model.safetensors"))
    assert len(after) == len(before)
    assert_same_weights(Checkpoint.open(folder), model)


def test_names_that_save_pretrained_writes(folder):
    """Flat encoder names, no tied copies: if a new transformers writes others, test_every_naming wants a line more."""
    stored = set(load_file(folder / "model.safetensors"))
    assert EMBEDDING in stored and "model.encoder.vision_tower.post_layernorm.weight" in stored
    assert "lm_head.out_proj.weight" not in stored and "model.decoder.embed_tokens.weight" not in stored


def test_base_model_without_head(tmp_path, model):
    model.model.save_pretrained(tmp_path)
    assert_same_weights(Checkpoint.open(tmp_path), model)


def test_tied_copies_may_be_present(folder, model):
    def change(tensors):
        tensors["lm_head.out_proj.weight"] = tensors[EMBEDDING].clone()
        tensors["lm_head.weight"] = tensors[EMBEDDING].clone()
        tensors["model.decoder.embed_tokens.weight"] = tensors[EMBEDDING].clone()
        tensors["model.decoder.embed_tokens.eoi_embedding"] = tensors[
            "model.encoder.embed_tokens.eoi_embedding"
        ].clone()

    assert_same_weights(Checkpoint.open(edit(folder, change)), model)


def test_embedding_may_be_stored_under_the_decoder(folder, model):
    edit(folder, rename(r"encoder\.embed_tokens", "decoder.embed_tokens"))
    assert_same_weights(Checkpoint.open(folder), model)


@pytest.mark.parametrize("tied", ["lm_head.out_proj.weight", "lm_head.weight", "model.decoder.embed_tokens.weight"])
def test_untied_embedding(folder, tied):
    def change(tensors):
        tensors[tied] = tensors[EMBEDDING].clone()
        tensors[tied][-1, -1] += 1

    with pytest.raises(T5g2Error, match=f"{tied} differs from encoder.embed_tokens.weight; untied.*unsupported"):
        Checkpoint.open(edit(folder, change))


def test_untied_eoi(folder):
    name = "model.decoder.embed_tokens.eoi_embedding"
    with pytest.raises(T5g2Error, match="eoi_embedding differs"):
        Checkpoint.open(edit(folder, lambda tensors: tensors.update({name: torch.ones(64)})))


def test_untied_by_shape(folder):
    with pytest.raises(T5g2Error, match="lm_head.weight differs"):
        Checkpoint.open(edit(folder, lambda tensors: tensors.update({"lm_head.weight": torch.zeros(301, 64)})))


def test_vision_may_be_absent(folder):
    def change(tensors):
        return {n: t for n, t in tensors.items() if "vision_tower" not in n and "multi_modal" not in n}

    checkpoint = Checkpoint.open(edit(folder, change))
    assert not checkpoint.has_vision and checkpoint.config.vision is None
    assert not any("vision" in name or "multi_modal" in name for name in checkpoint.names())


def test_part_of_vision_may_not_be_absent(folder):
    def change(tensors):
        return {n: t for n, t in tensors.items() if "vision_tower" not in n}

    with pytest.raises(T5g2Error, match=r"missing: vision_tower\.\S+, .*… and \d+ more"):
        Checkpoint.open(edit(folder, change))


def test_vision_without_a_config(folder):
    edit_config(folder, lambda data: data["encoder"].update(vision_config=None))
    with pytest.raises(T5g2Error, match="unexpected: multi_modal_projector"):
        Checkpoint.open(folder)


def test_pooling_head_and_old_buffers_are_ignored(folder, model):
    def change(tensors):
        tower = "model.encoder.vision_tower."
        tensors[tower + "head.probe"] = torch.zeros(1, 1, 48)
        tensors[tower + "vision_model.head.mlp.fc1.weight"] = torch.zeros(2, 48)
        tensors[tower + "vision_model.embeddings.position_ids"] = torch.zeros(1, 16, dtype=torch.int64)

    assert_same_weights(Checkpoint.open(edit(folder, change)), model)


def test_all_mismatches_in_one_message(folder):
    def change(tensors):
        del tensors["model.decoder.norm.weight"]
        del tensors["model.encoder.layers.3.mlp.up_proj.weight"]
        tensors["score.weight"] = torch.zeros(2)
        tensors["model.encoder.norm.weight"] = torch.zeros(65)
        tensors["model.encoder.layers.0.self_attn.q_proj.weight"] = torch.zeros(64, 128)

    with pytest.raises(T5g2Error) as caught:
        Checkpoint.open(edit(folder, change))
    message = str(caught.value)
    assert "missing: encoder.layers.3.mlp.up_proj.weight, decoder.norm.weight;" in message
    assert "unexpected: score.weight;" in message
    assert "encoder.layers.0.self_attn.q_proj.weight [64, 128], not [128, 64]" in message
    assert "encoder.norm.weight [65], not [64]" in message
    assert str(folder) in message and "\n" not in message


def test_long_lists_are_cut(folder):
    edit_config(folder, lambda data: data["decoder"].update(num_hidden_layers=9, layer_types=["full_attention"] * 9))
    with pytest.raises(T5g2Error, match=r"missing: (decoder\S+, ){8}… and 31 more$"):
        Checkpoint.open(folder)


def test_a_tensor_stored_twice(folder):
    name = "encoder.norm.weight"
    with pytest.raises(T5g2Error, match="norm.weight is stored twice, the other time as"):
        Checkpoint.open(edit(folder, lambda tensors: tensors.update({name: torch.zeros(64)})))


def test_quantized_tensors(folder):
    def change(tensors):
        tensors["model.decoder.layers.0.mlp.up_proj.weight"] = torch.zeros(96, 64, dtype=torch.int8)

    with pytest.raises(T5g2Error, match="decoder.layers.0.mlp.up_proj.weight is I8; supported: BF16, F16, F32"):
        Checkpoint.open(edit(folder, change))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_values_that_are_not_finite(folder, bad, dtype):
    def change(tensors):
        name = "model.decoder.layers.1.mlp.up_proj.weight"
        tensors[name] = tensors[name].to(dtype)
        tensors[name][50, 60] = bad

    checkpoint = Checkpoint.open(edit(folder, change))
    checkpoint.tensor("decoder.layers.0.mlp.up_proj.weight")
    with pytest.raises(T5g2Error, match="model.decoder.layers.1.mlp.up_proj.weight holds values that are not finite"):
        checkpoint.tensor("decoder.layers.1.mlp.up_proj.weight")


def test_dtype_comes_from_the_tensors_if_the_config_is_silent(folder):
    edit(folder, lambda tensors: {name: tensor.bfloat16() for name, tensor in tensors.items()})
    edit_config(folder, lambda data: data.pop("dtype"))
    assert Checkpoint.open(folder).config.dtype == "bfloat16"


def test_reading_does_not_copy(saved):
    checkpoint = Checkpoint.open(saved)
    name = "encoder.embed_tokens.weight"
    assert checkpoint.tensor(name).data_ptr() == checkpoint.tensor(name).data_ptr()


def test_unknown_name(saved):
    with pytest.raises(KeyError):
        Checkpoint.open(saved).tensor("model.encoder.norm.weight")


@pytest.mark.parametrize("keep", [-10, 1000, 4, 0])
def test_truncated(folder, keep):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(T5g2Error, match=r"model.safetensors: truncated or damaged \(.*\); download it again"):
        Checkpoint.open(folder)


def test_lfs_pointer(folder):
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(T5g2Error, match="model.safetensors: a Git LFS pointer"):
        Checkpoint.open(folder)


def test_shards(tmp_path, model):
    model.save_pretrained(tmp_path, max_shard_size="200KB")
    index = tmp_path / "model.safetensors.index.json"
    text = index.read_text()
    index.write_text(text[:100])
    with pytest.raises(T5g2Error, match="index.json: not an index of safetensors shards; download it again"):
        Checkpoint.open(tmp_path)
    index.write_text('{"weight_map": {"encoder.norm.weight": 3}}')
    with pytest.raises(T5g2Error, match="not an index"):
        Checkpoint.open(tmp_path)
    index.write_text(text)
    shard = sorted(tmp_path.glob("model-*.safetensors"))[1]
    data = shard.read_bytes()
    shard.write_bytes(data[:-1])
    with pytest.raises(T5g2Error, match=f"{shard.name}: truncated"):
        Checkpoint.open(tmp_path)
    shard.unlink()
    with pytest.raises(T5g2Error, match=f"shards are missing: {shard.name}; download"):
        Checkpoint.open(tmp_path)
    index.unlink()
    with pytest.raises(T5g2Error, match="neither model.safetensors nor model.safetensors.index.json"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize(
    "files, message",
    [
        ([], "no checkpoint; expected config.json, model.safetensors and tokenizer.json"),
        (["config.json", "pytorch_model.bin"], "PyTorch .bin weights; .*safetensors"),
        (["adapter_config.json", "adapter_model.safetensors"], "a LoRA adapter.*merge it first.*merge_and_unload"),
        (["model.safetensors"], "config.json is missing"),
    ],
)
def test_folders_that_are_no_checkpoint(tmp_path, files, message):
    for name in files:
        (tmp_path / name).write_text("{}")
    with pytest.raises(T5g2Error, match=f"{re.escape(str(tmp_path))}: .*{message}"):
        Checkpoint.open(tmp_path)


def test_path_that_is_no_folder(tmp_path):
    with pytest.raises(T5g2Error, match="gone: not there; expected a folder with config.json"):
        Checkpoint.open(tmp_path / "gone")
    (tmp_path / "x").write_text("")
    with pytest.raises(T5g2Error, match="x: a file; expected a folder"):
        Checkpoint.open(tmp_path / "x")


def test_config_errors_name_the_file(folder):
    edit_config(folder, lambda data: data.update(model_type="t5gemma"))
    with pytest.raises(T5g2Error, match="config.json: model_type.*T5Gemma 1"):
        Checkpoint.open(folder)


def test_sha256(folder, tmp_path, model):
    single = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert Checkpoint.open(folder).sha256() == single
    (tmp_path / "s").mkdir()
    model.save_pretrained(tmp_path / "s", max_shard_size="200KB")
    files = sorted((tmp_path / "s").glob("*.safetensors"))
    lines = "".join(f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.name}\n" for f in files)
    before = Checkpoint.open(tmp_path / "s").sha256()
    assert before == hashlib.sha256(lines.encode()).hexdigest()
    files[-1].write_bytes(files[-1].read_bytes()[:-1] + b"\x01")
    assert Checkpoint.open(tmp_path / "s").sha256() != before


def test_tokenizer(folder):
    (folder / "tokenizer.json").write_text("{}")
    assert Checkpoint.open(folder).tokenizer == folder / "tokenizer.json"


# 911 is what the official notebook prints when it loads the 270M size.
@pytest.mark.parametrize("size, tensors", [("270m", 911), ("1b", 1119), ("4b", 1327)])
def test_expected_shapes_of_the_released_sizes(size, tensors):
    shapes = expected_shapes(SIZES[size])
    assert len(shapes) == tensors
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == SIZES[size].parameter_count()


def test_tiny_model_varies(model):
    """The models that parity tests compare with are worth comparing with."""
    torch.manual_seed(0)
    source, target = torch.randint(3, 280, (2, 40)), torch.randint(3, 280, (2, 9))
    with torch.no_grad():
        logits = model(input_ids=source, decoder_input_ids=target).logits
    assert logits.std() > 0.3 and logits.isfinite().all()
    assert (logits[:, 1:] - logits[:, :-1]).abs().amax(-1).min() > 0.1
    assert (logits[0] - logits[1]).abs().amax(-1).min() > 0.1
    assert all(parameter.abs().sum() > 0 for parameter in model.parameters())
    config = tiny_config()
    assert config.encoder.image_token_index < 300 and config.eoi_token_index < 300
