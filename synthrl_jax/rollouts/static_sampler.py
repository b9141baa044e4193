"""The plain sampler and the oracle of any other: closed batches, one prefill per fork, one loop until all rows are done.

Shape letters: F fork, R row, P padded prefix, M generated tokens, S = P + M cache slots, V vocabulary.
"""

import dataclasses
import functools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from synthrl_jax.policy import decoder
from synthrl_jax.rollouts import sampling, stop_strings
from synthrl_jax.rollouts.root import Completion, Root, Settings, Task, Workload, filtered, tasks

SMALLEST_BUCKET = 32


class Batch(NamedTuple):
    """One closed batch on the host: F prefixes padded on the left, and R rows that continue them."""

    prefix_FxP: np.ndarray
    length_F: np.ndarray
    fork_R: np.ndarray  # which prefix a row continues
    root_Rx2: np.ndarray
    position_R: np.ndarray
    index_R: np.ndarray
    budget_R: np.ndarray  # 0 for rows that only fill the shape
    warp_Rx3: np.ndarray  # temperature, top-k, top-p
    text_R: np.ndarray  # state of the stop strings' automaton


class Generated(NamedTuple):
    """What a batch gives back; columns from count_R on are not generated."""

    token_RxM: jax.Array
    logprob_RxM: jax.Array
    model_logprob_RxM: jax.Array
    count_R: jax.Array
    stopped_R: jax.Array
    gap_RxM: jax.Array  # how near a tie each draw was


def bucket(length: int, smallest: int = SMALLEST_BUCKET) -> int:
    """The next of smallest x (1, 2, 3, 4, 6, 8, 12, ...): few shapes, at most half of one empty."""
    power = smallest
    while power < length:
        power *= 2
    between = power * 3 // 4
    return between if power >= 4 * smallest and length <= between else power


def needs_of(policy, batches, settings: Settings) -> None:
    """Nothing: the shapes of this sampler follow its batches."""


def sample(
    policy, roots: Iterable[Root], settings: Settings, seed: int, workload: Workload | None = None
) -> Iterator[Completion]:
    """See `rollouts.sample`."""
    config = policy.config
    key = sampling.seed_key(seed)
    stops = stop_conditions(policy, settings)
    wanted = stop_strings.resumed(stops[1], tasks(roots, settings, config.max_positions, config.vocab_size))
    yield from (empty(task, i, settings) for task in wanted if not task.max_tokens for i in range(task.n))
    weights = (workload or Workload()).laid_out(policy, lambda: decoder.unstack(config, policy.params))
    filters = filtered(wanted)
    before = None
    for group in plan([task for task in wanted if task.max_tokens], settings.rows):
        batch = pack(group, settings.rows)
        budget = bucket(max(task.max_tokens for task in group))
        generated = generate(config, budget, weights, key, batch, stops, filters)
        # read one batch late: the device works on the next while the host unpacks this one
        if before is not None:
            yield from unpack(*before, settings)
        before = (group, generated)
    if before is not None:
        yield from unpack(*before, settings)


def stop_conditions(policy, settings: Settings) -> tuple[np.ndarray, np.ndarray | None]:
    """Stop ids as data, padded with -1 to a multiple of 8 so that their number compiles nothing; stop strings' automaton."""
    ids = settings.stop_ids
    if ids is None:
        ids = () if policy.tokenizer is None else (policy.tokenizer.eos_id,)
    padded = np.array([*ids, *[-1] * (-len(ids) % 8 or 8 * (not ids))], np.int32)
    return padded, stop_strings.automaton(policy.tokenizer, settings.stop_strings, policy.config.vocab_size)


def empty(task: Task, index: int, settings: Settings) -> Completion:
    """The completion of a task without a budget."""
    model_logprobs = () if settings.model_logprobs else None
    return Completion(task.root.id, task.position, task.first + index, (), (), "length", model_logprobs)


def plan(wanted: list[Task], rows: int) -> list[list[Task]]:
    """Tasks cut into batches of at most `rows` rows, those of like prefix and budget together."""
    batches, free = [], 0
    for task in sorted(wanted, key=lambda task: (-task.position, -task.max_tokens)):
        first, left = task.first, task.n
        while left:
            if not free:
                batches.append([])
                free = rows
            n = min(left, free)
            rows_of_task = slice(first - task.first, first - task.first + n)
            lengths = None if task.lengths is None else task.lengths[rows_of_task]
            batches[-1].append(dataclasses.replace(task, first=first, n=n, lengths=lengths))
            first, left, free = first + n, left - n, free - n
    return batches


def pack(group: list[Task], rows: int) -> Batch:
    """The arrays of a batch, padded to few shapes."""
    R = min(bucket(sum(task.n for task in group), 8), rows)
    F = min(bucket(len(group), 8), rows)
    P = bucket(max(task.position for task in group))
    prefix_FxP = np.zeros((F, P), np.int32)
    length_F = np.ones(F, np.int32)
    for f, task in enumerate(group):
        prefix_FxP[f, P - task.position :] = task.root.tokens[: task.position]
        length_F[f] = task.position
    rows_of = [(f, task, task.first + i) for f, task in enumerate(group) for i in range(task.n)]
    fill = R - len(rows_of)

    def column(values, dtype):
        values = list(values)
        return np.array(values + [values[-1]] * fill, dtype)

    budget_R = column((budget for task in group for budget in task.budgets()), np.int32)
    budget_R[len(rows_of) :] = 0
    return Batch(
        prefix_FxP=prefix_FxP,
        length_F=length_F,
        fork_R=column((f for f, _, _ in rows_of), np.int32),
        root_Rx2=column((sampling.root_words(task.root.id) for _, task, _ in rows_of), np.uint32),
        position_R=column((task.position for _, task, _ in rows_of), np.int32),
        index_R=column((index for _, _, index in rows_of), np.int32),
        budget_R=budget_R,
        warp_Rx3=column((task.warp for _, task, _ in rows_of), np.float32),
        text_R=column((task.stop_state for _, task, _ in rows_of), np.int32),
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 6))
def generate(config: decoder.DecoderConfig, M: int, weights, key, batch: Batch, stops, filters: bool) -> Generated:
    """Prefill every fork once, copy its cache to its rows, and decode until each row stopped or used its budget."""
    P = batch.prefix_FxP.shape[1]
    R = batch.fork_R.shape[0]
    stop_ids_K, automaton_NxV = stops
    row_keys_R = sampling.row_keys(key, batch.root_Rx2, batch.position_R, batch.index_R)

    def draw(hidden_RxD, step):
        logits_RxV = decoder.unembed(config, weights, hidden_RxD)
        keys_R = sampling.token_keys(row_keys_R, batch.position_R + step)
        return sampling.draw_warped(logits_RxV, keys_R, batch.warp_Rx3, filters)

    def record(step, state, drawn):
        cache, _, done_R, out, text_R = state
        counts_R = ~done_R
        stop_R = (drawn.token[:, None] == stop_ids_K).any(axis=1)
        if automaton_NxV is not None:
            text_R, completes_R = stop_strings.step(automaton_NxV, text_R, drawn.token)
            stop_R |= completes_R
        stop_R &= counts_R

        def put(array_RxM, values_R):
            return jax.lax.dynamic_update_slice(array_RxM, values_R[:, None].astype(array_RxM.dtype), (0, step))

        out = Generated(
            token_RxM=put(out.token_RxM, drawn.token),
            logprob_RxM=put(out.logprob_RxM, drawn.logprob),
            model_logprob_RxM=put(out.model_logprob_RxM, drawn.model_logprob),
            count_R=out.count_R + counts_R,
            stopped_R=out.stopped_R | stop_R,
            gap_RxM=put(out.gap_RxM, drawn.gap),
        )
        done_R = done_R | stop_R | (out.count_R >= batch.budget_R)
        return cache, drawn.token, done_R, out, text_R

    first_F = P - batch.length_F
    positions_FxP = jnp.maximum(jnp.arange(P) - first_F[:, None], 0)
    cache_F = decoder.empty_cache(config, batch.prefix_FxP.shape[0], P)
    hidden_FxPxD, cache_F = decoder.extend(config, weights, batch.prefix_FxP, positions_FxP, cache_F, 0, first_F)
    # the last token is never fed, hence M - 1
    grown = ((0, 0), (0, 0), (0, M - 1), (0, 0))
    cache_R = jax.tree.map(lambda slots: jnp.pad(slots[batch.fork_R], grown), cache_F)
    first_R = first_F[batch.fork_R]
    floats_RxM = jnp.zeros((R, M), jnp.float32)
    out = Generated(
        token_RxM=jnp.zeros((R, M), jnp.int32),
        logprob_RxM=floats_RxM,
        model_logprob_RxM=floats_RxM,
        count_R=jnp.zeros(R, jnp.int32),
        stopped_R=jnp.zeros(R, bool),
        gap_RxM=floats_RxM,
    )
    state = (cache_R, jnp.zeros(R, jnp.int32), batch.budget_R <= 0, out, jnp.asarray(batch.text_R))
    state = record(0, state, draw(hidden_FxPxD[:, -1][batch.fork_R], 0))

    def unfinished(carry):
        step, (_, _, done_R, _, _) = carry
        return (step < M) & ~done_R.all()

    def decode(carry):
        step, (cache, last_R, done_R, out, text_R) = carry
        positions_Rx1 = (batch.position_R + step - 1)[:, None]
        hidden_Rx1xD, cache = decoder.extend(
            config, weights, last_R[:, None], positions_Rx1, cache, P + step - 1, first_R
        )
        return step + 1, record(step, (cache, last_R, done_R, out, text_R), draw(hidden_Rx1xD[:, 0], step))

    return jax.lax.while_loop(unfinished, decode, (1, state))[1][3]


def unpack(group: list[Task], generated: Generated, settings: Settings) -> Iterator[Completion]:
    """The completions of a batch, in the order of its rows."""
    generated = jax.device_get(generated)
    row = 0
    for task in group:
        for index in range(task.first, task.first + task.n):
            count = int(generated.count_R[row])
            model = generated.model_logprob_RxM[row, :count].tolist() if settings.model_logprobs else None
            yield Completion(
                root_id=task.root.id,
                fork=task.position,
                index=index,
                tokens=tuple(generated.token_RxM[row, :count].tolist()),
                logprobs=tuple(generated.logprob_RxM[row, :count].tolist()),
                finish="stop" if generated.stopped_R[row] else "length",
                model_logprobs=None if model is None else tuple(model),
            )
            row += 1
