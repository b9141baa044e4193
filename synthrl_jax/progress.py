"""One progress line for long work: done, rate, time left; silent where nobody watches."""

import os
import sys

from tqdm import tqdm


class Progress(tqdm):
    """tqdm that writes a line every half minute where the output is no terminal; SYNTHRL_QUIET=1 silences it."""

    def __init__(self, label: str, total: int, *, unit: str = "items", start: int = 0):
        terminal = sys.stderr.isatty()
        super().__init__(
            desc=label,
            total=total,
            initial=start,
            unit=f" {unit}",
            mininterval=0.2 if terminal else 30.0,
            maxinterval=0.2 if terminal else 30.0,
            miniters=1,
            leave=False,
            ncols=None if terminal else 100,
            delay=1.0 if terminal else 20.0,
            disable=os.environ.get("SYNTHRL_QUIET") == "1",
        )

    def to(self, done: int) -> None:
        """`done` of the total are finished."""
        self.update(done - self.n)

    def note(self, **values: float) -> None:
        """Numbers shown at the end of the line from now on."""
        self.set_postfix(values, refresh=False)
