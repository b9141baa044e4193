"""The grouped sampler draws what the static one draws: the same keys, another schedule and another layout."""

import functools

import jax
import numpy as np
import pytest

from synthrl_jax.policy import decoder
from synthrl_jax.policy.checkpoint import Policy
from synthrl_jax.rollouts import (
    Fork,
    Root,
    Settings,
    grouped_sampler,
    sample,
    sample_to_store,
    schedule,
    shared_prefix,
    shared_state,
    store,
    workload_of,
)
from synthrl_jax.rollouts.board import Stats
from synthrl_jax.rollouts.sampling import NEAR_TIE

VOCAB = 97


@functools.cache
def random_policy(kv_heads: int = 2, vocab_size: int = VOCAB, weights: int = 1) -> Policy:
    config = decoder.DecoderConfig(
        vocab_size=vocab_size, width=32, layers=2, heads=4, kv_heads=kv_heads, max_positions=256, dtype="float32"
    )
    return Policy(config, jax.jit(decoder.init, static_argnums=0)(config, jax.random.key(weights)))


def random_roots(count: int, n: int, seed: int, longest: int = 40, filters: float = 0.0) -> list[Root]:
    """Roots with up to four forks at random places, some with their own budget, temperature and (by chance) filters."""
    rng = np.random.default_rng(seed)
    roots = []
    for i in range(count):
        tokens = rng.integers(0, VOCAB, int(rng.integers(2, longest)))
        forks = [
            Fork(
                int(position),
                max_tokens=int(rng.integers(0, 30)) if rng.random() < 0.5 else None,
                temperature=float(rng.choice([0.0, 0.6, 1.0])) if rng.random() < 0.5 else None,
                top_k=int(rng.integers(0, VOCAB)) if rng.random() < filters else None,
                top_p=float(rng.uniform(0.3, 1.0)) if rng.random() < filters else None,
            )
            for position in rng.choice(np.arange(1, len(tokens) + 1), min(4, len(tokens)), replace=False)
        ]
        roots.append(Root(f"root {i}", tokens, forks, n=n))
    return roots


def drawn_by_both(policy, roots, seed=7, grouped_policy=None, **settings):
    """{task: (static completion, grouped completion, gaps)}, after asserting that both drew the same tasks once.

    grouped_policy: the same parameters laid out otherwise.
    """
    settings = {"max_tokens": 24, "stop_ids": (3, 5), "model_logprobs": True} | settings
    oracle = list(sample(policy, roots, Settings(sampler="static", **settings), seed))
    stats = Stats()
    grouped_settings = Settings(sampler="grouped", **settings)
    grouped = list(grouped_sampler.run(grouped_policy or policy, roots, grouped_settings, seed, stats))

    def task(completion):
        return completion.root_id, completion.fork, completion.index

    ours = {task(completion): (completion, gaps) for completion, gaps in grouped}
    assert len(ours) == len(grouped) == len(oracle)
    return {task(c): (c, *ours[task(c)]) for c in oracle}, stats


def assert_equal_but_for_near_ties(pairs):
    """Tokens, finish and both log-probabilities agree; where a row draws another token at a near-tie, up to there.

    At most one row in 1,000 may. A near-tie at the edge of a nucleus can also leave the token and change what it was
    drawn with: one token more or less is in the nucleus. 97 tokens bound the mass at 97 places, logits differ by some
    1e-6 and a row draws some 15 tokens, so about one row in 350 meets such an edge; all its tokens are compared still.
    """
    ties = edges = 0
    for task, (oracle, ours, gaps) in pairs.items():
        apart = [i for i, (a, b) in enumerate(zip(oracle.tokens, ours.tokens)) if a != b]
        upto = apart[0] if apart else len(ours.tokens)
        if apart:
            ties += 1
            assert gaps[upto] < NEAR_TIE, task
        else:
            assert (oracle.tokens, oracle.finish) == (ours.tokens, ours.finish), task
        off = np.abs(np.subtract(oracle.logprobs[:upto], ours.logprobs[:upto])) > 1e-4
        edges += off.any()
        assert (np.asarray(gaps[:upto])[off] < NEAR_TIE).all(), task
        np.testing.assert_allclose(oracle.model_logprobs[:upto], ours.model_logprobs[:upto], atol=1e-4)
    assert ties <= max(1, len(pairs) // 1000)
    assert edges <= max(2, len(pairs) // 250)


@pytest.mark.parametrize(
    ("kv_heads", "roots", "n", "rows", "settings"),
    [
        pytest.param(2, 5, 3, 16, {}, id="few roots, two prefixes a group"),
        pytest.param(4, 1, 60, 16, {}, id="one root, all rows"),
        pytest.param(1, 40, 1, 16, {"temperature": 0.0}, id="greedy, a root a row"),
        pytest.param(2, 12, 4, 8, {"top_k": 5, "top_p": 0.9}, id="filters"),
        pytest.param(2, 3, 2, 128, {}, id="more rows than tasks"),
    ],
)
def test_grouped_and_static_draw_the_same(kv_heads, roots, n, rows, settings):
    pairs, _ = drawn_by_both(random_policy(kv_heads), random_roots(roots, n, seed=rows + n), rows=rows, **settings)
    assert_equal_but_for_near_ties(pairs)


@pytest.mark.parametrize("kv_heads", [2, *(pytest.param(n, marks=pytest.mark.long) for n in (1, 4))])
def test_rows_that_wait_for_a_spill_ring_draw_the_same(kv_heads, spilling):
    """Nothing stops: every row outgrows its ring, and only a quarter of them find a spill ring free at once."""
    roots = [Root(f"root {i}", list(range(3, 11 + i)), [Fork(5), Fork(8, max_tokens=31)], n=16) for i in range(4)]
    pairs, stats = drawn_by_both(random_policy(kv_heads), roots, rows=32, max_tokens=40, stop_ids=())
    assert_equal_but_for_near_ties(pairs)
    assert (stats.shape.rows, stats.shape.spills, stats.shape.ring) == (8, 2, 20)
    assert stats.idle_row_steps > 0.3 * stats.row_steps
    assert stats.tokens == 4 * 16 * (40 + 31)


def test_each_fork_has_filters_of_its_own():
    pairs, _ = drawn_by_both(random_policy(2), random_roots(8, 3, seed=2, filters=0.5), rows=16)
    assert_equal_but_for_near_ties(pairs)


@pytest.fixture
def few_programs():
    """Programs of earlier tests are let go: each holds memory maps, of which a process may have 65,530."""
    jax.clear_caches()


@pytest.mark.long
@pytest.mark.parametrize("seed", range(40))
def test_grouped_and_static_draw_the_same_on_random_work(seed, few_programs, request):
    if seed % 2:
        request.getfixturevalue("spilling")
    rng = np.random.default_rng(seed)
    roots, n = int(rng.integers(1, 40)), int(rng.integers(1, 12))
    roots = random_roots(roots, n, seed=100 + seed, longest=120, filters=seed % 3 / 4)
    rows = int(rng.choice([1, 4, 16, 64]))
    policy = random_policy(int(rng.choice([1, 2, 4])), weights=seed)
    pairs, _ = drawn_by_both(policy, roots, seed=seed, rows=rows)
    assert_equal_but_for_near_ties(pairs)


def test_the_order_of_roots_and_the_size_of_the_batch_change_no_token():
    policy, roots = random_policy(), random_roots(12, 3, seed=3)

    def tokens(roots, rows):
        settings = Settings(max_tokens=24, stop_ids=(3,), rows=rows, sampler="grouped")
        return {(c.root_id, c.fork, c.index): c.tokens for c in sample(policy, roots, settings, 5)}

    first, other = tokens(roots, 16), tokens(roots[::-1], 32)
    assert first.keys() == other.keys()
    assert sum(first[task] != other[task] for task in first) <= 1


@pytest.fixture
def compiled():
    """Grows by one for every program that is compiled (or read from the compile cache) from here on."""
    events = []

    def listen(event, seconds, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            events.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield events
    jax.monitoring.unregister_event_duration_listener(listen)


def uneven_roots(count: int) -> list[Root]:
    """Roots of very different lengths, forks and numbers of rows."""
    rng = np.random.default_rng(0)
    return [
        Root(str(i), rng.integers(0, VOCAB, int(rng.integers(5, 60))), [3, 5][: 1 + i % 2], n=int(rng.integers(1, 8)))
        for i in range(count)
    ]


def test_later_batches_of_a_workload_compile_nothing(compiled):
    policy, roots = random_policy(), uneven_roots(35)
    settings = Settings(max_tokens=24, stop_ids=(3,), rows=32, sampler="grouped")
    batches = [roots[i : i + 8] for i in range(0, 35, 8)]  # the last one is smaller
    needs = workload_of(policy, batches, settings)
    drawn, counts = 0, []
    for seed, batch in enumerate(batches):
        drawn += len(list(sample(policy, batch, settings, seed, needs)))
        counts.append(len(compiled))
    assert drawn == sum(root.n * len(root.forks) for root in roots)
    assert counts[0] > 0 and set(counts[1:]) == {counts[0]}


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2)])
def test_a_batch_of_long_roots_and_one_of_short_ones_share_their_programs(compiled, order):
    """Loads of the short ones are padded to half of what the long ones need."""
    policy, rng = random_policy(1), np.random.default_rng(0)
    batches = [
        [Root(f"{b} {i}", rng.integers(0, VOCAB, length), [length], n=4) for i in range(8)]
        for b, length in enumerate((60, 9, 58))
    ]
    settings = Settings(max_tokens=22 + 20 * order[0], stop_ids=(3,), rows=16)  # programs that no other test has
    workload, counts = workload_of(policy, batches, settings), []
    for b in order:
        assert len(list(sample(policy, batches[b], settings, b, workload))) == 32
        counts.append(len(compiled))
    assert counts[0] > 0 and set(counts) == {counts[0]}


def test_weights_are_laid_out_once_for_all_batches_and_the_idle_share_is_counted(monkeypatch):
    policy, roots, laid_out = random_policy(), random_roots(12, 2, seed=4), []
    layouts = grouped_sampler.layouts

    def counted(config, shape):
        unstack, empty_state = layouts(config, shape)
        return lambda *args: laid_out.append(1) or unstack(*args), empty_state

    monkeypatch.setattr(grouped_sampler, "layouts", counted)
    settings = Settings(max_tokens=24, stop_ids=(3,), rows=16)
    batches = [roots[:6], roots[6:]]
    workload = workload_of(policy, batches, settings)
    tokens = sum(len(c.tokens) for batch in batches for c in sample(policy, batch, settings, 0, workload))
    assert len(laid_out) == 1
    assert workload.row_steps - workload.idle_row_steps == tokens > 0


def test_a_device_ahead_of_the_host_draws_the_same_and_still_gives_up_what_it_does_not_need(monkeypatch):
    """As on accelerators; the shapes that follow one another are the same too."""
    roots = [Root(f"root {i}", range(1, 60 if i < 5 else 12), [5, 9], n=3) for i in range(40)]
    changes = []
    resize = grouped_sampler.Device.resize

    def watched(device, shape, *rest, loads):
        changes[-1].append((shape.prefix, shape.batch, loads))
        return resize(device, shape, *rest, loads=loads)

    monkeypatch.setattr(grouped_sampler.Device, "resize", watched)
    for ahead in (0, 1, 3):
        monkeypatch.setattr(grouped_sampler, "chunks_ahead", lambda ahead=ahead: ahead)
        changes.append([])
        pairs, stats = drawn_by_both(random_policy(), roots, rows=16)
        assert_equal_but_for_near_ties(pairs)
        assert stats.tokens + stats.idle_row_steps == stats.row_steps
    assert changes[0] and changes[0][0][2]  # prefix slots are halved while roots still wait
    assert changes[1] == changes[2] == changes[0]


def test_a_store_compiles_as_often_for_many_shards_as_for_one(compiled, tmp_path):
    policy = random_policy(kv_heads=1)
    settings = Settings(max_tokens=23, stop_ids=(3,), rows=16, sampler="grouped")
    counts, write = [], store.write_shard
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "write_shard", lambda *args: (counts.append(len(compiled)), write(*args)))
        sample_to_store(tmp_path, policy, uneven_roots(20), settings, 0, shard_roots=4, progress=False)
    assert len(counts) == 5 and counts[0] > 0 and set(counts) == {counts[0]}


def test_idle_rows_are_few_when_work_is_plenty():
    _, stats = drawn_by_both(random_policy(), random_roots(60, 4, seed=9), rows=16)
    assert stats.tokens + stats.idle_row_steps == stats.row_steps
    assert stats.idle_row_steps < 0.15 * stats.row_steps


def test_work_without_a_budget_is_empty_and_no_work_is_nothing():
    policy = random_policy()
    settings = Settings(max_tokens=0, sampler="grouped")
    [completion] = sample(policy, [Root("a", [1, 2], [2])], settings, 0)
    assert (completion.tokens, completion.finish) == ((), "length")
    assert list(sample(policy, [], settings, 0)) == []
    assert list(sample(policy, [Root("a", [1, 2], [2], n=0)], settings, 0)) == []


@pytest.mark.parametrize(("groups", "rows"), [(4, 4), (16, 1), (1, 16)])
def test_a_decode_step_copies_no_cache(groups, rows):
    config = random_policy().config
    shape = schedule.Shape(
        groups=groups, rows=rows, slots=1, prefix=64, suffix=512, tasks=8, chunk=8, jobs=1, spills=rows // 4
    )
    state = jax.eval_shape(lambda: shared_state.empty_state(config, shape))
    weights = jax.eval_shape(functools.partial(decoder.unstack, config), random_policy().params)
    arguments = config, shape, weights, state, (np.zeros(8, np.int32), None), False, np.int32(1)
    memory = shared_prefix.decode.lower(*arguments).compile().memory_analysis()
    one_array = state.layers[0].suffix_k.size * 4
    assert memory.alias_size_in_bytes > 4 * one_array  # donated: written where it lies
    assert memory.temp_size_in_bytes < one_array


@pytest.mark.parametrize("sampler", ["static", "grouped"])
def test_prompt_logprobs_are_those_of_a_full_forward_pass(sampler):
    policy = random_policy()
    roots = [Root("a", [5, 9, 2, 7, 1], [2, 5]), Root("b", [8, 8, 4], [3])]
    settings = Settings(max_tokens=4, stop_ids=(), prompt_logprobs=True, rows=8, sampler=sampler)
    found = list(sample(policy, roots, settings, 0))
    assert len(found) == 3
    tokens = {root.id: root.tokens for root in roots}
    for completion in found:
        prefix = np.array([tokens[completion.root_id][: completion.fork]], np.int32)
        expected = decoder.token_logprobs(policy.config, policy.params, prefix)[0]
        np.testing.assert_allclose(completion.prompt_logprobs, expected, atol=1e-4)
