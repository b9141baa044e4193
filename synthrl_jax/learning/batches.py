"""Batches of examples as arrays, in an order that is a function of (seed, step) alone."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import numpy as np

from synthrl_jax.credit.example import Example
from synthrl_jax.learning import packing
from synthrl_jax.learning.packing import Packed
from synthrl_jax.policy import sharding

PACKS = ("none", "segments", "tree")
PLANNED = 32  # batches that the shapes of packed rows are planned on
ROUND = 16  # lengths are padded to multiples of this, so that data sets of like length share compiled programs


class Batches:
    """Rows for learning, padded to one length.

    A unit is what a batch counts: a row, or both rows of a preference pair (chosen first). `at(step)` gives the arrays of
    a step, [M, rows, ...] for M micro-batches: tokens, mask, weight, ref_logprobs where they are known, pair_weight for
    pairs and every further array of the examples (int arrays padded by -1, others by 0). Each epoch is a new permutation;
    a batch may hold the end of one epoch and the beginning of the next.

    pack: `none` gives each row its own padding. `segments` and `tree` put the same examples into rows of about
    `pack_length` tokens (0: the longest example) by `learning.packing`: the policy runs on the arrays named "packed_...", and
    "gather" finds each example's tokens there. With `tree`, units of one problem (`meta["problem_id"]`) stay together in
    the order, and a shared prefix is computed once. multiple: of which `length` and `pack_length` are rounded up.

    trim (for pack `none`; may be set later): a step's rows are padded to the longest of them only, rounded up to `multiple`. The
    loss is the same but for the order of sums; each length that occurs is a shape, for which a step is compiled.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        batch: int,
        seed: int,
        pad_id: int,
        micro: int | None = None,
        length: int | None = None,
        pack: str = "none",
        pack_length: int = 0,
        multiple: int = ROUND,
        trim: bool = False,
    ):
        if not examples:
            raise ValueError("no examples to learn from")
        units = group_pairs(examples)
        self.units, self.unit_rows = len(units), len(units[0])
        self.batch, self.seed = batch, seed
        self.micro = micro or batch
        if batch < 1 or batch % self.micro:
            raise ValueError(f"a batch of {batch} does not divide into micro-batches of {self.micro}")
        rows = [example for unit in units for example in unit]
        longest = max(len(row.tokens) for row in rows)
        self.length = length or -(-longest // multiple) * multiple
        if longest > self.length:
            raise ValueError(f"a row of {longest} tokens is longer than the batch's {self.length}")
        self.arrays = to_arrays(rows, self.length, pad_id)
        if pack not in PACKS:
            raise ValueError(f"pack {pack!r}: use one of {', '.join(PACKS)}")
        self.pack, self.ways = pack, 1
        self.multiple, self.trim = multiple, trim
        self._by_token = {"tokens", "mask", "weight", "ref_logprobs"} | {n for n in rows[0].arrays if by_token(rows, n)}
        self.lengths = np.array([len(row.tokens) for row in rows])
        self._keys = [unit[0].meta.get("problem_id", number) for number, unit in enumerate(units)]
        if pack != "none":
            self._rows = rows
            self._packed_length = packing.round_up(max(pack_length, longest if pack == "segments" else 0), multiple)
            self._packed = functools.lru_cache(maxsize=4)(self._pack)

    def check_mesh(self, mesh: jax.sharding.Mesh | None) -> None:
        """ValueError where a micro-batch does not divide over the mesh's batch axes; packed rows are made to."""
        if mesh is None:
            return
        ways = int(np.prod([mesh.shape[axis] for axis in sharding.RULES["batch"]]))
        if self.pack != "none":
            self.ways = ways
        elif self.micro * self.unit_rows % ways:
            raise ValueError(
                f"a micro-batch of {self.micro} x {self.unit_rows} rows does not divide over the mesh's {ways} shards of "
                f"the batch ({dict(mesh.shape)}); change the batch or the mesh"
            )

    def updates(self, epochs: float) -> int:
        """Optimiser steps that go `epochs` times over the data, at least one."""
        return max(1, round(epochs * self.units / self.batch))

    def units_at(self, step: int) -> np.ndarray:
        """The units of a step [batch]."""
        places = step * self.batch + np.arange(self.batch)
        epochs = places // self.units
        orders = {epoch: self._order(int(epoch)) for epoch in np.unique(epochs)}
        return np.array([orders[epoch][place % self.units] for epoch, place in zip(epochs, places)])

    def _order(self, epoch: int) -> np.ndarray:
        random = np.random.default_rng([self.seed, epoch])
        if self.pack != "tree":
            return random.permutation(self.units)
        groups: dict = {}
        for unit, key in enumerate(self._keys):
            groups.setdefault(key, []).append(unit)
        members = list(groups.values())
        return np.concatenate([members[i] for i in random.permutation(len(members))])

    def at(self, step: int) -> dict[str, np.ndarray]:
        """The arrays of a step."""
        units = self.units_at(step)
        out = self._take(units, self.micro)
        if self.pack == "none":
            T = self._length_at(units)
            return {name: array[..., :T] if name in self._by_token else array for name, array in out.items()}
        packed = self._packed(tuple(units.tolist()), *self._plan())
        out["gather"] = np.stack([part.gather for part in packed])
        out |= {f"packed_{name}": np.stack([part.arrays[name] for part in packed]) for name in packed[0].arrays}
        return out

    def _length_at(self, units: np.ndarray) -> int:
        """Tokens that the rows of a step are padded to."""
        if not self.trim:
            return self.length
        rows = (units[:, None] * self.unit_rows + np.arange(self.unit_rows)).reshape(-1)
        return min(self.length, packing.round_up(int(self.lengths[rows].max()), self.multiple))

    def counts(self, step: int) -> dict[str, int]:
        """Of a step: tokens `computed` (padding included), `real` ones among them, `trained` ones, which a loss counts, and
        how many tokens the real ones see in all (`seen`)."""
        units = self.units_at(step)
        rows = (units[:, None] * self.unit_rows + np.arange(self.unit_rows)).reshape(-1)
        if self.pack == "none":
            trained = int(np.count_nonzero(self.arrays["mask"][rows][:, 1:]))
            lengths = self.lengths[rows]
            seen = int((lengths * (lengths + 1) // 2).sum())
            return {
                "computed": len(rows) * self._length_at(units),
                "real": int(lengths.sum()),
                "trained": trained,
                "seen": seen,
            }
        packed = self._packed(tuple(units.tolist()), *self._plan())
        return {
            "computed": sum(part.computed for part in packed),
            "real": sum(part.real for part in packed),
            "trained": sum(part.counted for part in packed),
            "seen": sum(int(part.arrays["positions"].sum()) + part.real for part in packed),
        }

    @functools.cached_property
    def _tree_shape(self) -> packing.TreeShape:
        """A shape in which the whole data set's trees fit, and so any part of one that a micro-batch holds.

        Rows are at least as long as the longest trunk and branch.
        """
        keys = [key for key in self._keys for _ in range(self.unit_rows)]
        return packing.tree_shape([row.tokens for row in self._rows], keys, self._packed_length)

    def _plan(self) -> tuple[int, int]:
        """(rows, counted tokens a row) that the first batches need: nearly all batches then have one shape."""
        if getattr(self, "_planned", (0,))[0] != self.ways:
            need = [0, 0]
            for step in range(min(PLANNED, self.updates(1))):
                for part in self._pack(tuple(self.units_at(step).tolist()), 1, 0):
                    rows, queries = part.arrays["sources"].shape
                    need = [max(need[0], rows), max(need[1], queries)]
            self._planned = (self.ways, *need)
        return self._planned[1:]

    def _pack(self, units: tuple[int, ...], rows: int, queries: int) -> list[Packed]:
        """Each micro-batch of a step, packed into arrays of one shape."""
        packed = [self._pack_one(part, rows, queries) for part in np.reshape(units, (-1, self.micro))]
        if len({part.arrays["sources"].shape for part in packed}) > 1:
            most = np.max([part.arrays["sources"].shape for part in packed], axis=0).tolist()
            packed = [self._pack_one(part, *most) for part in np.reshape(units, (-1, self.micro))]
        return packed

    def _pack_one(self, units: np.ndarray, rows: int, queries: int) -> Packed:
        # where two epochs meet a unit may come twice: in a tree it stands once
        once = list(dict.fromkeys(units.tolist())) if self.pack == "tree" else units
        picked = [unit * self.unit_rows + side for unit in once for side in range(self.unit_rows)]
        tokens, masks = zip(*((self._rows[i].tokens, self._rows[i].mask) for i in picked))
        sizes = {"width": self.length, "rows": rows, "multiple": self.ways, "queries": queries}
        if self.pack == "segments":
            return packing.segments(tokens, masks, length=self._packed_length, **sizes)
        keys = [self._keys[i // self.unit_rows] for i in picked]
        packed = packing.trees(tokens, masks, keys, shape=self._tree_shape, **sizes)
        if len(once) == len(units):
            return packed
        places = [once.index(unit) * self.unit_rows + side for unit in units for side in range(self.unit_rows)]
        gather = packed.gather[places]
        return dataclasses.replace(packed, gather=gather, counted=int((gather >= 0).sum()))

    def all(self, rows: int):
        """The data in order, `rows` rows at a time as [rows, ...]; the last batch repeats the last row to fill up."""
        total = len(self.arrays["tokens"])
        for start in range(0, total, rows):
            picked = np.minimum(np.arange(start, start + rows), total - 1)
            yield {name: array[picked] for name, array in self.arrays.items() if len(array) == total}

    def _take(self, units: np.ndarray, micro: int) -> dict[str, np.ndarray]:
        rows = (units[:, None] * self.unit_rows + np.arange(self.unit_rows)).reshape(-1, micro * self.unit_rows)
        out = {}
        for name, array in self.arrays.items():
            picked = units.reshape(-1, micro) if name == "pair_weight" else rows
            out[name] = array[picked]
        return out


def group_pairs(examples: Sequence[Example]) -> list[tuple[Example, ...]]:
    """Units of a data set: (row,) each, or (chosen, rejected). ValueError where rows and pairs mix, or a side is missing or
    there twice."""
    if all(example.pair is None for example in examples):
        return [(example,) for example in examples]
    sides: dict[str, dict[str, Example]] = {}
    for example in examples:
        if example.pair is None:
            raise ValueError("a data set holds either preference pairs or single rows, not both")
        roles = sides.setdefault(example.pair.id, {})
        if example.pair.role in roles:
            raise ValueError(f"pair {example.pair.id} has two {example.pair.role} sides: ids must not repeat")
        roles[example.pair.role] = example
    for name, roles in sides.items():
        if set(roles) != {"chosen", "rejected"}:
            raise ValueError(f"pair {name} has no {'chosen' if 'chosen' not in roles else 'rejected'} side")
    return [(roles["chosen"], roles["rejected"]) for roles in sides.values()]


def to_arrays(rows: Sequence[Example], length: int, pad_id: int) -> dict[str, np.ndarray]:
    """Rows padded on the right: tokens int32, mask and weight float32 [N, length], and what else they carry."""
    arrays = {
        "tokens": _pad([row.tokens for row in rows], length, pad_id, np.int32),
        "mask": _pad([row.mask for row in rows], length, 0, np.float32),
        "weight": _pad([row.weight for row in rows], length, 0, np.float32),
    }
    if all(row.ref_logprobs is not None for row in rows):
        arrays["ref_logprobs"] = _pad([row.ref_logprobs for row in rows], length, 0, np.float32)
    for name in rows[0].arrays:
        values = [row.arrays[name] for row in rows]
        whole = np.issubdtype(values[0].dtype, np.integer)
        width = length if by_token(rows, name) else max(len(value) for value in values)
        arrays[name] = _pad(values, width, -1 if whole else 0, np.int32 if whole else np.float32)
    if rows[0].pair is not None:
        arrays["pair_weight"] = np.array([row.meta.get("pair_weight", 1.0) for row in rows[::2]], np.float32)
    return arrays


def by_token(rows: Sequence[Example], name: str) -> bool:
    """Whether an array of the examples has an entry for each of their tokens."""
    return all(len(row.arrays[name]) == len(row.tokens) for row in rows)


def _pad(values, length: int, fill, dtype) -> np.ndarray:
    out = np.full((len(values), length), fill, dtype)
    for row, value in zip(out, values):
        row[: len(value)] = value
    return out
