"""What a text may ask of the grader; every limit is checked before the work that it bounds."""

import time

LENGTH = 4_000  # characters of an answer, after extraction
DEPTH = 40  # nested groups; each costs the parser about ten frames
NODES = 4_000  # nodes of a parsed answer
ITEMS = 400  # members of a list, set or tuple, cells of a matrix
DIGITS = 1_000  # digits of one number literal
BITS = 20_000  # size of a number that is held exactly
EXPONENT = 10**4  # decimal exponent of a literal
FACTORIAL = 10_000  # largest argument of a factorial or a binomial
MAGNITUDE = 10**9  # |exponent * log(base)| of a power, |x| of a trigonometric function
TERMS = 2_000  # terms of a finite sum or product
STEPS = 60_000  # operations of one comparison
SECONDS = 3.0  # of one comparison, looked at between operations


class BeyondLimits(Exception):
    """The text asks for more than the grader is ready to spend: no verdict."""


class Budget:
    """Counts the operations of one comparison and ends it when they are spent."""

    def __init__(self, steps: int = STEPS, seconds: float = SECONDS):
        self.steps = steps
        self.deadline = time.monotonic() + seconds

    def spend(self, steps: int = 1) -> None:
        self.steps -= steps
        if self.steps < 0:
            raise BeyondLimits("too many operations")
        if self.steps % 16 == 0 and time.monotonic() > self.deadline:
            raise BeyondLimits("too slow")
