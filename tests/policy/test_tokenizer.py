"""Tokenizers: exact round trips, single pieces, and texts of tokens that join to the whole."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthrl_jax.policy.tokenizer import SentencePieceTokenizer, load_tokenizer, train_sentencepiece
from synthrl_jax.problems import arithmetic, language


@pytest.fixture(scope="module")
def tokenizer():
    texts = [f"{p.question}\n{p.solution}" for p in (arithmetic.make("train", i) for i in range(50))]
    return train_sentencepiece([*texts, "printable: abcdefghijklmnopqrstuvwxyz.?!"], 480, language.pieces())


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.characters(blacklist_characters="▁", blacklist_categories=["Cs"]), max_size=40))
def test_any_text_survives_the_round_trip(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert "".join(tokenizer.pieces(ids)) == text and len(tokenizer.pieces(ids)) == len(ids)
    for cut in range(
        len(ids)
    ):  # a prefix of tokens is never more than a prefix of the text, but for a character cut in two
        assert text.startswith(tokenizer.decode(ids[:cut]).rstrip("�"))


def test_digits_are_split_and_names_and_newlines_are_single_pieces(tokenizer):
    assert tokenizer.pieces(tokenizer.encode("#### 473")) == ["#### ", "4", "7", "3"]
    for piece in language.pieces():
        assert len(tokenizer.encode(piece)) == 1, piece
    line = "owl: fig 12 + tea 7, Owl is 19\n"
    assert tokenizer.pieces(tokenizer.encode(line)) == [
        *("owl: ", "fig ", "1", "2", " + ", "tea ", "7", ", ", "Owl is ", "1", "9", "\n"),
    ]


def test_special_tokens_decode_to_nothing(tokenizer):
    ids = [tokenizer.bos_id, *tokenizer.encode("fig"), tokenizer.eos_id, tokenizer.pad_id]
    assert tokenizer.decode(ids) == "fig" and tokenizer.pieces(ids) == ["", "fig", "", ""]


def test_a_directory_gives_its_tokenizer_or_none(tokenizer, tmp_path):
    assert load_tokenizer(str(tmp_path)) is None
    tokenizer.save(str(tmp_path))
    found = load_tokenizer(str(tmp_path))
    assert isinstance(found, SentencePieceTokenizer) and found.encode("owl: fig 3") == tokenizer.encode("owl: fig 3")


def test_a_tokenizers_file_is_read_behind_the_same_interface(tmp_path):
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    made.train_from_iterator(["two plus two is four\n"] * 3, trainer)
    made.save(str(tmp_path / "tokenizer.json"))
    found = load_tokenizer(str(tmp_path))
    text = "two plus 日本 is\nfour é"
    ids = found.encode(text)
    assert found.decode(ids) == text and "".join(found.pieces(ids)) == text and len(found.pieces(ids)) == len(ids)
    assert (found.bos_id, found.eos_id, found.pad_id) == (0, 1, 1)
    assert found.pieces([*found.encode("two"), found.eos_id])[-1] == ""
