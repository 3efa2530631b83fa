import hashlib
import json
import time

import pytest
import torch
from tiny import tiny_config, tiny_model

from t5g2.export.checkpoint import Checkpoint, canonical_name, expected_shapes
from t5g2.export.config import SIZES, ModelConfig
from t5g2.export.random_weights import RandomCheckpoint


@pytest.fixture(scope="module")
def tiny_random():
    return RandomCheckpoint(ModelConfig.from_hub(json.loads(tiny_config().to_json_string())), seed=5)


def test_has_the_interface_of_a_checkpoint(tiny_random, tmp_path):
    tiny_model().save_pretrained(tmp_path)
    real = Checkpoint.open(tmp_path)
    assert tiny_random.names() == real.names() and tiny_random.has_vision and tiny_random.tokenizer is None
    shapes = expected_shapes(real.config)
    assert all(tiny_random.tensor(name).shape == real.tensor(name).shape == shapes[name] for name in real.names())
    public = {name for name in dir(real) if not name.startswith("_") and name != "open"}
    assert public <= set(dir(tiny_random))
    assert tiny_random.bytes == 2 * real.config.parameter_count()


def test_is_determined_by_seed_and_name(tiny_random):
    q, k = "encoder.layers.0.self_attn.q_proj.weight", "decoder.layers.0.self_attn.q_proj.weight"
    again = RandomCheckpoint(tiny_random.config, seed=5)
    other = RandomCheckpoint(tiny_random.config, seed=6)
    again.tensor(k)  # the order of reading does not matter
    assert tiny_random.tensor(q).dtype == torch.bfloat16
    assert torch.equal(tiny_random.tensor(q), again.tensor(q)) and tiny_random.sha256() == again.sha256()
    assert not torch.equal(tiny_random.tensor(q), tiny_random.tensor(k))
    assert not torch.equal(tiny_random.tensor(q), other.tensor(q)) and tiny_random.sha256() != other.sha256()
    digest = hashlib.sha256(tiny_random.tensor(q).view(torch.int16).numpy().tobytes()).hexdigest()
    assert digest[:16] == "b3cf7a3716f5bc6b"  # on every machine and with every numpy; else raise _SCHEME


def test_weights_keep_activations_sane(tiny_random):
    """Loaded into the reference model, they give logits near unit variance, from text and through the whole tower."""
    reference = tiny_model()
    state = {name: tiny_random.tensor(target) for name in reference.state_dict() if (target := _source(name))}
    assert not reference.load_state_dict({n: t.float() for n, t in state.items()}, strict=False).unexpected_keys
    reference.tie_weights()
    torch.manual_seed(0)
    with torch.no_grad():
        source, target = torch.randint(3, 280, (1, 40)), torch.randint(3, 280, (1, 9))
        assert 0.5 < reference(input_ids=source, decoder_input_ids=target).logits.std() < 2
        encoder = reference.model.encoder
        states = encoder.vision_tower(torch.randn(1, 3, 56, 56)).last_hidden_state
        assert 0.5 < states.std() < 2 and 0.5 < encoder.multi_modal_projector(states).std() < 2


def _source(name):
    name = canonical_name(name)
    return None if name.startswith(("lm_head", "decoder.embed_tokens")) else name


def test_statistics_at_full_size():
    checkpoint = RandomCheckpoint(SIZES["270m"], seed=1)
    start = time.perf_counter()
    weight = checkpoint.tensor("encoder.layers.0.mlp.up_proj.weight")
    seconds = time.perf_counter() - start
    values = weight.float()
    assert weight.shape == (2048, 640) and abs(values.std() * 640**0.5 - 1) < 0.01 and abs(values.mean()) < 1e-4
    assert torch.unique(values[:, :4], dim=0).shape[0] == 2048  # rows are not copies of each other
    assert 0.66 < (values.abs() < values.std()).float().mean() < 0.70
    assert seconds < 1  # about 5 ms; 1 s would make the 1B size take half an hour
