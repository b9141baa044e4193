"""Many sequences in a row: one after another with segment ids, or as trees that hold shared prefixes once.

Only tokens that a loss counts meet the unembedding: a packed row carries, for each of them, the place that predicts it.
Shape letters: N example, L its length, B row, T time, Q counted token of a row, P trunk, R branch slot, S slot of a branch.
"""

import dataclasses
import itertools
from collections.abc import Hashable, Sequence

import numpy as np

from synthrl_jax.policy.attention import Tree

STEP = 16  # sizes are multiples of it, so that batches of like content share compiled programs


@dataclasses.dataclass(frozen=True)
class Packed:
    """Rows as arrays of [B, ...]: tokens, positions, what is seen, and sources and targets [B, Q] of the counted tokens.

    gather int32 [N, L]: where an example's token stands in the flattened [B * Q] log-probs, -1: nowhere. real: tokens in
    the rows that are no padding; counted: tokens that the examples' losses count, a shared one once for each.
    """

    arrays: dict[str, np.ndarray]
    gather: np.ndarray
    real: int
    counted: int

    @property
    def computed(self) -> int:
        """Places of the rows, padding included."""
        return self.arrays["tokens"].size


def first_fit(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices of the sizes in bins of at most `capacity`, the largest first, each into the first bin with room."""
    bins: list[list[int]] = []
    room: list[int] = []
    for i in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        place = next((b for b, left in enumerate(room) if left >= sizes[i]), len(bins))
        if place == len(bins):
            bins.append([])
            room.append(capacity)
        bins[place].append(i)
        room[place] -= sizes[i]
    return bins


def round_up(n: int, step: int = STEP) -> int:
    """The least multiple of `step` that is at least n and at least one step."""
    return max(1, -(-n // step)) * step


def segments(
    tokens: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    *,
    length: int,
    width: int,
    rows: int = 1,
    multiple: int = 1,
    queries: int = 0,
) -> Packed:
    """Examples one after another in rows of `length` tokens, with segment ids (0: padding) and positions.

    width: the L of `gather`. rows, queries: at least so many rows and counted tokens a row, so that shapes repeat; the number
    of rows is a multiple of `multiple`. A first token is predicted from nothing: its mask is not read. ValueError: an example
    is longer than a row.
    """
    if (longest := max(map(len, tokens))) > length:
        raise ValueError(f"an example of {longest} tokens is longer than the rows' {length}")
    bins = first_fit([len(t) for t in tokens], length)
    B = round_up(max(len(bins), rows), multiple)
    arrays = {name: np.zeros((B, length), np.int32) for name in ("tokens", "positions", "segment_ids")}
    places: list = [None] * len(tokens)
    for b, row in enumerate(bins):
        at = 0
        for segment, i in enumerate(row, 1):
            places[i] = b, np.arange(at, at + len(tokens[i]))
            arrays["tokens"][b, places[i][1]] = tokens[i]
            arrays["positions"][b, places[i][1]] = np.arange(len(tokens[i]))
            arrays["segment_ids"][b, places[i][1]] = segment
            at += len(tokens[i])
    return _finished(arrays, places, masks, width, queries, real=sum(map(len, tokens)))


@dataclasses.dataclass(frozen=True)
class TreeShape:
    """P trunk tokens and R slots of S branch tokens in each row."""

    trunk: int
    slots: int
    slot: int

    @property
    def length(self) -> int:
        return self.trunk + self.slots * self.slot


@dataclasses.dataclass(frozen=True)
class _PrefixTree:
    """Sequences cut into a trunk, which holds each token that more than one of them passes through once, and branches; what
    of a sequence's own is longer than a slot of branches begins in the trunk too.

    trunk, depths, ends [P]: tokens in depth-first order, their positions, and where their subtrees end. paths[i]: trunk
    indices of the first tokens of sequence i; the rest of it is its branch.
    """

    trunk: np.ndarray
    depths: np.ndarray
    ends: np.ndarray
    members: list[int]
    paths: list[np.ndarray]


def prefix_tree(tokens: Sequence[np.ndarray], members: Sequence[int], slot: int | None = None) -> _PrefixTree:
    """The tree of the sequences tokens[i] for i in members, with branches of at most `slot` tokens where that is given."""
    order = sorted(members, key=lambda i: tokens[i].tolist())  # neighbours share the most: depth-first order
    common = [_common(tokens[a], tokens[b]) for a, b in itertools.pairwise(order)]
    before, after = [0, *common], [*common, 0]
    trunk, depths, ends, paths = [], [], [], []
    path, size = np.zeros(0, np.int64), 0
    for i, old, new in zip(order, before, after):
        for open_ in path[old:]:  # what the next sequence does not pass through is complete
            ends[open_] = size
        shared = max(old, new, 0 if slot is None else len(tokens[i]) - slot)
        path = np.concatenate([path[:old], size + np.arange(shared - old)])
        trunk.append(tokens[i][old:shared])
        depths.append(np.arange(old, shared))
        ends += [0] * (shared - old)
        size += shared - old
        paths.append(path)
    for open_ in path:
        ends[open_] = size
    join = lambda parts: np.concatenate([np.asarray(p, np.int32) for p in parts])  # noqa: E731
    return _PrefixTree(join(trunk), join(depths), np.asarray(ends, np.int32), order, paths)


def _common(a: np.ndarray, b: np.ndarray) -> int:
    """Length of the common prefix."""
    n = min(len(a), len(b))
    differs = a[:n] != b[:n]
    return int(differs.argmax()) if differs.any() else n


def _grown(tokens: Sequence[np.ndarray], keys: Sequence[Hashable], slot: int | None = None) -> list[_PrefixTree]:
    groups: dict[Hashable, list[int]] = {}
    for i, key in enumerate(keys):
        groups.setdefault(key, []).append(i)
    return [prefix_tree(tokens, members, slot) for members in groups.values()]


def tree_shape(tokens: Sequence[np.ndarray], keys: Sequence[Hashable], length: int) -> TreeShape:
    """A row shape of about `length` tokens for such sequences, those of one key in one tree: slots hold the longest branch,
    and trunk and branches have their shares of all tokens. Any part of a tree's sequences fits too: their trunk is part of
    its trunk, also where a slot holds less than what they no longer share."""
    grown = _grown(tokens, keys)
    branches = [len(tokens[i]) - len(path) for tree in grown for i, path in zip(tree.members, tree.paths)]
    trunks = [len(tree.trunk) for tree in grown]
    slot = round_up(max(branches))
    share = sum(trunks) / max(1, sum(trunks) + sum(branches))
    trunk = max(round_up(max(trunks)), round_up(int(share * length)))
    return TreeShape(trunk, max(1, round((length - trunk) / slot)), slot)


def trees(
    tokens: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    keys: Sequence[Hashable],
    *,
    shape: TreeShape,
    width: int,
    rows: int = 1,
    multiple: int = 1,
    queries: int = 0,
) -> Packed:
    """Examples as prefix trees, those of one key in one tree: a prefix that several share stands once in its row.

    Where not all branches of a tree fit into a row, its trunk is repeated in another. The arrays hold the Tree of
    `policy.attention` as tree_ends, tree_forks and tree_branches; other arguments are those of `segments`. ValueError: a
    trunk is longer than its place.
    """
    filled: list[_Row] = []
    placed: list[tuple[_PrefixTree, int, int, list[tuple[int, np.ndarray, int]]]] = []
    for tree in sorted(_grown(tokens, keys, shape.slot), key=lambda tree: -len(tree.trunk)):
        if len(tree.trunk) > shape.trunk:
            raise ValueError(
                f"shared prefixes, and what slots of {shape.slot} leave of branches, are {len(tree.trunk)} tokens: longer "
                f"than the rows' trunks of {shape.trunk}"
            )
        left = sorted(zip(tree.members, tree.paths), key=lambda part: len(part[1]) - len(tokens[part[0]]))
        while left:
            needs = [len(tokens[i]) - len(path) for i, path in left]
            at = next((b for b, row in enumerate(filled) if row.fits(len(tree.trunk), needs)), len(filled))
            if at == len(filled):
                filled.append(_Row(shape))
            base, here, later = filled[at].take_trunk(len(tree.trunk)), [], []
            for part, need in zip(left, needs):
                start = filled[at].take(need)
                here.append((*part, start)) if start is not None else later.append(part)
            placed.append((tree, at, base, here))
            left = later
    B = round_up(max(len(filled), rows), multiple)
    arrays = {name: np.zeros((B, shape.length), np.int32) for name in ("tokens", "positions")}
    ends, forks = np.zeros((B, shape.trunk), np.int32), np.full((B, shape.length), -1, np.int32)
    branches = np.zeros((B, shape.length), np.int32)
    places: list = [None] * len(tokens)
    real = 0
    for tree, at, base, here in placed:
        trunk = slice(base, base + len(tree.trunk))
        arrays["tokens"][at, trunk], arrays["positions"][at, trunk] = tree.trunk, tree.depths
        ends[at, trunk], forks[at, trunk] = base + tree.ends, np.arange(trunk.start, trunk.stop)
        real += len(tree.trunk)
        for i, path, start in here:
            branch = slice(start, start + len(tokens[i]) - len(path))
            arrays["tokens"][at, branch] = tokens[i][len(path) :]
            arrays["positions"][at, branch] = np.arange(len(path), len(tokens[i]))
            forks[at, branch] = base + path[-1] if len(path) else -1
            branches[at, branch] = start
            places[i] = at, np.concatenate([base + path, np.arange(branch.start, branch.stop)])
            real += branch.stop - branch.start
    arrays |= {
        "tree_ends": ends,
        "tree_forks": forks,
        "tree_branches": branches[:, shape.trunk :].reshape(B, shape.slots, shape.slot),
    }
    return _finished(arrays, places, masks, width, queries, real)


class _Row:
    """How far a row of trees is filled."""

    def __init__(self, shape: TreeShape):
        self.shape, self.trunk, self.used = shape, 0, [0] * shape.slots

    def fits(self, trunk: int, needs: Sequence[int]) -> bool:
        """Whether a trunk and all its branches find room."""
        if self.trunk + trunk > self.shape.trunk:
            return False
        kept = list(self.used)
        found = all(self.take(need) is not None for need in needs)
        self.used = kept
        return found

    def take_trunk(self, n: int) -> int:
        """Where the next n trunk tokens begin."""
        self.trunk += n
        return self.trunk - n

    def take(self, n: int) -> int | None:
        """Where a branch of n tokens begins, in the first slot with room; None where there is none."""
        for slot, used in enumerate(self.used):
            if used + n <= self.shape.slot:
                self.used[slot] += n
                return self.shape.trunk + slot * self.shape.slot + used
        return None


def _finished(arrays, places, masks, width: int, queries: int, real: int) -> Packed:
    """With sources and targets of the counted tokens; places: each example's row and the indices of its tokens."""
    B, T = arrays["tokens"].shape
    counted, sources = np.zeros((B, T), bool), np.zeros((B, T), np.int32)
    wanted = [np.flatnonzero(np.asarray(mask)[1:]) + 1 for mask in masks]
    for (row, at), ts in zip(places, wanted):
        counted[row, at[ts]] = True
        sources[row, at[ts]] = at[ts - 1]
    columns = counted.cumsum(axis=1) - 1
    Q = max(queries, round_up(int(counted.sum(axis=1).max())))
    arrays |= {"sources": np.zeros((B, Q), np.int32), "targets": np.zeros((B, Q), np.int32)}
    rows, indices = np.nonzero(counted)
    arrays["sources"][rows, columns[counted]] = sources[counted]
    arrays["targets"][rows, columns[counted]] = arrays["tokens"][rows, indices]
    gather = np.full((len(places), width), -1, np.int32)
    for i, ((row, at), ts) in enumerate(zip(places, wanted)):
        gather[i, ts] = row * Q + columns[row, at[ts]]
    return Packed(arrays, gather, real, sum(map(len, wanted)))


def tree_of(arrays) -> Tree | None:
    """The Tree of packed arrays; None where the rows hold segments."""
    if "tree_ends" not in arrays:
        return None
    return Tree(*(arrays[f"tree_{name}"] for name in Tree._fields))
