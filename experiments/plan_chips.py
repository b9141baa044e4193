"""TPU chips by their data sheets, and slices of them."""

import dataclasses
import math
import re

from experiments.settings import UsageError

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip: dense bfloat16 FLOP/s, memory (bytes, those that the compiler gives to programs, bytes/s), interconnect bytes/s
    over all its links, one way; chips of a host."""

    name: str
    flops: float
    memory: float
    usable: float
    bandwidth: float
    interconnect: float
    host_chips: int
    dims: int  # of the torus


# cloud.google.com/tpu/docs: v4, v5e, v5p, v6e (system architecture tables; links are given in Gbit/s, both ways together).
# Usable is what the compiler (libtpu 0.0.42) says is there when a program asks for more; of v4 twice that of one of its cores.
CHIPS = {
    "v4": Chip("v4", 275e12, 32 * GIB, 30.5 * GIB, 1228e9, 150e9, 4, 3),
    "v5e": Chip("v5e", 197e12, 16 * GIB, 15.75 * GIB, 819e9, 100e9, 4, 2),
    "v5p": Chip("v5p", 459e12, 95 * GIB, 95.74 * GIB, 2765e9, 300e9, 4, 3),
    "v6e": Chip("v6e", 918e12, 32 * GIB, 31.25 * GIB, 1640e9, 224e9, 4, 2),
}
DATA_CENTRE = 25e9 / 4  # bytes/s a chip between slices: 200 Gbit/s a host of four


@dataclasses.dataclass(frozen=True)
class Slice:
    """`v5e:8x8`: chips of one kind in a torus; several slices are joined by the data-centre network."""

    chip: Chip
    shape: tuple[int, ...]
    slices: int = 1

    @property
    def name(self) -> str:
        """As the compiler takes it."""
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"

    @property
    def chips(self) -> int:
        return math.prod(self.shape) * self.slices

    @property
    def host(self) -> int:
        """Chips of one host: four, or all of a small v5e or v6e slice, which come in one machine."""
        inside = math.prod(self.shape)
        return inside if self.chip.dims == 2 and inside <= 8 else min(self.chip.host_chips, inside)

    @property
    def usable(self) -> float:
        """Bytes of a chip's memory that a program can have."""
        return self.chip.usable


def parse(text: str, slices: int = 1) -> Slice:
    """The slice that `v5e:8x8` names; UsageError where there is no such chip or form."""
    found = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", text)
    if not found or found[1] not in CHIPS:
        raise UsageError(f"--topology={text}: CHIP:AxB or CHIP:AxBxC with CHIP one of {', '.join(CHIPS)}")
    chip, shape = CHIPS[found[1]], tuple(map(int, found[2].split("x")))
    if len(shape) != chip.dims or min(shape) < 1 or slices < 1:
        example = "x".join("4" * chip.dims)
        raise UsageError(
            f"--topology={text}: slices of {chip.name} have {chip.dims} dimensions, e.g. {chip.name}:{example}"
        )
    return Slice(chip, shape, slices)


def smallest(chip: Chip, chips: int) -> str:
    """The smallest slice of one host (or two) that has so many chips, as the compiler takes it."""
    inside = "2x2" if chips <= 4 else "2x4"
    if chip.dims == 3:
        inside = "2x2x1" if chips <= 4 else "2x2x2"
    return f"{chip.name}:{inside}"
