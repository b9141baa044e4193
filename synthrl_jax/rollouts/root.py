"""What is asked of a sampler and what it gives back: roots with forks in, completions out."""

import dataclasses
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

SAMPLERS = ("static", "grouped")
LARGEST = 2**31 - 1  # of what the device holds as integers
# A temperature below overflows scores in float32, and a top_p below is 0 there.
LEAST = {"temperature": 1e-6, "top_p": 1e-30}


@dataclasses.dataclass(frozen=True)
class Fork:
    """A point of a root to continue from: `position` tokens of prefix. None takes the root's or the settings' value.

    The continuations are those of indices first..first + n: more of a fork can be drawn later, and are the same as if at once.
    lengths end each index's continuation after so many tokens (at most max_tokens) and are unknown to any schedule, as
    real lengths are: for benches of random weights, which never stop.
    """

    position: int
    n: int | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    lengths: tuple[int, ...] | None = None
    first: int = 0

    def __post_init__(self):
        plain_numbers(self, f"fork at {self.position}: ", ("position", "n", "max_tokens", "top_k", "first"))
        if self.lengths is not None:
            object.__setattr__(self, "lengths", tuple(map(operator.index, self.lengths)))


@dataclasses.dataclass(frozen=True)
class Root:
    """A token sequence and the positions in it from which `n` continuations each are wanted.

    The fork at position p continues tokens[:p]; forks are positions or Forks. text: where in the tokens the text starts that
    stop strings are matched in, as a response's after its prompt, so that one may begin before a fork and end after it; None:
    at each fork. ValueError: a position that is not in 1..len(tokens), or twice the same, or before `text`; an id that is no
    string.
    """

    id: str
    tokens: Sequence[int]
    forks: Sequence[int | Fork]
    n: int = 1
    text: int | None = None

    def __post_init__(self):
        if not isinstance(self.id, str):
            raise ValueError(f"root {self.id!r}: an id must be a string, not {type(self.id).__name__}")
        try:
            self.id.encode()
        except UnicodeEncodeError:
            raise ValueError(f"root {self.id!r}: an id must have a UTF-8 form; keys are made of its bytes") from None
        object.__setattr__(self, "n", operator.index(self.n))
        tokens = np.asarray(self.tokens)
        if tokens.ndim != 1 or (tokens.size and not np.issubdtype(tokens.dtype, np.integer)):
            raise ValueError(f"root {self.id}: tokens must be one row of integers, not {tokens.dtype} {tokens.shape}")
        forks = tuple(fork if isinstance(fork, Fork) else Fork(fork) for fork in self.forks)
        seen = set()
        for fork in forks:
            if not 1 <= fork.position <= len(tokens):
                raise ValueError(f"root {self.id}: fork position {fork.position} is not in 1..{len(tokens)}")
            if fork.position in seen:
                raise ValueError(f"root {self.id}: two forks at position {fork.position}")
            seen.add(fork.position)
        if self.text is not None:
            object.__setattr__(self, "text", operator.index(self.text))
            if not 0 <= self.text <= min(seen, default=len(tokens)):
                raise ValueError(f"root {self.id}: text starts at {self.text}, not in 0..its first fork")
        if self.n < 0:
            raise ValueError(f"root {self.id}: n must not be negative, but is {self.n}")
        object.__setattr__(self, "tokens", tuple(tokens.tolist()))
        object.__setattr__(self, "forks", forks)


@dataclasses.dataclass(frozen=True)
class Completion:
    """One continuation: `fork` is the fork's position, `tokens` what follows it, the stop token included.

    logprobs are on the distribution that each token was drawn from; model_logprobs (temperature 1, no filter) and
    prompt_logprobs (of the prefix, 0 at its first token) only where the settings ask for them. finish: "stop" or "length".
    """

    root_id: str
    fork: int
    index: int
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: str
    model_logprobs: tuple[float, ...] | None = None
    prompt_logprobs: tuple[float, ...] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How to sample; a fork's own max_tokens, temperature, top_k and top_p come first. Temperature 0 is greedy.

    top_k 0 and top_p 1 leave nothing out. stop_ids None: the tokenizer's eos_id, or nothing without a tokenizer. stop_strings
    end a continuation with the token that completes one of them in its text, across token borders. rows is the device
    batch: no result depends on it.
    """

    max_tokens: int
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    stop_ids: tuple[int, ...] | None = None
    stop_strings: tuple[str, ...] = ()
    sampler: str = "grouped"
    rows: int = 128
    model_logprobs: bool = False
    prompt_logprobs: bool = False

    def __post_init__(self):
        if self.sampler not in SAMPLERS:
            raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}, not {self.sampler!r}")
        if self.stop_ids is not None:
            object.__setattr__(self, "stop_ids", tuple(operator.index(stop) for stop in self.stop_ids))
            if any(abs(stop) > LARGEST for stop in self.stop_ids):
                raise ValueError(f"stop_ids must be token ids, not {self.stop_ids}")
        if isinstance(self.stop_strings, str):
            raise ValueError(f"stop_strings must be several strings, not the characters of {self.stop_strings!r}")
        object.__setattr__(self, "stop_strings", tuple(self.stop_strings))
        for string in self.stop_strings:
            if not isinstance(string, str) or not string:
                raise ValueError(f"stop_strings must be strings of at least one character, not {string!r}")
        plain_numbers(self, "", ("max_tokens", "top_k", "rows"))
        if self.rows < 1:
            raise ValueError(f"rows must be at least 1, not {self.rows}")


def plain_numbers(of, where: str, integers: Sequence[str]) -> None:
    """Turn the integers of a request, its temperature and top_p into Python's own numbers (numpy's do not go into JSON).

    None stays. TypeError: no integer, or no number. ValueError, with `where` before it: one out of its range.
    """
    for name, kind in (*((name, operator.index) for name in integers), ("temperature", float), ("top_p", float)):
        if (value := getattr(of, name)) is None:
            continue
        value = kind(value)
        if name == "top_p" and not 0.0 < value <= 1.0:
            raise ValueError(f"{where}top_p must be in (0, 1], not {value}")
        if not 0 <= value < math.inf:
            raise ValueError(f"{where}{name} must be at least 0 and finite, not {value}")
        if 0 < value < LEAST.get(name, 0):
            zero = "" if name == "top_p" else "0 or "
            raise ValueError(f"{where}{name} must be {zero}at least {LEAST[name]}, not {value}")
        if name in integers and value > LARGEST:
            raise ValueError(f"{where}{name} must be at most {LARGEST}, not {value}")
        object.__setattr__(of, name, value)


@dataclasses.dataclass
class Workload:
    """What the batches of a workload share: the most that any of them needs, and weights laid out for decoding once.

    row_steps, idle_row_steps, near_ties: what the grouped sampler counted in the batches so far, see its `Stats`.
    """

    needs: Any = None  # a sampler's own
    policy: Any = None  # whose weights they are
    weights: Any = None
    row_steps: int = 0
    idle_row_steps: int = 0
    near_ties: int = 0

    def laid_out(self, policy, layout: Callable[[], Any]) -> Any:
        """The policy's weights as its first batch laid them out."""
        if self.policy is not policy:
            self.policy, self.weights = policy, layout()
        return self.weights


@dataclasses.dataclass(frozen=True)
class Task:
    """One fork of one root with everything settled; its rows are indices first..first + n."""

    root: Root
    position: int
    first: int
    n: int
    max_tokens: int
    temperature: float
    top_k: int = 0
    top_p: float = 1.0
    lengths: tuple[int, ...] | None = None  # of rows first..first + n
    stop_state: int = 0  # of the stop strings' automaton after the text before the fork

    @property
    def warp(self) -> tuple[float, float, float]:
        """What stands between the logits and the distribution drawn from: temperature, top-k, top-p."""
        return self.temperature, float(self.top_k), self.top_p

    def budgets(self) -> np.ndarray:
        """Tokens after which each row ends at the latest [n]."""
        budgets = np.full(self.n, self.max_tokens, np.int32)
        return budgets if self.lengths is None else np.minimum(budgets, np.array(self.lengths, np.int32))


def distinct(roots: Iterable[Root]) -> list[Root]:
    """The roots. ValueError: two have one id."""
    roots, seen = list(roots), set()
    for root in roots:
        if root.id in seen:
            raise ValueError(f"two roots have the id {root.id!r}: their samples would be the same")
        seen.add(root.id)
    return roots


def tasks(roots: Iterable[Root], settings: Settings, max_positions: int, vocab_size: int) -> list[Task]:
    """The forks of all roots, in order; a budget ends at the model's last position.

    ValueError: two roots of one id, a fork beyond the model's positions, a token that is not in its vocabulary.
    """
    found = []
    for root in distinct(roots):
        if root.forks and not 0 <= min(root.tokens) <= max(root.tokens) < vocab_size:
            raise ValueError(f"root {root.id}: its tokens must be in 0..{vocab_size - 1}, the policy's vocabulary")
        for fork in root.forks:
            if fork.position > max_positions:
                raise ValueError(
                    f"root {root.id}: fork {fork.position} is beyond the model's {max_positions} positions"
                )
            n = root.n if fork.n is None else fork.n
            budget = settings.max_tokens if fork.max_tokens is None else fork.max_tokens
            temperature = settings.temperature if fork.temperature is None else fork.temperature
            top_k = settings.top_k if fork.top_k is None else fork.top_k
            top_p = settings.top_p if fork.top_p is None else fork.top_p
            budget = min(budget, max_positions - fork.position)
            if n:
                if fork.first + n > LARGEST:
                    raise ValueError(f"root {root.id}: indices end at {LARGEST}, not {fork.first} + {n}")
                if fork.lengths is not None and (len(fork.lengths) != n or min(fork.lengths) < 1):
                    raise ValueError(f"root {root.id}: fork {fork.position} needs {n} lengths of at least 1")
                warp = float(temperature), int(top_k), float(top_p)
                found.append(Task(root, fork.position, fork.first, n, budget, *warp, fork.lengths))
    return found


def filtered(wanted: Iterable[Task]) -> bool:
    """Whether any task leaves out tokens by top-k or top-p; samplers compile the filters only then."""
    return any(task.top_k or task.top_p < 1.0 for task in wanted)
