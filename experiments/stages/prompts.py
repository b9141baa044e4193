"""How a problem becomes tokens: the prompt, and the teacher's row."""

import numpy as np

from synthrl_jax.credit.example import Example, completion_mask
from synthrl_jax.policy.templates import prompt_ids
from synthrl_jax.policy.tokenizer import Tokenizer
from synthrl_jax.problems.problem import Problem


def prompt_tokens(problem: Problem, tokenizer: Tokenizer, template: str) -> list[int]:
    """Tokens of the prompt by a template of `policy.templates`: a word or the text around `{question}`."""
    return prompt_ids(tokenizer, template, problem.question)


def teacher_row(problem: Problem, tokenizer: Tokenizer, template: str) -> Example:
    """The row for fine-tuning on the teacher's solution, end of sequence included; only the solution counts."""
    prompt = prompt_tokens(problem, tokenizer, template)
    tokens = np.array([*prompt, *tokenizer.encode(problem.solution), tokenizer.eos_id], np.int32)
    return Example(tokens, completion_mask(len(tokens), len(prompt)), meta={"problem_id": problem.id})
