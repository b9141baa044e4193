"""Steps of a response as spans of its tokens: delimiters are looked for in the decoded text, tokens are never re-made."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# A step is a line, or for MATH a line or a sentence (paper section 3): marks that end one, also inside of closing mathematics.
LINE = ("\n",)
SENTENCE = ("\n", ". ", "? ", "! ", ".$ ", "?$ ", ".) ", ".\\] ", ".\\) ", ".$$ ")
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class _Group(NamedTuple):
    """Tokens [start, end) that only together spell whole characters; nearly always one token."""

    start: int
    end: int
    text: str


def step_ids(tokens, tokenizer, prompt_len: int, delimiters: str | Sequence[str] = "\n") -> np.ndarray:
    """The step that each token belongs to, int32 [T]; -1 on the prompt and the padding.

    tokens int [T] = prompt, response and possibly padding. See `step_spans`.
    """
    ids = np.full(len(tokens), -1, np.int32)
    for step, (start, end) in enumerate(step_spans(tokens, tokenizer, prompt_len, delimiters)):
        ids[start:end] = step
    return ids


def step_spans(tokens, tokenizer, prompt_len: int, delimiters: str | Sequence[str] = "\n") -> list[tuple[int, int]]:
    """Token spans [start, end) of the steps; in order they make up the response exactly.

    A step ends with the token that holds a delimiter's first character, and with it go the tokens after it that are
    nothing but delimiter or white space; the end-of-sequence token decodes to nothing and goes along too. Tokens that
    spell one character together stay together. `tokenizer` has `pieces` (the texts of the tokens) or else `decode`;
    `pad_id` and `eos_id` tell padding where it has them. ValueError if prompt_len is out of range or a delimiter empty.
    """
    tokens = [int(token) for token in tokens]
    if not 0 <= prompt_len <= len(tokens):
        raise ValueError(f"prompt_len {prompt_len} is out of range for {len(tokens)} tokens")
    delimiters = (delimiters,) if isinstance(delimiters, str) else tuple(delimiters)
    if not delimiters or not all(delimiters):
        raise ValueError("give at least one delimiter, none of them empty")
    groups = _groups(tokens[prompt_len : _response_end(tokens, tokenizer, prompt_len)], tokenizer)
    spans, start, ended = [], 0, False
    for group, holds_first, only_delimiter in _marks(groups, delimiters):
        if ended and not only_delimiter:
            spans.append((start + prompt_len, group.start + prompt_len))
            start, ended = group.start, False
        ended = ended or holds_first
    if groups:
        spans.append((start + prompt_len, groups[-1].end + prompt_len))
    return spans


def _response_end(tokens: list[int], tokenizer, prompt_len: int) -> int:
    """Where padding begins: after the first end-of-sequence token, and before a trailing run of padding."""
    eos, pad = getattr(tokenizer, "eos_id", None), getattr(tokenizer, "pad_id", None)
    end = len(tokens)
    if eos is not None and eos in tokens[prompt_len:]:
        return tokens.index(eos, prompt_len) + 1
    while pad is not None and end > prompt_len and tokens[end - 1] == pad:
        end -= 1
    return end


def _marks(groups: list[_Group], delimiters: tuple[str, ...]):
    """(group, holds a delimiter's first character, is nothing but delimiter or white space) for each group."""
    text = "".join(group.text for group in groups)
    first, inside = np.zeros(len(text), bool), np.array([char.isspace() for char in text], bool)
    longest_first = sorted(delimiters, key=len, reverse=True)
    for match in re.finditer("|".join(map(re.escape, longest_first)), text):
        first[match.start()] = True
        inside[match.start() : match.end()] = True
    place = 0
    for group in groups:
        chars = slice(place, place + len(group.text))
        yield group, bool(first[chars].any()), bool(inside[chars].all())
        place += len(group.text)


def _groups(ids: list[int], tokenizer) -> list[_Group]:
    """The tokens with their texts, those that spell one character together as one group."""
    stopped = bool(ids) and ids[-1] == getattr(tokenizer, "eos_id", None)
    body = ids[:-1] if stopped else ids
    texts = tokenizer.pieces(body) if hasattr(tokenizer, "pieces") else _decoded_pieces(body, tokenizer)
    groups, start = [], 0
    for end, (token, text) in enumerate(zip(body, texts), 1):
        if text == "" and end < len(body) and tokenizer.decode([token]) != "":
            continue  # the front of a character that a later token completes
        groups.append(_Group(start, end, text))
        start = end
    return groups + [_Group(len(body), len(ids), "")] * stopped


def _decoded_pieces(ids: list[int], tokenizer) -> list[str]:
    """Texts of the tokens from `decode` alone; of a character spelt by several tokens, the last one holds it whole.

    Each token is decoded behind the few before it, since decoders may treat a text's first token in their own way.
    """
    texts, context, known = [], 0, 0
    for end in range(1, len(ids) + 1):
        before, text = tokenizer.decode(ids[context:known]), tokenizer.decode(ids[context:end])
        if text.endswith(REPLACEMENT) and end < len(ids):
            texts.append("")
            continue
        texts.append(text[len(before) :])
        if len(text) > len(before):
            context, known = known, end
    return texts
