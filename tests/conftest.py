"""Exports take most of the test time, so each is made once."""

from types import SimpleNamespace

import pytest
from exported import TINY_LIMITS, export, export_nano, save_tiny

import t5g2

# Three layers of both kinds in the encoder and four in the decoder, so that mixing up the stacks cannot go unnoticed.
ENCODER_LAYERS = ["sliding_attention", "full_attention", "sliding_attention"]
DECODER_LAYERS = ["sliding_attention", "full_attention", "sliding_attention", "sliding_attention"]


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory):
    """`tiny_bundle(kv_heads)`: a tiny random model beside its float32 bundle: `.reference` (transformers), `.checkpoint`
    and `.bundle` (folders), `.model` (ours)."""
    made = {}

    def bundle(kv_heads: int):
        if kv_heads not in made:
            made[kv_heads] = _make_tiny(tmp_path_factory.mktemp("tiny"), kv_heads)
        return made[kv_heads]

    return bundle


def _make_tiny(folder, kv_heads: int):
    reference = save_tiny(
        folder / "checkpoint",
        num_key_value_heads=kv_heads,
        num_hidden_layers=len(ENCODER_LAYERS),
        layer_types=ENCODER_LAYERS,
        decoder={"num_hidden_layers": len(DECODER_LAYERS), "layer_types": DECODER_LAYERS},
    )
    bundle = export(folder / "checkpoint", folder / "bundle", "none", TINY_LIMITS)
    return SimpleNamespace(
        reference=reference, checkpoint=folder / "checkpoint", bundle=bundle, model=t5g2.load(bundle, threads=2)
    )


@pytest.fixture(scope="session", params=[1, 2], ids=["1-kv-head", "2-kv-heads"])
def tiny(request, tiny_bundle):
    """The float32 tiny model, with one and with two kv heads."""
    return tiny_bundle(request.param)


@pytest.fixture(scope="session")
def tiny_gqa(tiny_bundle):
    """The float32 tiny model with two kv heads, for what does not depend on their number."""
    return tiny_bundle(2)


@pytest.fixture(scope="session")
def nano_bundle(tmp_path_factory):
    """`nano_bundle(quant)`: the folder of the shipped checkpoint's bundle."""
    made = {}

    def bundle(quant: str):
        if quant not in made:
            made[quant] = export_nano(tmp_path_factory.mktemp("nano") / quant, quant)
        return made[quant]

    return bundle
