"""Exports take most of the test time, so each is made once."""

import signal
from types import SimpleNamespace

import pytest
from exported import TINY_LIMITS, export, export_nano, save_tiny

import t5g2
from t5g2.runtime.reference import load as load_oracle

# A shell ignores Ctrl-C for what it starts in the background, and our commands would inherit that from the tests.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Three layers of both kinds in the encoder and four in the decoder, so that mixing up the stacks cannot go unnoticed.
ENCODER_LAYERS = ["sliding_attention", "full_attention", "sliding_attention"]
DECODER_LAYERS = ["sliding_attention", "full_attention", "sliding_attention", "sliding_attention"]


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory):
    """`tiny_bundle(kv_heads, backend)`: a tiny random model beside its float32 bundle: `.reference` (transformers),
    `.checkpoint` and `.bundle` (folders), `.model` (the engine), `.oracle` (the reference runner)."""
    made = {}

    def bundle(kv_heads: int, backend: str = "native"):
        key = kv_heads, backend
        if key not in made:
            made[key] = _make_tiny(tmp_path_factory.mktemp("tiny"), kv_heads, backend)
        return made[key]

    return bundle


def _make_tiny(folder, kv_heads: int, backend: str):
    reference = save_tiny(
        folder / "checkpoint",
        num_key_value_heads=kv_heads,
        num_hidden_layers=len(ENCODER_LAYERS),
        layer_types=ENCODER_LAYERS,
        decoder={"num_hidden_layers": len(DECODER_LAYERS), "layer_types": DECODER_LAYERS},
    )
    bundle = export(folder / "checkpoint", folder / "bundle", "none", TINY_LIMITS, backend)
    return SimpleNamespace(
        reference=reference,
        checkpoint=folder / "checkpoint",
        bundle=bundle,
        model=t5g2.load(bundle, threads=2),
        oracle=load_oracle(bundle, threads=2),
    )


@pytest.fixture(
    scope="session",
    params=[(1, "native"), (2, "native"), (2, "xnnpack")],
    ids=lambda p: f"{p[1]}-{p[0]}-kv",
)
def tiny(request, tiny_bundle):
    """The float32 tiny model, with one and with two kv heads, and on both backends."""
    return tiny_bundle(*request.param)


@pytest.fixture(scope="session")
def tiny_gqa(tiny_bundle):
    """The float32 tiny model with two kv heads, for what does not depend on their number."""
    return tiny_bundle(2)


@pytest.fixture(scope="session")
def nano_bundle(tmp_path_factory):
    """`nano_bundle(quant, backend)`: the folder of the shipped checkpoint's bundle."""
    made = {}

    def bundle(quant: str, backend: str = "native"):
        key = quant, backend
        if key not in made:
            made[key] = export_nano(tmp_path_factory.mktemp("nano") / quant, *key)
        return made[key]

    return bundle
