"""What CTranslate2 4.8 computes for T5Gemma 2 against transformers in float32; our speed tables compare with it.

It is right, to 1e-6 of the largest logit, for a source of at most half a window and a target of at most a window, alone in
its batch. Otherwise it computes another model, and each test shows which, to the same precision:
- It has no sliding windows: not in the encoder, not in the decoder's self cache. From a source of w / 2 + 1 tokens on
  (w = 512 in the 270M model, so 257) all logits are wrong, and from target position w on with any source.
- It masks no padding in the decoder: beside a longer source, a source counts as if its last encoder state came repeatedly.
- `score_batch` sees the targets to come, and raises for more targets than a window has.
- The end-of-image token has an ordinary row in place of its own.
Measured differences are 0.07 to 1 of the largest logit; where the two agree, 2e-6.
"""

import copy

import numpy as np
import pytest
import torch
from tiny import EOI, tiny_model
from transformers.modeling_outputs import BaseModelOutput

ctranslate2 = pytest.importorskip("ctranslate2", reason="ctranslate2 is not installed: pip install ctranslate2==4.8.5")

WINDOW = 16  # of tiny_model
VOCAB = 300
BOS, EOS, UNK = 2, 1, 3
AGREES, DIFFERS = 1e-3, 1e-2


class Pair:
    """A tiny random model in both: `reference` (transformers) and `translator` (CTranslate2, float32)."""

    def __init__(self, folder, kv_heads: int) -> None:
        self.reference = tiny_model(num_key_value_heads=kv_heads)
        self.windowless = tiny_model(num_key_value_heads=kv_heads, sliding_window=4096)  # the same weights
        convert(self.reference, folder)
        self.translator = ctranslate2.Translator(str(folder), device="cpu", compute_type="float32", intra_threads=1)

    def logits(self, source: list[int], target: list[int], beside: list[int] | None = None) -> np.ndarray:
        """CTranslate2's, [1 + target, VOCAB], one decoder step a row; `beside` is another source in the same batch."""
        batch = [words(source)] + ([words(beside)] if beside else [])
        results = self.translator.translate_batch(
            batch,
            target_prefix=[words(target)] * len(batch),
            beam_size=1,
            max_decoding_length=len(target) + 1,
            min_decoding_length=0,  # otherwise it disables the end token's logit in the first row
            max_input_length=0,
            return_logits_vocab=True,
        )
        return np.stack([np.array(row) for row in results[0].logits[0]]).reshape(-1, VOCAB)


def convert(model, folder) -> None:
    """CTranslate2's own conversion, without the tokenizer that its command line asks for."""
    from ctranslate2.converters import Converter
    from ctranslate2.converters.transformers import T5Gemma2Loader

    class FromMemory(Converter):
        def _load(self):
            with torch.no_grad():
                spec = T5Gemma2Loader().get_model_spec(copy.deepcopy(model))  # it takes the model apart
            spec.register_source_vocabulary(words(range(VOCAB)))
            spec.register_target_vocabulary(words(range(VOCAB)))
            spec.config.bos_token = spec.config.decoder_start_token = str(BOS)
            spec.config.eos_token, spec.config.unk_token = str(EOS), str(UNK)
            spec.config.layer_norm_epsilon = model.config.encoder.text_config.rms_norm_eps
            return spec

    FromMemory().convert(str(folder))


def words(ids) -> list[str]:
    return [str(token) for token in ids]


def random_ids(length: int, seed: int) -> list[int]:
    return np.random.default_rng(seed).integers(5, 289, length).tolist()


def expected(model, source: list[int] | BaseModelOutput, target: list[int]) -> np.ndarray:
    """transformers' logits, [1 + target, VOCAB], for source ids or encoder states."""
    ready = isinstance(source, BaseModelOutput)
    inputs = {"encoder_outputs": source} if ready else {"input_ids": torch.tensor([source])}
    with torch.no_grad():
        return model(decoder_input_ids=torch.tensor([[BOS, *target]]), use_cache=False, **inputs).logits[0].numpy()


def differences(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The largest difference of each row, relative to the largest logit."""
    assert found.shape == wanted.shape and np.abs(found).max() < 1e3
    return np.abs(found - wanted).max(1) / np.abs(wanted).max()


@pytest.fixture(scope="module", params=[1, 2], ids=["1 kv head", "2 kv heads"])
def pair(request, tmp_path_factory):
    return Pair(tmp_path_factory.mktemp("ctranslate2") / "model", request.param)


@pytest.mark.parametrize("length", [1, 4, WINDOW // 2])
def test_right_up_to_half_a_window_of_source_and_a_window_of_target(pair, length):
    source, target = random_ids(length, seed=length), random_ids(40, seed=99)
    found = pair.logits(source, target)
    difference = differences(found, expected(pair.reference, source, target))
    assert difference[:WINDOW].max() < AGREES
    assert difference[-1] > DIFFERS
    assert differences(found, expected(pair.windowless, source, target)).max() < AGREES


@pytest.mark.parametrize("length", [WINDOW // 2 + 1, WINDOW, 32, 64])
def test_wrong_past_half_a_window_of_source(pair, length):
    source, target = random_ids(length, seed=length), random_ids(10, seed=99)
    found = pair.logits(source, target)
    assert differences(found, expected(pair.reference, source, target)).min() > DIFFERS
    assert differences(found, expected(pair.windowless, source, target)).max() < AGREES


def test_wrong_beside_a_longer_source(pair):
    source, longer, target = random_ids(5, seed=1), random_ids(8, seed=2), random_ids(10, seed=3)
    alone = pair.logits(source, target)
    assert differences(pair.logits(source, target, beside=random_ids(5, seed=4)), alone).max() < AGREES
    assert differences(pair.logits(longer, target, beside=source), pair.logits(longer, target)).max() < AGREES

    found = pair.logits(source, target, beside=longer)
    assert differences(found, alone).min() > DIFFERS
    with torch.no_grad():
        states = pair.reference.get_encoder()(input_ids=torch.tensor([source])).last_hidden_state
    repeated = torch.cat([states, states[:, -1:].expand(-1, len(longer) - len(source), -1)], dim=1)
    assert differences(found, expected(pair.reference, BaseModelOutput(repeated), target)).max() < AGREES


def test_scores_see_the_targets_to_come(pair):
    source, target = random_ids(8, seed=1), random_ids(6, seed=2)
    changed = [target[0], *random_ids(5, seed=4)]  # the first score is of target[0], given the source alone
    first, other = (pair.translator.score_batch([words(source)], [words(ids)])[0].log_probs[0] for ids in (target, changed))
    assert abs(first - other) > DIFFERS
    with pytest.raises(ValueError):
        pair.translator.score_batch([words(source)], [words(random_ids(WINDOW, seed=3))])


def test_end_of_image_has_no_row_of_its_own(pair):
    source, target = random_ids(8, seed=1), random_ids(10, seed=2)
    source[3] = EOI
    assert differences(pair.logits(source, target), expected(pair.reference, source, target)).max() > DIFFERS
