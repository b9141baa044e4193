"""Stop strings end a continuation with the token that completes one, wherever the token borders lie."""

import functools

import jax
import numpy as np
import pytest

from synthrl_jax.policy import decoder
from synthrl_jax.policy.checkpoint import Policy
from synthrl_jax.rollouts import Root, Settings, sample, stop_strings

PIECES = [*"ab\n#", "ab", "ba", "\n\n", "a#", "##", "b##a", "", "aa"]


class Pieces:
    """A tokenizer of a few overlapping pieces."""

    vocab_size, eos_id = len(PIECES), 0

    def pieces(self, ids):
        return [PIECES[i] for i in ids]

    def decode(self, ids):
        return "".join(self.pieces(ids))


@functools.cache
def policy():
    config = decoder.DecoderConfig(
        vocab_size=16, width=32, layers=2, heads=4, kv_heads=2, max_positions=128, dtype="float32"
    )
    return Policy(config, jax.jit(decoder.init, static_argnums=0)(config, jax.random.key(2)), Pieces())


@pytest.mark.parametrize("stops", [("####",), ("\n\n", "aba"), ("ab", "b#"), ("a", "ab")])
def test_the_automaton_stops_where_the_text_first_holds_a_string(stops):
    rng, tokenizer = np.random.default_rng(0), Pieces()
    table = stop_strings.automaton(tokenizer, stops, 16)
    ends = 0
    for _ in range(3000):
        tokens = rng.integers(0, len(PIECES), 12)
        texts = [tokenizer.decode(tokens[: i + 1]) for i in range(len(tokens))]
        expected = next((i for i, text in enumerate(texts) if any(stop in text for stop in stops)), None)
        state, found = stop_strings.START, None
        for i, token in enumerate(tokens):
            state = table[state, token]
            if state == stop_strings.STOPPED:
                found = i
                break
        assert found == expected, texts[-1]
        ends += found is not None
    assert ends > 20


@pytest.mark.parametrize("sampler", ["static", "grouped"])
def test_samplers_stop_there(sampler, spilling):
    stops = ("####", "aba", "\n\n\n")
    roots = [Root(f"root {i}", [1, 2, 3, i], [2, 4], n=8) for i in range(4)]
    settings = Settings(max_tokens=24, stop_ids=(), stop_strings=stops, rows=16, sampler=sampler)
    stopped = 0
    for c in sample(policy(), roots, settings, 0):
        tokens = [t for t in c.tokens if t < len(PIECES)]
        clean = len(tokens) == len(c.tokens)  # ids beyond the tokenizer's have no text
        text, before = Pieces().decode(tokens), Pieces().decode(tokens[:-1])
        if c.finish == "stop":
            stopped += 1
            assert not clean or any(stop in text for stop in stops)
            assert not clean or not any(stop in before for stop in stops)
        else:
            assert len(c.tokens) == 24
            assert not clean or not any(stop in text for stop in stops)
    assert stopped > 5


@pytest.mark.parametrize("text", [None, 0, 3])
@pytest.mark.parametrize("sampler", ["static", "grouped"])
def test_a_string_may_begin_before_a_fork(sampler, text, spilling):
    stops, forks = ("aba", "b#", "\n\n\n"), [3, 5, 6, 8]
    tokens = [2, 0, 1, 0, 2, 4, 0, 1]  # "\naba\nabab": after the fork at 6 an "a" completes "aba"
    roots = [Root(f"root {i}", tokens, forks, n=8, text=text) for i in range(4)]
    settings = Settings(max_tokens=12, stop_ids=(), stop_strings=stops, rows=16, sampler=sampler)
    across = 0
    for c in sample(policy(), roots, settings, 0):
        start = c.fork if text is None else text
        state, end = "".join(PIECES[t] for t in tokens[start : c.fork]), None
        for stop in stops:  # what ended before the fork counts for nothing after it
            state = state[state.rfind(stop) + len(stop) :] if stop in state else state
        for place, token in enumerate(c.tokens):
            state = state + PIECES[token] if token < len(PIECES) else ""
            if any(stop in state for stop in stops):
                end = place
                break
        assert (end is not None) == (c.finish == "stop") and (end is None or end == len(c.tokens) - 1), (c, state)
        own = "".join(PIECES[t] for t in c.tokens if t < len(PIECES))
        across += c.finish == "stop" and not any(stop in own for stop in stops)
    assert (across > 5) == (text is not None)


def test_stop_strings_need_a_tokenizer_and_a_character():
    with pytest.raises(ValueError, match="tokenizer"):
        stop_strings.automaton(None, ("x",), 16)
    with pytest.raises(ValueError, match="empty"):
        stop_strings.automaton(Pieces(), ("",), 16)
    assert stop_strings.automaton(None, (), 16) is None


def test_a_character_spelt_in_byte_tokens_is_found():
    from synthrl_jax.policy.tokenizer import train_sentencepiece

    tokenizer = train_sentencepiece(["What is owl? It is ten."] * 20, 290)
    table = stop_strings.automaton(tokenizer, ("€!",), tokenizer.vocab_size)
    tokens = tokenizer.encode("ten €€!? owl")
    assert len(tokenizer.encode("€")) == 3  # bytes: the text never held it
    state, ended = stop_strings.START, None
    for at, token in enumerate(tokens):
        state = table[state, token]
        if state == stop_strings.STOPPED:
            ended = at
            break
    assert tokenizer.decode(tokens[: ended + 1]) == "ten €€!"


@pytest.mark.parametrize("sampler", ["static", "grouped"])
def test_samplers_stop_within_characters_of_several_tokens(sampler):
    from synthrl_jax.policy.tokenizer import train_sentencepiece

    tokenizer = train_sentencepiece(["What is owl? It is ten."] * 20, 290)
    config = decoder.DecoderConfig(vocab_size=290, width=16, layers=1, heads=2, max_positions=128)
    tokens = [piece for text in ("€", "ten") for piece in tokenizer.encode(text)]
    params = jax.jit(decoder.init, static_argnums=0)(config, jax.random.key(0))
    # only these tokens are likely: the bytes of a character among others
    logits = np.full(290, -30.0, np.float32)
    logits[tokens] = 0.0
    head = decoder.unembed

    def likely(config, weights, hidden):
        return head(config, weights, hidden) * 0.1 + logits

    roots = [Root(f"root {i}", [5, 6], [2], n=16) for i in range(4)]
    settings = Settings(max_tokens=40, stop_ids=(), stop_strings=("€",), rows=16, sampler=sampler)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder, "unembed", likely)
        found = list(sample(Policy(config, params, tokenizer), roots, settings, 0))
    stopped = [c for c in found if c.finish == "stop"]
    assert len(stopped) > 3
    for c in found:
        spelt = b"".join(stop_strings.token_bytes(tokenizer, token) for token in c.tokens)
        assert ("€".encode() in spelt) == (c.finish == "stop")
        assert c.finish == "length" or spelt.endswith("€".encode())


def test_the_table_of_a_large_vocabulary_and_a_long_string_is_that_of_each_piece():
    rng = np.random.default_rng(0)
    pieces = ["".join(rng.choice([*"ab \n"], rng.integers(0, 9))) for _ in range(20_000)]
    tokenizer = Pieces()
    tokenizer.vocab_size, tokenizer.pieces = len(pieces), lambda ids: [pieces[i] for i in ids]
    stop = "ab ba\n"
    table = stop_strings.automaton(tokenizer, (stop, "\n\n\n"), len(pieces) + 3)
    assert table.shape[1] == len(pieces) + 3 and (table[:, -3:] == stop_strings.START).all()
    ended = 0
    for _ in range(3000):
        text, state = "", stop_strings.START
        for piece in rng.integers(0, len(pieces), 12):
            state = table[state, piece]
            text += pieces[piece]
            assert (state == stop_strings.STOPPED) == (stop in text or "\n\n\n" in text)
            if state == stop_strings.STOPPED:
                ended += 1
                break
    assert ended > 20


def test_bytes_of_tokens_join_to_the_text():
    tokenizers = pytest.importorskip("tokenizers")
    from synthrl_jax.policy.tokenizer import JsonTokenizer, train_sentencepiece

    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(special_tokens=["</s>"], initial_alphabet=alphabet, vocab_size=300)
    bpe.train_from_iterator(["owl is 3 and tea is 4"] * 5, trainer)
    byte_level = JsonTokenizer(bpe.to_str())
    text = "owl is €4, ½ tea\n"
    for tokenizer in (byte_level, train_sentencepiece(["owl is 3 and tea is 4"] * 5, 290)):
        ids = tokenizer.encode(text)
        assert b"".join(stop_strings.token_bytes(tokenizer, token) for token in ids) == text.encode()
