"""Batches of examples as arrays, in an order that is a function of (seed, step) alone."""

from collections.abc import Sequence

import jax
import numpy as np

from synthrl_jax.credit.example import Example
from synthrl_jax.policy import sharding

ROUND = 16  # lengths are padded to multiples of this, so that data sets of like length share compiled programs


class Batches:
    """Rows for learning, padded to one length.

    A unit is what a batch counts: a row, or both rows of a preference pair (chosen first). `at(step)` gives the arrays of
    a step, [M, rows, ...] for M micro-batches: tokens, mask, weight, ref_logprobs where they are known, pair_weight for
    pairs and every further array of the examples (int arrays padded by -1, others by 0). Each epoch is a new permutation;
    a batch may hold the end of one epoch and the beginning of the next.
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
        self.length = length or -(-longest // ROUND) * ROUND
        if longest > self.length:
            raise ValueError(f"a row of {longest} tokens is longer than the batch's {self.length}")
        self.arrays = to_arrays(rows, self.length, pad_id)

    def check_mesh(self, mesh: jax.sharding.Mesh | None) -> None:
        """ValueError where a micro-batch does not divide over the mesh's batch axes."""
        if mesh is not None:
            ways = int(np.prod([mesh.shape[axis] for axis in sharding.RULES["batch"]]))
            if self.micro * self.unit_rows % ways:
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
        return np.random.default_rng([self.seed, epoch]).permutation(self.units)

    def at(self, step: int) -> dict[str, np.ndarray]:
        return self._take(self.units_at(step), self.micro)

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
    """Units of a data set: (row,) each, or (chosen, rejected). ValueError where rows and pairs mix or a side is missing."""
    if all(example.pair is None for example in examples):
        return [(example,) for example in examples]
    sides: dict[str, dict[str, Example]] = {}
    for example in examples:
        if example.pair is None:
            raise ValueError("a data set holds either preference pairs or single rows, not both")
        sides.setdefault(example.pair.id, {})[example.pair.role] = example
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
        longest = max(len(value) for value in values)
        width = length if all(len(v) == len(r.tokens) for v, r in zip(values, rows)) else longest
        arrays[name] = _pad(values, width, -1 if whole else 0, np.int32 if whole else np.float32)
    if rows[0].pair is not None:
        arrays["pair_weight"] = np.array([row.meta.get("pair_weight", 1.0) for row in rows[::2]], np.float32)
    return arrays


def _pad(values, length: int, fill, dtype) -> np.ndarray:
    out = np.full((len(values), length), fill, dtype)
    for row, value in zip(out, values):
        row[: len(value)] = value
    return out
