"""Text to token ids and back, id for id what transformers gives for the same tokenizer.json.

Rules, where transformers has several:

- A source is BOS + ids, without EOS. BOS is ours: the file's own post-processor is not run, so a fine-tune whose
  post-processor lost its BOS (or gained an EOS) still gets what the encoder was trained on.
- Text that already starts with `<bos>` gets a second BOS, because `AutoTokenizer(text).input_ids` gives one too.
  Text that a chat template printed, `<bos>` included, is encoded with `add_bos=False`, as `apply_chat_template` does.
- Special tokens written in a text are those tokens, as in transformers; the text is not escaped.
- Truncation and padding that a fine-tune left in tokenizer.json are switched off: they would cut sources silently.
"""

import re
from collections.abc import Sequence
from os import PathLike

import tokenizers

from t5g2.runtime.errors import T5g2Error

_UNUSED = re.compile(r"<unused\d+>")
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


class Tokenizer:
    """A tokenizer.json and the ids of the tokens that the model treats specially.

    `bos_id`, `eos_id`, `pad_id` are ints; `boi_id`, `eoi_id`, `image_id` are ints, or None for a model without images.
    `special_ids` are those that `decode` leaves out. Immutable after loading; may be used from several threads.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        bos_id: int,
        eos_id: int,
        pad_id: int,
        boi_id: int | None = None,
        eoi_id: int | None = None,
        image_id: int | None = None,
        mm_tokens_per_image: int = 256,
        name: str = "the tokenizer",
    ):
        """Wrap `backend`. Raises T5g2Error when its vocabulary has no token for one of the ids."""
        named = {"bos": bos_id, "eos": eos_id, "pad": pad_id, "boi": boi_id, "eoi": eoi_id, "image": image_id}
        for role, token_id in named.items():
            if token_id is not None and (token_id < 0 or backend.id_to_token(token_id) is None):
                raise T5g2Error(
                    f"{name}: no token has the id {token_id}, which the config calls {role}; take tokenizer.json and "
                    "config.json from the same checkpoint"
                )
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self.bos_id, self.eos_id, self.pad_id = bos_id, eos_id, pad_id
        self.boi_id, self.eoi_id, self.image_id = boi_id, eoi_id, image_id
        self.mm_tokens_per_image = mm_tokens_per_image
        self.vocab_size = backend.get_vocab_size(with_added_tokens=True)
        self.special_ids = frozenset(i for i, t in backend.get_added_tokens_decoder().items() if t.special)
        self._vocab: dict[str, int] | None = None
        if None in (boi_id, eoi_id, image_id):
            self.image_marker, self._image_block = None, ""
        else:
            self.image_marker = backend.id_to_token(boi_id)
            soft = backend.id_to_token(image_id) * mm_tokens_per_image
            self._image_block = f"\n\n{self.image_marker}{soft}{backend.id_to_token(eoi_id)}\n\n"

    @classmethod
    def from_file(cls, path: str | PathLike, **special) -> "Tokenizer":
        """Load a tokenizer.json; `special` are the keyword arguments of the constructor.

        Raises T5g2Error when the file is absent, unreadable or not a tokenizer, or lacks one of the special ids.
        """
        remedy = "copy tokenizer.json from the checkpoint again"
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read()
        except OSError as error:
            raise T5g2Error(f"{path}: cannot read the tokenizer ({error.strerror}); {remedy}") from error
        except UnicodeDecodeError as error:
            raise T5g2Error(f"{path}: not a tokenizer.json (not UTF-8 text); {remedy}") from error
        try:
            backend = tokenizers.Tokenizer.from_str(text)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic in the library is not an Exception
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise T5g2Error(f"{path}: not a valid tokenizer.json ({why}); {remedy}") from error
        return cls(backend, name=str(path), **special)

    @classmethod
    def for_manifest(cls, path: str | PathLike, tokens: dict) -> "Tokenizer":
        """Load a tokenizer.json for the `tokens` of a bundle's manifest. Raises as `from_file`."""
        roles = {f"{role}_id": tokens[role] for role in ("bos", "pad", "boi", "eoi", "image")}
        return cls.from_file(path, eos_id=tokens["eos"][0], mm_tokens_per_image=tokens["tokens_per_image"], **roles)

    def encode_source(self, text: str, image_count: int = 0, *, add_bos: bool = True) -> list[int]:
        """Ids of an encoder input: BOS + ids, no EOS, every image marker expanded to its block of soft tokens.

        `image_count` is how many images go with the text. Raises T5g2Error when the text's markers are not that many,
        when the text writes soft tokens of its own beside images, or when it cannot be encoded as UTF-8.
        """
        marker = self.image_marker
        found = text.count(marker) if marker else 0
        if image_count and not marker:
            raise T5g2Error(
                f"the source comes with {image_count} image(s), but this model reads text only; leave the images out"
            )
        if found != image_count:
            raise T5g2Error(
                f"the text has {found} {marker} marker(s) and {image_count} image(s) were given; "
                "write one marker per image, where the image belongs"
            )
        if found:
            text = text.replace(marker, self._image_block)
        ids = self._ids(text)
        if found and ids.count(self.image_id) != found * self.mm_tokens_per_image:
            raise T5g2Error(
                f"the text itself contains {self._backend.id_to_token(self.image_id)}, which stands for image "
                f"features; write only {marker} where an image belongs"
            )
        return [self.bos_id, *ids] if add_bos else ids

    def encode_target(self, text: str) -> list[int]:
        """Ids of a decoder text: no BOS, no EOS, nothing expanded. Raises T5g2Error as `encode_source` does."""
        return self._ids(text)

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """Text of `ids`. Ids that the vocabulary lacks give nothing; invalid byte sequences give U+FFFD.

        Raises T5g2Error for an id that is not an unsigned 32-bit number.
        """
        try:
            return self._backend.decode([int(i) for i in ids], skip_special_tokens=skip_special)
        except (OverflowError, TypeError, ValueError) as error:
            raise T5g2Error("token ids to decode must be numbers from 0 up; one of them is not") from error

    def stream(self, skip_special: bool = True) -> "TextStream":
        """A detokenizer that takes ids one by one."""
        return TextStream(self, skip_special)

    def token(self, token_id: int) -> str | None:
        """The vocabulary's own name of an id (`▁the`, `<0x0A>`), None where it has none."""
        return self._backend.id_to_token(token_id) if token_id >= 0 else None

    def suppressed_ids(self) -> list[int]:
        """Ids that an answer should never hold, ascending: every `<unusedN>` and the three image tokens."""
        if self._vocab is None:
            self._vocab = self._backend.get_vocab(with_added_tokens=True)
        ids = {i for name, i in self._vocab.items() if _UNUSED.fullmatch(name)}
        return sorted(ids | ({self.boi_id, self.eoi_id, self.image_id} - {None}))

    def _ids(self, text: str) -> list[int]:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise T5g2Error(
                f"the text has half of a surrogate pair (U+{ord(text[error.start]):04X}) at character {error.start}, "
                "which is not valid Unicode; read the input as UTF-8, or with errors='replace'"
            ) from error
        return self._backend.encode(text, add_special_tokens=False).ids


class TextStream:
    """Turns ids into text as they come; the pieces joined are exactly `decode` of all ids.

    A run of byte tokens is held until it ends, since only the whole run decides whether it is valid UTF-8: no piece
    holds half a character. Not for use from several threads at once.
    """

    def __init__(self, tokenizer: Tokenizer, skip_special: bool = True):
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        # The decoder may treat the start of a text differently (a stripped leading space), so every piece is decoded
        # behind the last token that gave text.
        self._anchor: list[int] = []
        self._anchor_text = ""
        self._pending: list[int] = []

    def push(self, token_id: int) -> str:
        """The text that `token_id` completes, often empty."""
        token = self._tokenizer.token(token_id)
        # What `decode` passes over must not end a run of byte tokens here either.
        if token is None or (self._skip_special and token_id in self._tokenizer.special_ids):
            return ""
        self._pending.append(token_id)
        return "" if _BYTE.fullmatch(token) else self._take()

    def flush(self) -> str:
        """The text still held; the stream then starts afresh."""
        text = self._take() if self._pending else ""
        self._anchor, self._anchor_text, self._pending = [], "", []
        return text

    def _take(self) -> str:
        decode = self._tokenizer.decode
        text = decode(self._anchor + self._pending, self._skip_special)[len(self._anchor_text) :]
        if text:
            last = self._pending[-1:]
            self._anchor, self._pending = last, []
            self._anchor_text = decode(last, self._skip_special)
        return text
