"""The schedule: few shapes, and no live row lost when the state becomes smaller."""

import numpy as np
import pytest

from synthrl_jax.rollouts import Root, Settings, schedule
from synthrl_jax.rollouts.board import Board, Stats
from synthrl_jax.rollouts.root import tasks
from synthrl_jax.rollouts.schedule import Needs, Shape, bucket, plan


def shape(groups: int, rows: int) -> Shape:
    return Shape(groups=groups, rows=rows, slots=2, prefix=64, suffix=32, tasks=8, chunk=32, jobs=1)


@pytest.mark.parametrize(("before", "after"), [((8, 16), (8, 8)), ((8, 4), (8, 2)), ((64, 1), (32, 1))])
def test_a_smaller_state_keeps_every_live_row_once_and_with_its_group(before, after):
    rng, shrunk = np.random.default_rng(0), 0
    for _ in range(300):
        board = Board([shape(*before), shape(*after)], [], Settings(max_tokens=8), Stats())
        board.working = 1
        # groups of very unequal numbers of live rows
        board.active_GxR = rng.random(before) < rng.random((before[0], 1)) ** 4
        names_GxR = np.arange(np.prod(before)).reshape(before)
        board.window = [names_GxR.reshape(1, -1)]
        live = set(names_GxR[board.active_GxR].tolist())
        change = board.next_shape()
        needed = sum(-(-int(n) // after[1]) for n in board.active_GxR.sum(axis=1)) if change is None else 0
        if change is None:
            assert needed > after[0]
            continue
        shrunk += 1
        _, group_G, row_GxR, keep_GxR = change
        found_GxR = names_GxR[group_G[:, None], row_GxR]
        assert sorted(found_GxR[keep_GxR].tolist()) == sorted(live)
        np.testing.assert_array_equal(board.window[0].reshape(after), found_GxR)
        np.testing.assert_array_equal(board.active_GxR, keep_GxR)
    assert shrunk > 50


def test_a_plan_holds_its_needs_in_few_shapes():
    rng = np.random.default_rng(0)
    for _ in range(300):
        roots, n = int(rng.integers(1, 300)), int(rng.integers(1, 70))
        longest, prefix = int(rng.integers(1, 500)), int(rng.integers(1, 700))
        median = int(rng.integers(0, prefix + 1))
        needs = Needs(roots, roots * n, n, prefix, median, int(rng.integers(0, median + 1)), longest)
        settings = Settings(max_tokens=longest, rows=int(rng.choice([1, 8, 64, 128])))
        first, *rest = plan(needs, settings)
        assert first.batch <= settings.rows and first.prefix >= prefix and first.suffix >= longest
        assert len(rest) <= 4 and all(a.batch >= b.batch for a, b in zip([first, *rest], rest))
        assert all(s.batch >= 16 for s in rest if s.batch < first.batch)


def test_jobs_cut_for_idle_groups_fit_the_planned_queues():
    settings = Settings(max_tokens=9, rows=64)
    roots = [Root(str(i), range(2, 20), [4, 9, 17], n=40) for i in range(3)]
    jobs = schedule.jobs_of(tasks(roots, settings, 100, 1000))
    first = plan(schedule.needs_of(jobs, 9), settings)[0]
    parts = schedule.cut(jobs, first)
    assert len(parts) >= first.groups and max(map(len, parts)) <= first.tasks
    drawn = [(p.root.id, int(f), int(i)) for p in parts for f, i in zip(p.position_Q, p.index_Q)]
    assert len(drawn) == len(set(drawn)) == 3 * 3 * 40


def test_buckets_hold_their_lengths_and_are_few():
    for parts, most in ((1, 7), (2, 13), (4, 25)):
        sizes = {bucket(length, 16, parts) for length in range(1, 1025)}
        assert len(sizes) <= most
        assert all(n <= bucket(n, 16, parts) <= max(16, n * (1 + 1 / parts) + 1) for n in range(1, 1025))
