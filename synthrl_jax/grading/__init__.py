"""Final answers: find them in a text, decide whether two are the same, grade millions of them safely."""

from synthrl_jax.grading.equivalence import equivalent
from synthrl_jax.grading.extract import KINDS, extract
from synthrl_jax.grading.pool import Pool, grade_many
from synthrl_jax.grading.verdict import OUTCOMES, Verdict, grade

__all__ = ["KINDS", "OUTCOMES", "Pool", "Verdict", "equivalent", "extract", "grade", "grade_many"]
