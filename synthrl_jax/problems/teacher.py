"""A capable model as a teacher: prompts, and the recipe by which it makes a new problem with a solution that can be trusted.

The recipe is Xwin-Math's (2403.04706), which the paper's resembles: write a problem like a given one, check it by solving it,
rewrite it until the check passes. Then several solutions, and the problem is kept where enough of their answers agree; how the
paper verified answers is not known, 2 of 3 is this project's stand-in.
"""

import asyncio
import dataclasses
import re
from collections.abc import Awaitable, Callable, Sequence

from etils import epath

from synthrl_jax.problems.problem import Problem

STAGES = ("write", "check", "rewrite", "solve")
FOLDER = epath.Path(__file__).parent / "prompts"
PLACE = re.compile(r"\{(question|problem|reason)\}")
PROBLEM = re.compile(r"<problem>(.*?)</problem>", re.DOTALL | re.IGNORECASE)
VERDICT = re.compile(r"^[\s*#>]*verdict[\s*]*:[\s*]*(good|bad)\b[\s:*.-]*(.*)$", re.IGNORECASE | re.MULTILINE)
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")

Ask = Callable[[str, str], Awaitable[str]]  # (name of the request, prompt) -> the teacher's text


class Refused(Exception):
    """The teacher will not answer this request, however often it is asked; the message is the reason."""


@dataclasses.dataclass(frozen=True)
class Agreement:
    """What a judge finds in several solutions: the answer that most of them agree on, and which ones do."""

    answer: str | None
    members: tuple[int, ...]
    found: int  # solutions with any answer
    errors: int = 0  # comparisons without a verdict


Judge = Callable[[Sequence[str]], Awaitable[Agreement]]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How often to rewrite, how many solutions to ask for, how many must agree, and what is too long to learn from."""

    rewrites: int = 2
    solutions: int = 3
    agree: int = 2
    max_characters: int = 6000

    def __post_init__(self):
        if not 1 <= self.agree <= self.solutions or self.rewrites < 0:
            raise ValueError(f"agree must be in 1..solutions={self.solutions} and rewrites not negative: {self}")


@dataclasses.dataclass(frozen=True)
class Made:
    """What became of one candidate: a problem, or the reason why there is none."""

    name: str
    seed: str
    problem: Problem | None = None
    reason: str = ""
    detail: str = ""


def load_prompts(folder: str) -> dict[str, str]:
    """The four prompts of a folder of files write, check, rewrite, solve (.txt): `gsm8k` or `math`, or one of your own.

    FileNotFoundError names what lacks; ValueError a prompt that does not hold the place it needs.
    """
    root = FOLDER / folder if (FOLDER / folder).is_dir() else epath.Path(folder)
    prompts = {}
    for stage in STAGES:
        path = root / f"{stage}.txt"
        if not path.exists():
            shipped = ", ".join(sorted(p.name for p in FOLDER.iterdir() if p.is_dir()))
            raise FileNotFoundError(
                f"{path}: no such file; give one of {shipped}, or a folder with {', '.join(STAGES)} (.txt)"
            )
        prompts[stage] = path.read_text().strip()
        place = "{question}" if stage == "write" else "{problem}"
        if place not in prompts[stage]:
            raise ValueError(f"{path}: the prompt does not hold {place}")
    return prompts


def fill(prompt: str, **texts: str) -> str:
    """The prompt with its places filled, once: a text that holds such a place itself stays as it is."""
    return PLACE.sub(lambda match: texts.get(match.group(1), match.group(0)), prompt)


def clean(text: str) -> str:
    """Line ends made one, outer white space gone."""
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def problem_in(text: str, limit: int) -> tuple[str | None, str]:
    """(the last <problem>...</problem> of an answer, why there is none)."""
    found = [clean(match) for match in PROBLEM.findall(text)]
    if not found or not found[-1]:
        return None, "no problem in the answer"
    if len(found[-1]) > limit:
        return None, "too long"
    return (None, "control characters") if CONTROL.search(found[-1]) else (found[-1], "")


def verdict_in(text: str) -> tuple[bool, str]:
    """(whether a check passed, the fault); an answer without a verdict is a fault of its own."""
    found = VERDICT.findall(text)
    if not found:
        return False, "a check by solving it came to no verdict."
    word, fault = found[-1]
    return word.lower() == "good", clean(fault)[:500] or "it is not clear or has no definite answer."


def solution_in(text: str) -> str:
    """A solution as it is learnt from: nothing behind the line with the answer, where it is marked by ####."""
    text = clean(text)
    mark = text.rfind("####")
    if mark >= 0:
        text = text[:mark] + text[mark:].split("\n", 1)[0].rstrip()
    return text


async def make(name: str, seed: Problem, ask: Ask, judge: Judge, prompts: dict[str, str], recipe: Recipe) -> Made:
    """One new problem after `seed`, or the reason why not. What `ask` raises goes through, but for Refused."""
    try:
        return await _make(name, seed, ask, judge, prompts, recipe)
    except Refused as error:
        return Made(name, seed.id, reason="refused", detail=str(error))


async def _make(name, seed, ask, judge, prompts, recipe) -> Made:
    def rejected(reason: str, detail: str = "") -> Made:
        return Made(name, seed.id, reason=reason, detail=detail[:500])

    text = await ask(f"{name}/write", fill(prompts["write"], question=seed.question))
    question, fault = problem_in(text, recipe.max_characters)
    if question is None:
        return rejected(fault)
    rewrites = 0
    while True:
        good, fault = verdict_in(await ask(f"{name}/check/{rewrites}", fill(prompts["check"], problem=question)))
        if good:
            break
        if rewrites == recipe.rewrites:
            return rejected("check failed", fault)
        text = await ask(f"{name}/rewrite/{rewrites}", fill(prompts["rewrite"], problem=question, reason=fault))
        rewrites += 1
        question, fault = problem_in(text, recipe.max_characters)
        if question is None:
            return rejected(fault)
    if " ".join(question.lower().split()) == " ".join(seed.question.lower().split()):
        return rejected("a copy of its seed")
    prompt = fill(prompts["solve"], problem=question)
    asked = (ask(f"{name}/solve/{i}", prompt) for i in range(recipe.solutions))
    texts = await asyncio.gather(*asked, return_exceptions=True)  # all of them: what is under way is paid
    for text in texts:
        if isinstance(text, BaseException):
            raise text
    solutions = [solution_in(text) for text in texts]
    usable = [s for s in solutions if s and len(s) <= recipe.max_characters and not CONTROL.search(s)]
    found = await judge(usable)
    if not found.found:
        return rejected("no answer in any solution")
    if len(found.members) < recipe.agree:
        reason = "grader error" if found.errors else "answers do not agree"
        return rejected(reason, f"{len(found.members)} of {recipe.solutions} agree, {found.found} have an answer")
    agreeing = [usable[i] for i in found.members]
    meta = {
        "seed": seed.id,
        "agree": len(agreeing),
        "of": recipe.solutions,
        "rewrites": rewrites,
        "solutions": agreeing[1:],
    }
    return Made(name, seed.id, Problem(name, question, found.answer, agreeing[0], meta))
