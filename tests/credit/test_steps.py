"""Step spans on tokens: hand-made tokenizers for the hard cases, real GSM8K lines for the usual ones."""

import io
import itertools
import json
import random

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_data import shared

from synthrl_jax.credit.steps import step_ids, step_spans
from synthrl_jax.policy.tokenizer import SentencePieceTokenizer

EOS, PAD = 0, 1


class ByteStrings:
    """A tokenizer whose tokens are given byte strings; 0 is the end of sequence, 1 padding. It can only decode."""

    eos_id, pad_id = EOS, PAD

    def __init__(self, *texts):
        self.vocabulary = [b"", b""] + [text if isinstance(text, bytes) else text.encode() for text in texts]

    def decode(self, ids):
        return b"".join(self.vocabulary[i] for i in ids).decode(errors="replace")


class WithPieces(ByteStrings):
    def pieces(self, ids):
        return [self.decode([i]) for i in ids]


def spans_of(texts, delimiters="\n", prompt=(), kind=ByteStrings, tail=(EOS,)):
    """Spans, relative to the response, of a response of the given token texts."""
    tokenizer = kind(*prompt, *texts)
    ids = [*range(2, 2 + len(prompt) + len(texts)), *tail]
    return [(a - len(prompt), b - len(prompt)) for a, b in step_spans(ids, tokenizer, len(prompt), delimiters)]


@pytest.mark.parametrize("kind", [ByteStrings, WithPieces])
@pytest.mark.parametrize(
    "texts, delimiters, expected",
    [
        (["a", "\n", "b"], "\n", [(0, 2), (2, 4)]),
        (["a", "\n", "b", "\n"], "\n", [(0, 2), (2, 5)]),  # the end-of-sequence token goes with the step before
        (["a", "b", "c"], "\n", [(0, 4)]),  # no delimiter
        (["a", ".\n", "b"], "\n", [(0, 2), (2, 4)]),  # merged into a longer token
        (["a", "\n\n", "b", "\n", "\n", " ", "c"], "\n", [(0, 2), (2, 6), (6, 8)]),
        (["a", "\nb", "c", "\n", "d"], "\n", [(0, 2), (2, 4), (4, 6)]),  # the token with the delimiter ends the step
        (["a", "\n", "\nb", "c"], "\n", [(0, 2), (2, 3), (3, 5)]),
        (["a", ".", " b", "."], ("\n", ". "), [(0, 2), (2, 5)]),  # spans two tokens, the second starts the next step
        (["a", ".", " ", "\n", "b", ". ", "c"], ("\n", ". "), [(0, 4), (4, 6), (6, 8)]),
        (["3", ".", "5", " x"], ". ", [(0, 5)]),
        (["a", "#", "#", "b"], "##", [(0, 3), (3, 5)]),  # the rest of a delimiter goes along
        (["\n", "a"], "\n", [(0, 1), (1, 3)]),  # leading delimiter
        ([" ", " ", "a", "\n", "b"], "\n", [(0, 4), (4, 6)]),  # white space alone ends nothing
        ([], "\n", [(0, 1)]),  # only the end of sequence
    ],
)
def test_hand_made_cases(texts, delimiters, expected, kind):
    assert spans_of(texts, delimiters, kind=kind) == expected
    assert spans_of(texts, delimiters, prompt=("x", "\n", "y"), kind=kind) == expected


def test_tokens_that_spell_one_character_stay_together():
    euro = "€".encode()
    assert spans_of(["a", "\n", euro[:1], euro[1:2], euro[2:], "b"]) == [(0, 2), (2, 7)]
    stop = "。".encode()
    assert spans_of(["a", stop[:1], stop[1:], "b"], "。") == [(0, 3), (3, 5)]
    space = "\N{EM SPACE}".encode()
    assert spans_of(["a", "\n", space[:2], space[2:], "b"]) == [(0, 4), (4, 6)]
    assert spans_of(["a", "\n", euro[:1]]) == [(0, 2), (2, 4)]


def test_padding_and_prompt_belong_to_no_step():
    tokenizer = ByteStrings("a", "\n", "b")
    assert step_ids([2, 3, 2, 3, 4, EOS, PAD, PAD], tokenizer, 2, "\n").tolist() == [-1, -1, 0, 0, 1, 1, -1, -1]
    assert step_ids([2, 3, 4, PAD], tokenizer, 0, "\n").tolist() == [0, 0, 1, -1]  # cut off by its length
    assert step_ids([2, 3], tokenizer, 2, "\n").tolist() == [-1, -1]
    assert step_ids(np.array([2, 3, PAD]), tokenizer, 2, "\n").tolist() == [-1, -1, -1]
    assert step_ids([], tokenizer, 0, "\n").tolist() == []
    assert step_ids([2], tokenizer, 0, "\n").dtype == np.int32


def test_padding_with_the_end_of_sequence_token():
    tokenizer = ByteStrings("a", "\n", "b")
    tokenizer.pad_id = EOS
    assert step_ids([2, 3, 4, EOS, EOS, EOS], tokenizer, 1, "\n").tolist() == [-1, 0, 1, 1, -1, -1]
    tokenizer.pad_id = None
    assert step_ids([2, 3, 4, EOS, EOS], tokenizer, 1, "\n").tolist() == [-1, 0, 1, 1, -1]


def test_a_tokenizer_that_only_decodes_will_do():
    class Bare:
        def decode(self, ids):
            return "".join(chr(i) for i in ids)

    tokens = [ord(char) for char in "Q: 2?\nA: two.\nSo 2"]
    assert step_ids(tokens, Bare(), 6, ("\n",)).tolist() == [-1] * 6 + [0] * 8 + [1] * 4


def test_wrong_use_raises():
    tokenizer = ByteStrings("a")
    for prompt_len in (-1, 2):
        with pytest.raises(ValueError, match="prompt_len"):
            step_ids([2], tokenizer, prompt_len, "\n")
    for delimiters in ("", (), ("\n", "")):
        with pytest.raises(ValueError, match="delimiter"):
            step_ids([2], tokenizer, 0, delimiters)


@given(st.lists(st.sampled_from(["a", " ", "\n", ".", ". ", ".\n", " b", b"\xe2", b"\x82", b"\xac"]), max_size=14))
@settings(max_examples=300, deadline=None)
def test_steps_are_a_partition_and_start_only_after_a_delimiter(texts):
    for delimiters in ("\n", ("\n", ". ")):
        spans = spans_of(texts, delimiters, tail=())
        places = [place for start, end in spans for place in range(start, end)]
        assert places == list(range(len(texts)))
        assert all(start < end for start, end in spans)
        assert len(spans) <= 1 + sum(b"\n" in t.encode() or b"." in t.encode() for t in map(_text, texts))


def _text(piece):
    return piece if isinstance(piece, str) else piece.decode(errors="replace")


@pytest.fixture(scope="module")
def gsm8k():
    with shared("data/gsm8k/train.jsonl").open() as file:
        rows = [json.loads(line) for line in file]
    random.Random(0).shuffle(rows)
    return rows[:1500]


@pytest.fixture(scope="module")
def tokenizers(gsm8k):
    texts = [row["question"] + "\n" + row["answer"] for row in gsm8k]
    return _trained(texts, ["\n"]), _trained(texts, ["\n\n", ".\n", ".▁", "\n"])


def _trained(texts, symbols):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        model_type="bpe",
        vocab_size=1024,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        split_digits=True,
        byte_fallback=True,
        character_coverage=1.0,
        user_defined_symbols=symbols,
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        minloglevel=2,
    )
    return SentencePieceTokenizer(model.getvalue())


def test_steps_of_gsm8k_are_its_lines(gsm8k, tokenizers):
    merged_seen = 0
    for tokenizer in tokenizers:
        for row in gsm8k[:400]:
            prompt = tokenizer.encode(row["question"] + "\n")
            response = tokenizer.encode(row["answer"]) + [tokenizer.eos_id]
            spans = step_spans(prompt + response, tokenizer, len(prompt), "\n")
            assert spans[0][0] == len(prompt) and spans[-1][1] == len(prompt) + len(response)
            assert all(a[1] == b[0] for a, b in itertools.pairwise(spans))
            texts = [tokenizer.decode((prompt + response)[a:b]) for a, b in spans]
            assert "".join(texts) == row["answer"]
            assert [text.strip() for text in texts] == [s.strip() for s in row["answer"].split("\n") if s.strip()]
            merged_seen += sum(".\n" in piece for piece in tokenizer.pieces(response))
    assert merged_seen > 100


def test_sentences_of_gsm8k_end_where_their_text_says(gsm8k, tokenizers):
    for tokenizer in tokenizers:
        for row in gsm8k[:200]:
            tokens = tokenizer.encode(row["answer"])
            spans = step_spans(tokens, tokenizer, 0, ("\n", ". "))
            joined = [tokenizer.decode(tokens[:end]) for _, end in spans[:-1]]
            rest = [row["answer"][len(text) :] for text in joined]
            # Each cut lies just behind a newline or a full stop, whose blank may start the next token.
            assert all(text.rstrip(" \n").endswith(".") or text.rstrip(" ").endswith("\n") for text in joined)
            assert all(after.strip() for after in rest)
            wanted = row["answer"].replace("\n", ". ").split(". ")
            assert len(spans) == sum(bool(part.strip()) for part in wanted), row["answer"]


def test_decoding_alone_finds_the_same_steps_as_pieces(gsm8k, tokenizers):
    class DecodeOnly:
        def __init__(self, tokenizer):
            self.decode, self.eos_id, self.pad_id = tokenizer.decode, tokenizer.eos_id, tokenizer.pad_id

    for tokenizer in tokenizers:
        for row in gsm8k[:40]:
            tokens = tokenizer.encode(row["answer"] + " costs 5€ – 😀\nç. done") + [tokenizer.eos_id, tokenizer.pad_id]
            for delimiters in ("\n", ("\n", ". ")):
                expected = step_ids(tokens, tokenizer, 2, delimiters)
                np.testing.assert_array_equal(step_ids(tokens, DecodeOnly(tokenizer), 2, delimiters), expected)
