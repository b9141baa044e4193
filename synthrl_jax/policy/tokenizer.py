"""Tokenizers behind one small interface: encode, decode, pieces for step splitting, special ids."""

import functools
import io
import json
from collections.abc import Iterable, Sequence
from typing import Protocol

from etils import epath

from synthrl_jax.policy.chat import SPECIAL_FILE, added_tokens, fields, special_texts, split_special

SENTENCEPIECE_FILE, TOKENIZERS_FILE, CONFIG_FILE = "tokenizer.model", "tokenizer.json", "tokenizer_config.json"
# what transformers may look for beside a tokenizer
FILES = (
    SENTENCEPIECE_FILE, TOKENIZERS_FILE, CONFIG_FILE, "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "chat_template.jinja",
)  # fmt: skip


class Tokenizer(Protocol):
    """What the rooms need of a tokenizer. `pieces(ids)` are the texts of the tokens; joined they are `decode(ids)`.

    `encode_chat` is for a text that spells its special tokens, as chat templates write it; `files` by name are those it was read
    from, its chat template among them; `special` the texts of special tokens, by name.
    """

    vocab_size: int
    pad_id: int
    bos_id: int | None
    eos_id: int
    files: dict[str, bytes]
    special: dict[str, str]

    def encode(self, text: str) -> list[int]: ...

    def encode_chat(self, text: str) -> list[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...

    def pieces(self, ids: Sequence[int]) -> list[str]: ...

    def save(self, directory: str) -> None: ...


class SentencePieceTokenizer:
    """A SentencePiece model; special tokens decode to nothing, no token is added by `encode`.

    A model with a dummy prefix (Llama 2) puts a space in front of a text: `decode` gives it back, so that the texts of parts
    join to the text of the whole wherever they are cut. files: what else its directory holds of it, by name.
    """

    def __init__(self, model: bytes, files: dict[str, bytes] | None = None):
        import sentencepiece

        self.model, self.files = model, {**(files or {}), SENTENCEPIECE_FILE: model}
        self._sp = sentencepiece.SentencePieceProcessor(model_proto=model)
        sp = self._sp
        self.vocab_size, self.bos_id, self.eos_id = sp.get_piece_size(), sp.bos_id(), sp.eos_id()
        self.bos_id = None if self.bos_id < 0 else self.bos_id
        # Llama 2 has no padding token; its unknown token is never produced under byte fallback and serves as one.
        self.pad_id = sp.pad_id() if sp.pad_id() >= 0 else sp.unk_id()
        self._silent = {i for i in range(self.vocab_size) if sp.is_control(i)} | {self.pad_id}
        named = {"bos_token": sp.bos_id(), "eos_token": sp.eos_id(), "unk_token": sp.unk_id(), "pad_token": sp.pad_id()}
        config = fields(self.files, CONFIG_FILE)  # null there: it is not used
        self.special = {n: sp.id_to_piece(i) for n, i in named.items() if i >= 0 and config.get(n, "") is not None}
        self.special |= special_texts(self.files)
        controls = [i for i in range(self.vocab_size) if sp.is_control(i) or i == sp.unk_id()]
        self._spelt = {sp.id_to_piece(i): i for i in controls} | added_tokens(self.files)
        # a model tuned for chat may end its turns with an added token
        self.eos_id = self._spelt.get(self.special.get("eos_token", ""), self.eos_id)

    def encode(self, text: str) -> list[int]:
        return self._sp.encode(text)

    def encode_chat(self, text: str) -> list[int]:
        """Tokens of a text in which special tokens are spelt, as transformers cuts it: the model's space goes before the first
        part, in legacy mode before each, and never before another space."""
        legacy, ids = bool(fields(self.files, CONFIG_FILE).get("legacy")), []
        for part in split_special(text, list(self._spelt)):
            if part in self._spelt:
                ids.append(self._spelt[part])
            elif part.startswith(" ") or (ids and not legacy):
                ids += self._without_prefix.encode(part)
            else:
                ids += self._sp.encode(part)
        return ids

    @functools.cached_property
    def _without_prefix(self):
        """The same model without its space in front."""
        import sentencepiece
        from sentencepiece import sentencepiece_model_pb2

        proto = sentencepiece_model_pb2.ModelProto.FromString(self.model)
        proto.normalizer_spec.add_dummy_prefix = False
        return sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.pieces(ids))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Texts of the tokens; of a character spelt in bytes, the last byte's token holds it whole."""
        ids, bytes_of = [int(i) for i in ids], self._bytes
        texts = [
            self._texts.get(token, "") for token in ids
        ]  # a model's vocabulary may be padded beyond the tokenizer's
        if bytes_of.keys().isdisjoint(ids):
            return texts
        pending = b""
        for place, token in enumerate(ids):
            if token in bytes_of:
                pending += bytes_of[token]
                last = place + 1 == len(ids) or ids[place + 1] not in bytes_of
                texts[place], pending = _take_characters(pending, last)
        return texts

    @functools.cached_property
    def _bytes(self) -> dict[int, bytes]:
        """What each token that spells a byte stands for."""
        tokens = [i for i in range(self.vocab_size) if self._sp.is_byte(i)]
        return {i: bytes([int(self._sp.id_to_piece(i)[3:5], 16)]) for i in tokens}

    @functools.cached_property
    def _texts(self) -> dict[int, str]:
        """What each other token that is not silent stands for: asking the library token by token costs most of grading."""
        tokens = [i for i in range(self.vocab_size) if i not in self._silent and i not in self._bytes]
        return {i: self._sp.id_to_piece(i).replace("▁", " ") for i in tokens}

    def token_bytes(self, token: int) -> bytes:
        """The bytes that a token adds to the text."""
        return self._bytes.get(token) or self._texts.get(token, "").encode()

    def save(self, directory: str) -> None:
        """Write its files, so that this package and transformers find the same tokens there."""
        files = dict(self.files)
        if CONFIG_FILE not in files and self.decode(self.encode("a")) == " a":
            # transformers learns of the space in front only from the class
            files[CONFIG_FILE] = b'{"tokenizer_class": "LlamaTokenizer", "add_bos_token": true, "legacy": false}\n'
        _write(directory, files)


def _take_characters(data: bytes, last: bool) -> tuple[str, bytes]:
    """Whole characters at the front of `data`, and the bytes of one that is not complete; `last`: nothing follows."""
    try:
        return data.decode("utf-8"), b""
    except UnicodeDecodeError as error:
        if not last and error.reason == "unexpected end of data":
            return data[: error.start].decode("utf-8"), data[error.start :]
        return data.decode("utf-8", errors="replace"), b""


class JsonTokenizer:
    """A `tokenizer.json` of the tokenizers library (DeepSeek-Math, Llama 3, Qwen), as SentencePieceTokenizer behaves.

    config: fields of tokenizer_config.json, which name the special tokens; eos_id where that names no end of sequence.
    ValueError: there is none.
    """

    def __init__(self, model: str, config: dict | None = None, eos_id: int | None = None, files=None):
        import tokenizers

        self.files = {**(files or {}), TOKENIZERS_FILE: model.encode()}
        self._tokenizer = tokenizers.Tokenizer.from_str(model)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.vocab_size = self._tokenizer.get_vocab_size(with_added_tokens=True)
        config = config or {}
        self.special = special_texts(self.files | {CONFIG_FILE: json.dumps(config).encode()})
        ends = ("<|end▁of▁sentence|>", "<｜end▁of▁sentence｜>", "</s>", "<|endoftext|>", "<|end_of_text|>")
        named = self._special(config, "eos_token", () if eos_id is not None else ends)
        self.eos_id = eos_id if named is None else named
        if self.eos_id is None:
            raise ValueError(f"{TOKENIZERS_FILE}: no end of sequence; name it as eos_token in {CONFIG_FILE} beside it")
        begins = ("<|begin▁of▁sentence|>", "<｜begin▁of▁sentence｜>", "<s>", "<|begin_of_text|>")
        self.bos_id = None if config.get("bos_token", "") is None else self._special(config, "bos_token", begins)
        pad = self._special(config, "pad_token", ("<pad>", "[PAD]"))
        self.pad_id = self.eos_id if pad is None else pad
        # Decoders of the Llama kind drop a text's first space; behind another token none is lost.
        self._anchor = self._tokenizer.encode("a", add_special_tokens=False).ids[-1:]
        self._anchor_text = self._tokenizer.decode(self._anchor, skip_special_tokens=True)
        self._texts: dict[int, str] = {}

    def _special(self, config: dict, field: str, usual: tuple[str, ...]) -> int | None:
        named = config.get(field)
        named = named.get("content") if isinstance(named, dict) else named
        for text in (named,) if named else usual:
            if (token := self._tokenizer.token_to_id(text)) is not None:
                return token
        return None

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def encode_chat(self, text: str) -> list[int]:
        """Tokens of a text in which special tokens are spelt: the library finds them in any text."""
        return self.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.pieces(ids))

    def _together(self, ids: list[int]) -> str:
        return self._tokenizer.decode([*self._anchor, *ids], skip_special_tokens=True)[len(self._anchor_text) :]

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Texts of the tokens; of a character that several tokens spell, the last of them holds it whole."""
        texts, start, ids = [], 0, [int(i) for i in ids]
        for end in range(1, len(ids) + 1):
            if end == start + 1 and ids[start] in self._texts:
                text = self._texts[ids[start]]
            else:
                text = self._together(ids[start:end])
                if end == start + 1:
                    self._texts[ids[start]] = text
            if text.endswith("�") and end < len(ids):
                texts.append("")
                continue
            texts.append(text)
            start = end
        return texts

    def token_bytes(self, token: int) -> bytes:
        """The bytes that a token adds to the text."""
        text = self._together([token])
        if "\ufffd" in text:  # part of a character
            piece = self._tokenizer.id_to_token(token)
            if piece.startswith("<0x") and piece.endswith(">"):
                return bytes([int(piece[3:5], 16)])
            if all(character in _BYTE_LEVEL for character in piece):
                return bytes(_BYTE_LEVEL[character] for character in piece)
        return text.encode()

    def save(self, directory: str) -> None:
        """Write its files, as they were read; where none names the special tokens, one that does."""
        files = dict(self.files)
        if CONFIG_FILE not in files:
            named = {"bos_token": self.bos_id, "eos_token": self.eos_id}
            texts = {name: self._tokenizer.id_to_token(i) for name, i in named.items() if i is not None}
            config = {"tokenizer_class": "PreTrainedTokenizerFast", **texts}
            files[CONFIG_FILE] = (json.dumps(config, ensure_ascii=False) + "\n").encode()
        _write(directory, files)


def _byte_level_alphabet() -> dict[str, int]:
    """The byte that each character of byte-level BPE stands for (Radford et al. 2019): printable ones for themselves."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTE_LEVEL = _byte_level_alphabet()


def _write(directory: str, files: dict[str, bytes]) -> None:
    root = epath.Path(directory)
    root.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (root / name).write_bytes(content)


def load_tokenizer(directory: str) -> Tokenizer | None:
    """The tokenizer in a model directory (`tokenizer.model` or `tokenizer.json`), or None where it has none.

    ValueError names a file that cannot be read.
    """
    root = epath.Path(directory)
    files = {name: (root / name).read_bytes() for name in FILES if (root / name).exists()}
    if SENTENCEPIECE_FILE in files:
        try:
            return SentencePieceTokenizer(files[SENTENCEPIECE_FILE], files)
        except RuntimeError as error:
            if TOKENIZERS_FILE not in files:
                raise ValueError(f"{root / SENTENCEPIECE_FILE} is no SentencePiece model: {error}") from None
        except ValueError as error:
            raise ValueError(f"{root}: {error}") from None
    if TOKENIZERS_FILE not in files:
        return None
    try:
        config = fields(files, SPECIAL_FILE) | fields(files, CONFIG_FILE)
        return JsonTokenizer(files[TOKENIZERS_FILE].decode(), config, _end_of_sequence(root), files)
    except Exception as error:  # the library raises bare Exceptions
        raise ValueError(f"{root / TOKENIZERS_FILE}: {error}") from None


def _end_of_sequence(root) -> int | None:
    """The eos_token_id of the model's config.json, the first where it lists several."""
    path = root / "config.json"
    found = fields({path.name: path.read_bytes()}, path.name).get("eos_token_id") if path.exists() else None
    return found[0] if isinstance(found, list) and found else found if isinstance(found, int) else None


def train_sentencepiece(
    texts: Iterable[str], vocab_size: int, pieces: Sequence[str] = ("\n",)
) -> SentencePieceTokenizer:
    """A BPE tokenizer for mathematical text: digits split, newlines kept, byte fallback, exact round trip.

    `pieces` are strings that always stay single tokens. The one character that does not survive is a literal U+2581.
    """
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocab_size,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        split_digits=True,
        byte_fallback=True,
        character_coverage=1.0,
        user_defined_symbols=[piece.replace(" ", "▁") for piece in pieces],
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        max_sentence_length=1 << 20,
        num_threads=1,
        minloglevel=2,
    )
    return SentencePieceTokenizer(model.getvalue())
