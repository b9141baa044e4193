"""Tokenizers: exact round trips, single pieces, and texts of tokens that join to the whole."""

import io
import json

import pytest
import sentencepiece
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shared_data import shared
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from synthrl_jax.credit.steps import SENTENCE, step_spans
from synthrl_jax.policy.templates import TEMPLATES, prompt_ids, template
from synthrl_jax.policy.tokenizer import SentencePieceTokenizer, load_tokenizer, train_sentencepiece
from synthrl_jax.problems import arithmetic, language


@pytest.fixture(scope="module")
def tokenizer():
    texts = [f"{p.question}\n{p.solution}" for p in (arithmetic.make("train", i) for i in range(50))]
    return train_sentencepiece(
        [*texts, "printable: abcdefghijklmnopqrstuvwxyz.?!"], 330 + len(language.pieces()), language.pieces()
    )


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
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    made.train_from_iterator(["two plus two is four\n"] * 3, trainer)
    made.save(str(tmp_path / "tokenizer.json"))
    # the model's own end of sequence counts where tokenizer_config.json names none
    (tmp_path / "config.json").write_text('{"eos_token_id": [7, 8]}')
    assert load_tokenizer(str(tmp_path)).eos_id == 7
    (tmp_path / "config.json").unlink()
    found = load_tokenizer(str(tmp_path))
    text = "two plus 日本 is\nfour é"
    ids = found.encode(text)
    assert found.decode(ids) == text and "".join(found.pieces(ids)) == text and len(found.pieces(ids)) == len(ids)
    assert (found.bos_id, found.eos_id, found.pad_id) == (0, 1, 1)
    assert found.pieces([*found.encode("two"), found.eos_id])[-1] == ""


def gsm8k_texts():
    rows = [json.loads(line) for name in ("train", "test") for line in shared(f"data/gsm8k/{name}.jsonl").open()]
    return [text for row in rows for text in (row["question"], row["answer"])]


def llama2_like(texts):
    """A SentencePiece model as Llama 2's: a space in front of each text, no padding token."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=model, model_type="bpe", vocab_size=2000, byte_fallback=True,
        split_digits=True, normalization_rule_name="identity", remove_extra_whitespaces=False, unk_id=0, bos_id=1,
        eos_id=2, pad_id=-1, num_threads=1, minloglevel=2, max_sentence_length=1 << 20,
    )  # fmt: skip
    return SentencePieceTokenizer(model.getvalue())


def byte_level(texts, directory):
    """A tokenizer.json as DeepSeek-Math's, Llama 3's and Qwen's: digits apart, words with the space before them, bytes."""
    made = tokenizers.Tokenizer(models.BPE())
    split = pre_tokenizers.Split(tokenizers.Regex(r"\p{N}|[^\r\n\p{L}\p{N}]?\p{L}+|\s+"), "isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    made.decoder = decoders.ByteLevel()
    special = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=2000, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    return in_json(made, directory, special)


def metaspace(texts, directory):
    """A tokenizer.json as Llama 2's: a space in front of each text, which its decoder takes away again."""
    made = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    strip = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence(strip)
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    # without a pre-tokenizer merges would cross words: cut before each of them while training
    made.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    made.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=2000, special_tokens=special, show_progress=False))
    fields = json.loads(made.to_str())
    fields["pre_tokenizer"] = None
    fields["added_tokens"] = fields["added_tokens"][:3]
    return in_json(tokenizers.Tokenizer.from_str(json.dumps(fields)), directory, ["<s>", "</s>"])


def in_json(made, directory, special):
    directory.mkdir()
    made.save(str(directory / "tokenizer.json"))
    fields = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": special[0], "eos_token": special[1]}
    (directory / "tokenizer_config.json").write_text(json.dumps(fields))
    return load_tokenizer(str(directory))


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    directory, texts = tmp_path_factory.mktemp("kinds"), gsm8k_texts()[:3000]
    return {
        "our own": train_sentencepiece(texts, 2048),
        "llama 2": llama2_like(texts),
        "byte level": byte_level(texts, directory / "bytes"),
        "metaspace": metaspace(texts, directory / "metaspace"),
    }


KINDS = ("our own", "llama 2", "byte level", "metaspace")


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_those_of_transformers_on_all_of_gsm8k(kind, kinds, tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer, texts = kinds[kind], gsm8k_texts()
    tokenizer.save(str(tmp_path))
    fields = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.eos_token_id == tokenizer.eos_id and theirs.bos_token_id == tokenizer.bos_id
    expected = theirs(texts, add_special_tokens=False)["input_ids"]
    wrong = [text for text, ids in zip(texts, expected) if tokenizer.encode(text) != ids]
    assert not wrong, f"{len(wrong)} of {len(texts)}, first {wrong[0]!r}"
    for text in texts[:200]:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids).removeprefix(" ") == text == theirs.decode(ids).removeprefix(" ")
    again = load_tokenizer(str(tmp_path))
    assert [again.encode(text) for text in texts[:20]] == [tokenizer.encode(text) for text in texts[:20]]


MIXED = st.text(
    alphabet=st.one_of(
        st.sampled_from("\n\n  .?!$%,=+<>#0123abc\\{}▁é日🦆\t"),
        st.characters(blacklist_categories=["Cs"]),
    ),
    max_size=60,
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=MIXED, cuts=st.lists(st.integers(0, 60), max_size=4), noise=st.lists(st.integers(0, 1999), max_size=6))
def test_steps_partition_the_response_and_their_texts_join_to_it(kind, kinds, text, cuts, noise):
    tokenizer = kinds[kind]
    ids = tokenizer.encode(text)
    for cut in cuts:  # a model may break off inside of a character, or say any token at all
        ids = [*ids[:cut], *noise, *ids[cut:]]
    ids = [token for token in ids if token not in (tokenizer.eos_id, tokenizer.pad_id)]
    prompt = tokenizer.encode("Question: 1+1?\nAnswer:")
    for delimiters in ("\n", SENTENCE):
        spans = step_spans([*prompt, *ids], tokenizer, len(prompt), delimiters)
        assert [end for _, end in spans[:-1]] == [start for start, _ in spans[1:]]
        assert not ids or (spans[0][0], spans[-1][1]) == (len(prompt), len(prompt) + len(ids))
        assert all(start < end for start, end in spans)
        steps = [([*prompt, *ids][start:end]) for start, end in spans]
        assert (
            "".join(tokenizer.decode(step) for step in steps) == tokenizer.decode(ids) == "".join(tokenizer.pieces(ids))
        )


def test_ids_beyond_the_tokenizer_decode_to_nothing(kinds):
    for tokenizer in kinds.values():  # models pad their vocabulary
        assert tokenizer.decode([*tokenizer.encode("one"), 50_000]).strip() == "one"


def test_templates_are_words_or_texts(kinds):
    tokenizer = kinds["llama 2"]
    ids = prompt_ids(tokenizer, "llama2_chat", "1+1?")
    assert ids[0] == tokenizer.bos_id and tokenizer.decode(ids) == " [INST] 1+1? [/INST]"
    assert prompt_ids(tokenizer, "Q: {question}\n", "1+1?") == tokenizer.encode("Q: 1+1?\n")
    assert tokenizer.decode(prompt_ids(tokenizer, "plain", "{question}")) == " Question: {question}\nAnswer:"
    for word in TEMPLATES:
        assert "1+1?" in tokenizer.decode(prompt_ids(tokenizer, word, "1+1?"))
    with pytest.raises(ValueError, match=r"does not hold \{question\}"):
        template("plane")


def test_a_tokenizer_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"IQ== 0\n")
    with pytest.raises(ValueError, match=r"tokenizer\.model is no SentencePiece model"):
        load_tokenizer(str(tmp_path))
    (tmp_path / "tokenizer.model").unlink()
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        load_tokenizer(str(tmp_path))
