"""The export's comparison of the engine's tokenizer with the checkpoint's."""

import json

import pytest

from t5g2.export.tokenizer_check import check_tokenizer
from t5g2.nano import CHECKPOINT_DIR
from t5g2.runtime.errors import T5g2Error

TOKENIZER = CHECKPOINT_DIR / "tokenizer.json"


def tokens(bundle):
    return json.loads((bundle / "manifest.json").read_text())["tokens"]


def test_the_same_tokenizer(nano_bundle):
    check_tokenizer(nano_bundle("int4"), TOKENIZER, tokens(nano_bundle("int4")))


@pytest.mark.parametrize("change", ["merges", "added_tokens"])
def test_another_tokenizer(nano_bundle, tmp_path, change):
    content = json.loads(TOKENIZER.read_text())
    if change == "merges":
        content["model"]["merges"] = [m for m in content["model"]["merges"] if "".join(m) != "▁t"]
    else:
        content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] != "<unused7>"]
    other = tmp_path / "tokenizer.json"
    other.write_text(json.dumps(content))
    with pytest.raises(T5g2Error, match="the engine splits .* in another way than this file does; use the tokenizer of"):
        check_tokenizer(nano_bundle("int4"), other, tokens(nano_bundle("int4")))
