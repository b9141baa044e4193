"""Stop strings as an automaton over tokens: matched on bytes as text is formed, across token borders, on the device.

Shape letters: N states of the automaton, V vocabulary.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import numpy as np

from synthrl_jax.rollouts.root import Task

START, STOPPED = 0, -1


def automaton(tokenizer, strings: Sequence[str], vocab_size: int) -> np.ndarray | None:
    """Next state [N, V] int32 by state and token, -1 where a token completes one of the strings (Aho and Corasick 1975).

    A state is how much of which string the text so far ends with; 0 is nothing. Bytes are matched, so a character that
    several byte tokens spell counts like any other. None where there is no string. ValueError: an empty string, or no tokenizer.
    """
    if not strings:
        return None
    if tokenizer is None:
        raise ValueError("stop strings need the policy's tokenizer, and it has none; give stop ids")
    if not all(strings):
        raise ValueError("an empty stop string stops before anything")
    return _table(tokenizer, tuple(strings), vocab_size)


@functools.lru_cache(maxsize=4)  # a run samples many shards with the same few strings
def _table(tokenizer, strings: tuple[str, ...], vocab_size: int) -> np.ndarray:
    ends = tuple(string.encode() for string in strings)
    prefixes = sorted({end[:n] for end in ends for n in range(len(end) + 1)}, key=lambda p: (len(p), p))
    states = {prefix: state for state, prefix in enumerate(p for p in prefixes if p not in ends)}

    def advance(text: bytes) -> int:
        if text.endswith(ends):
            return STOPPED
        return next(states[text[at:]] for at in range(len(text) + 1) if text[at:] in states)

    by_byte = np.array([[advance(text + bytes([byte])) for byte in range(256)] for text in states], np.int32)
    # all tokens at once, a byte of each at a time: vocabularies hold 100,000 pieces
    pieces = [token_bytes(tokenizer, token) for token in range(tokenizer.vocab_size)]
    found_NxV = np.repeat(np.arange(len(states), dtype=np.int32)[:, None], len(pieces), axis=1)
    for at in range(max(map(len, pieces))):
        on = np.array([i for i, piece in enumerate(pieces) if len(piece) > at])
        before = found_NxV[:, on]
        after = by_byte[np.maximum(before, START), [pieces[i][at] for i in on]]
        found_NxV[:, on] = np.where(before == STOPPED, STOPPED, after)
    # a model's vocabulary may be padded; what lies beyond the tokenizer's has no text, and starts anew
    beyond = np.full((len(states), vocab_size - len(pieces)), START, np.int32)
    return np.concatenate([found_NxV, beyond], axis=1)


def token_bytes(tokenizer, token: int) -> bytes:
    """What a token adds to the text; a tokenizer without `token_bytes` has no tokens of part of a character."""
    if hasattr(tokenizer, "token_bytes"):
        return tokenizer.token_bytes(token)
    return tokenizer.pieces([token])[0].encode()


def resumed(automaton_NxV: np.ndarray | None, wanted: Sequence[Task]) -> list[Task]:
    """The tasks with the state that the text before each fork leaves: a string may begin before a fork and end after it.

    Text starts at the root's `text`; a string that ends before the fork counts for nothing after it, as in `step`.
    """
    if automaton_NxV is None:
        return list(wanted)
    found, last, state, at = [], None, START, 0
    for place in sorted(range(len(wanted)), key=lambda i: (id(wanted[i].root), wanted[i].position)):
        task = wanted[place]
        if task.root is not last:
            last, state, at = task.root, START, task.root.text
        if task.root.text is not None:
            for token in task.root.tokens[at : task.position]:
                state = max(int(automaton_NxV[state, token]), START)
            at = task.position
        found.append((place, dataclasses.replace(task, stop_state=state)))
    return [task for _, task in sorted(found, key=lambda item: item[0])]


def step(automaton_NxV, state: jax.Array, token: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(state after the token, whether it completed a string), elementwise."""
    after = automaton_NxV[state, token]
    return jax.numpy.maximum(after, START), after == STOPPED
