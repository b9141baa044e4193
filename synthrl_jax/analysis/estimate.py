"""A number with its interval."""

from typing import NamedTuple


class Estimate(NamedTuple):
    """A value and the ends of its interval."""

    value: float
    lo: float
    hi: float

    def percent(self) -> str:
        """`34.2 [31.3, 37.1]`, the numbers times 100."""
        return f"{100 * self.value:.1f} [{100 * self.lo:.1f}, {100 * self.hi:.1f}]"
