"""That the engine's tokenizer gives the ids that the checkpoint's gives, on texts of every kind."""

from __future__ import annotations

from pathlib import Path

from t5g2.runtime.errors import T5g2Error
from t5g2.runtime.model import load
from t5g2.runtime.tokenizer import Tokenizer

TEXTS = (
    "", " ", "  two  spaces ", "The quick brown fox jumps over 13 lazy dogs, didn't it?", "a\n\n\nb\r\n\tc\t\td",
    "ISO-8601: 2021-03-03T09:41:07+01:00; 3.14159e-10, 0x1F, 50 %, $1,234.56", "https://example.org/a?b=c#d_e-f~g",
    "def f(x):\n    return {'a': [x**2 for x in range(10)]}", "<table><tr><td>1</td></tr></table>", "<unused0> <unused7>",
    "<bos>x<eos> <start_of_turn>user\nhi<end_of_turn>", "▁x ▁▁y", "<0x0A> <0xFF>", "naïve café, Straße, Ærø, Łódź, İstanbul",
    "Ελληνικά, Русский, Українська, עברית, العربية, فارسی", "हिन्दी, বাংলা, தமிழ், ไทย, မြန်မာ, ភាសាខ្មែរ, ქართული, አማርኛ",
    "中文、日本語の文字、한국어 𠮷野家", "🙂👩‍👩‍👧‍👦🇳🇴 ∑∫√ ①② ﬁ ﷺ",
    "e\u0301 vs \u00e9, zero\u200bwidth, \ufeffBOM, \x00\x01\x7f", "a" * 300, "ab" * 150, " " * 70, "\n" * 40,
    "antidisestablishmentarianism Donaudampfschifffahrtsgesellschaft",
)  # fmt: skip


def check_tokenizer(bundle: Path, tokenizer: Path, tokens: dict) -> None:
    """Opens the bundle with the engine and compares ids, and their text, with those of the checkpoint's tokenizer.json.

    tokens: those of the manifest. Raises T5g2Error naming the text where they differ.
    """
    expected = Tokenizer.for_manifest(tokenizer, tokens)
    with load(bundle, cache_folder="") as model:
        for text in (*TEXTS, *(expected.token(i) or "" for i in sorted(expected.special_ids))):
            ids = expected.encode_target(text)
            if model.target_ids(text) != ids or model.text(ids) != expected.decode(ids):
                raise T5g2Error(
                    f"{tokenizer}: the engine splits {text!r} in another way than this file does; use the tokenizer of the "
                    "base model, or report it"
                )
