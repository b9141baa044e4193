"""Tokenizers behind one small interface: encode, decode, pieces for step splitting, special ids."""

import io
from collections.abc import Iterable, Sequence
from typing import Protocol

from etils import epath

SENTENCEPIECE_FILE, TOKENIZERS_FILE = "tokenizer.model", "tokenizer.json"


class Tokenizer(Protocol):
    """What the rooms need of a tokenizer. `pieces(ids)` are the texts of the tokens; joined they are `decode(ids)`."""

    vocab_size: int
    pad_id: int
    bos_id: int | None
    eos_id: int

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...

    def pieces(self, ids: Sequence[int]) -> list[str]: ...


class SentencePieceTokenizer:
    """A SentencePiece model; special tokens decode to nothing, no token is added by `encode`."""

    def __init__(self, model: bytes):
        import sentencepiece

        self.model = model
        self._sp = sentencepiece.SentencePieceProcessor(model_proto=model)
        sp = self._sp
        self.vocab_size, self.bos_id, self.eos_id = sp.get_piece_size(), sp.bos_id(), sp.eos_id()
        self.bos_id = None if self.bos_id < 0 else self.bos_id
        # Llama 2 has no padding token; its unknown token is never produced under byte fallback and serves as one.
        self.pad_id = sp.pad_id() if sp.pad_id() >= 0 else sp.unk_id()
        self._silent = {i for i in range(self.vocab_size) if sp.is_control(i)} | {self.pad_id}

    def encode(self, text: str) -> list[int]:
        return self._sp.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.pieces(ids))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Texts of the tokens; of a character spelt in bytes, the last byte's token holds it whole."""
        texts, pending = [], b""
        ids = [int(i) for i in ids]
        for place, token in enumerate(ids):
            if self._sp.is_byte(token):
                pending += bytes([int(self._sp.id_to_piece(token)[3:5], 16)])
                last = place + 1 == len(ids) or not self._sp.is_byte(ids[place + 1])
                text, pending = _take_characters(pending, last)
            else:
                text = "" if token in self._silent else self._sp.id_to_piece(token).replace("▁", " ")
            texts.append(text)
        return texts

    def save(self, directory: str) -> None:
        (epath.Path(directory) / SENTENCEPIECE_FILE).write_bytes(self.model)


def _take_characters(data: bytes, last: bool) -> tuple[str, bytes]:
    """Whole characters at the front of `data`, and the bytes of one that is not complete; `last`: nothing follows."""
    try:
        return data.decode("utf-8"), b""
    except UnicodeDecodeError as error:
        if not last and error.reason == "unexpected end of data":
            return data[: error.start].decode("utf-8"), data[error.start :]
        return data.decode("utf-8", errors="replace"), b""


class JsonTokenizer:
    """A `tokenizer.json` of the tokenizers library (DeepSeek-Math, Llama 3, Qwen)."""

    def __init__(self, path: str, config: dict | None = None):
        import tokenizers

        self._tokenizer = tokenizers.Tokenizer.from_str(epath.Path(path).read_text())
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.vocab_size = self._tokenizer.get_vocab_size(with_added_tokens=True)
        config = config or {}
        self.eos_id = self._special(
            config, "eos_token", ("<|end▁of▁sentence|>", "</s>", "<|endoftext|>", "<|end_of_text|>")
        )
        if self.eos_id is None:
            raise ValueError(
                f"{path}: no end-of-sequence token; name it as eos_token in tokenizer_config.json beside it"
            )
        self.bos_id = self._special(config, "bos_token", ("<|begin▁of▁sentence|>", "<s>", "<|begin_of_text|>"))
        pad = self._special(config, "pad_token", ("<pad>", "[PAD]"))
        self.pad_id = self.eos_id if pad is None else pad

    def _special(self, config: dict, field: str, usual: tuple[str, ...]) -> int | None:
        named = config.get(field)
        named = named.get("content") if isinstance(named, dict) else named
        for text in (named,) if named else usual:
            if (token := self._tokenizer.token_to_id(text)) is not None:
                return token
        return None

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=True)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Texts of the tokens; of a character that several tokens spell, the last of them holds it whole."""
        texts, start, ids = [], 0, [int(i) for i in ids]
        for end in range(1, len(ids) + 1):
            text = self.decode(ids[start:end])
            if text.endswith("�") and end < len(ids):
                texts.append("")
                continue
            texts.append(text)
            start = end
        return texts


def load_tokenizer(directory: str) -> Tokenizer | None:
    """The tokenizer in a model directory (`tokenizer.model` or `tokenizer.json`), or None where it has none."""
    import json

    root = epath.Path(directory)
    if (root / SENTENCEPIECE_FILE).exists():
        return SentencePieceTokenizer((root / SENTENCEPIECE_FILE).read_bytes())
    if (root / TOKENIZERS_FILE).exists():
        config = root / "tokenizer_config.json"
        return JsonTokenizer(str(root / TOKENIZERS_FILE), json.loads(config.read_text()) if config.exists() else None)
    return None


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
