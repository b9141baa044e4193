"""Make synthetic problems with solutions from seed problems, with a capable model behind an OpenAI-compatible endpoint.

    export OPENAI_API_KEY=...                         # any word for a server that asks for none; it is never written anywhere
    python -m experiments.synthesize --seeds=gsm8k --seeds_path=DIR --count=8000 --out=synthetic/gsm8k \\
        --model=MODEL --base_url=https://HOST/v1 --price_in=2.5 --price_out=10 --budget_money=300
    python -m experiments.synthesize --seeds=gsm8k --seeds_path=DIR --count=100 --out=synthetic/own --local=CHECKPOINT

Each candidate: write a problem like its seed, check it by solving it, rewrite it until the check passes; then several solutions,
and the problem is kept where enough of their answers agree. What is kept lies in OUT/problems.jsonl, for `problems.source =
"synthetic"`; what is not in OUT/rejected.jsonl, with the reason. Give the same command again after a stop or a kill: no answer
that came is paid for twice. A larger --count or budget goes on from there.
"""

import argparse
import asyncio
import collections
import concurrent.futures
import dataclasses
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.cells import Lock, write_atomic
from experiments.settings import UsageError
from synthrl_jax.problems import decontaminate, teacher
from synthrl_jax.problems.endpoint import Endpoint, EndpointError, EndpointSettings, GaveUp
from synthrl_jax.problems.ledger import Budget, BudgetSpent, Ledger
from synthrl_jax.problems.local_teacher import LocalTeacher
from synthrl_jax.problems.problem import Problem, load
from synthrl_jax.problems.teacher import Agreement, Made, Recipe
from synthrl_jax.progress import Progress

KINDS = {"gsm8k": "gsm8k_hash", "hendrycks_math": "boxed_last_normalised"}
PROMPTS = {"gsm8k": "gsm8k", "hendrycks_math": "math"}
PATIENCE = 8  # candidates that fail one after the other before the endpoint is thought to be down
# what may change between sessions without another result of what is done
FREE = ("concurrency", "timeout", "retries", "backoff", "base_url")


class Grader:
    """Agreement of solutions by our grader: in killable workers, in one thread of its own."""

    def __init__(self, kind: str):
        from synthrl_jax.grading import Pool

        self.kind, self._pool = kind, Pool(workers=1)
        self._thread = concurrent.futures.ThreadPoolExecutor(1)

    async def judge(self, texts: Sequence[str]) -> Agreement:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.agreement, list(texts))

    def agreement(self, texts: list[str]) -> Agreement:
        """The largest group of solutions whose answers equal that of its first; of equal ones the earliest."""
        from synthrl_jax.grading import extract, grade_many
        from synthrl_jax.grading.verdict import joint

        answers = [extract(text, self.kind) for text in texts]
        answers = [None if answer is None else joint(answer) for answer in answers]
        pairs = [
            (i, j) for j in range(len(texts)) for i in range(j) if answers[i] is not None and answers[j] is not None
        ]
        rows = [(texts[j], answers[i], self.kind) for i, j in pairs]
        verdicts = grade_many(rows, pool=self._pool, progress=False)
        same = {pair for pair, verdict in zip(pairs, verdicts) if verdict.outcome == "correct"}
        errors = sum(verdict.outcome == "grader_error" for verdict in verdicts)
        groups: list[list[int]] = []
        for j, answer in enumerate(answers):
            if answer is None:
                continue
            home = next((group for group in groups if (group[0], j) in same), None)
            if home is None:
                groups.append([j])
            else:
                home.append(j)
        best = max(groups, key=len, default=[])
        return Agreement(answers[best[0]] if best else None, tuple(best), sum(a is not None for a in answers), errors)

    def close(self) -> None:
        self._thread.submit(self._pool.close).result()
        self._thread.shutdown()


class Shard:
    """Candidates [first, last): a ledger while they are made, one file with their results once all are."""

    def __init__(self, out: Path, number: int, names: list[str], budget: Budget):
        self.names, self.budget = names, budget
        self.path, self.calls = out / "shards" / f"{number:05d}.jsonl", out / "shards" / f"{number:05d}.calls.jsonl"
        self.results: dict[str, Made] = {}
        self.ledger: Ledger | None = None
        head, *rows = map(json.loads, self.path.read_text().splitlines()) if self.path.exists() else (None,)
        if rows and {row["name"] for row in rows} >= set(names):
            budget.restore(head["totals"])
            for row in (row for row in rows if row["name"] in names):
                problem = row.pop("problem")
                self.results[row["name"]] = Made(**row, problem=None if problem is None else Problem(**problem))
        elif self.calls.exists():  # unfinished, or of a run with a smaller --count: what was paid is in the ledger
            self.open()

    def open(self) -> Ledger:
        if self.ledger is None:
            self.calls.parent.mkdir(parents=True, exist_ok=True)
            self.ledger = Ledger(self.calls, self.budget)
        return self.ledger

    def add(self, made: Made) -> None:
        """A candidate's result; the last one closes the shard."""
        self.results[made.name] = made
        if len(self.results) == len(self.names):
            rows = [{"totals": self.open().totals()}, *(dataclasses.asdict(self.results[name]) for name in self.names)]
            write_atomic(self.path, "".join(json.dumps(row) + "\n" for row in rows))
            self.open().close()


async def synthesize(
    seeds: list[Problem], args, recipe: Recipe, prompts: dict[str, str], maker, budget: Budget, grader: Grader
):
    """(results in order, why it ended early or "", whether any failed), so many candidates at a time as requests may be."""
    out = Path(args.out)
    names = [f"{args.seeds}-syn-{i:06d}" for i in range(args.count)]
    shards = [Shard(out, k, names[a : a + args.shard], budget) for k, a in enumerate(range(0, args.count, args.shard))]
    results = {name: made for shard in shards for name, made in shard.results.items()}
    todo = collections.deque((i, shards[i // args.shard]) for i, name in enumerate(names) if name not in results)
    bar = Progress("synthesize", args.count, unit="candidates", start=len(results))
    ended: list[str] = []
    fatal: list[EndpointError] = []
    failed: list[str] = []
    in_a_row = 0

    async def work():
        nonlocal in_a_row
        while todo and not ended:
            i, shard = todo.popleft()
            ledger = shard.open()

            async def ask(name: str, prompt: str, ledger=ledger) -> str:
                if ended and name not in ledger.answers:
                    raise BudgetSpent(ended[0])
                return await maker.ask(ledger, name, prompt)

            try:
                made = await teacher.make(names[i], seeds[i % len(seeds)], ask, grader.judge, prompts, recipe)
            except BudgetSpent as error:
                ended.append(f"stopped by the budget: {error}")
                continue
            except GaveUp as error:
                failed.append(str(error))
                in_a_row += 1
                if in_a_row >= PATIENCE:
                    ended.append(f"{in_a_row} candidates in a row failed at the endpoint, the last: {error}")
                continue
            except EndpointError as error:
                ended.append(str(error))
                fatal.append(error)
                continue
            in_a_row = 0
            results[names[i]] = made
            shard.add(made)
            bar.update()
            bar.note(kept=sum(m.problem is not None for m in results.values()), money=round(budget.money("paid"), 2))

    width = min(max(1, len(todo)), args.shard if args.local else args.concurrency)
    tasks = [asyncio.create_task(work()) for _ in range(width)]
    try:
        await asyncio.gather(*tasks)  # what was asked for is waited for also when the run ends early: it is paid
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        bar.close()
        await maker.close()
    if fatal:
        raise fatal[0]
    if failed and not ended:
        ended.append(
            f"{len(failed)} candidates failed at the endpoint, the last: {failed[-1]}; run again to try them again"
        )
    return [results[name] for name in names if name in results], ended[0] if ended else "", bool(failed)


def local_maker(args) -> LocalTeacher:
    """One of our own policies as the teacher, through the grouped sampler."""
    from synthrl_jax import policy as policies
    from synthrl_jax import rollouts
    from synthrl_jax.policy import checkpoint, sharding
    from synthrl_jax.policy.templates import prompt_ids, template

    template(args.template)
    policy = policies.load_pretrained(args.local, sharding.sampling_mesh(checkpoint.read_config(args.local)))
    if policy.tokenizer is None:
        raise UsageError(f"--local={args.local}: it holds no tokenizer")
    tokenizer = policy.tokenizer
    settings = rollouts.Settings(
        max_tokens=args.max_tokens, temperature=args.temperature, sampler="grouped", rows=args.rows,
        stop_ids=(tokenizer.eos_id,),
    )  # fmt: skip

    def generate(names, prompts):
        roots = []
        for name, prompt in zip(names, prompts):
            ids = prompt_ids(tokenizer, args.template, prompt)
            if len(ids) >= policy.config.max_positions:
                ids = ids[-policy.config.max_positions // 2 :]
            roots.append(rollouts.Root(id=name, tokens=ids, forks=(len(ids),)))
        found = {c.root_id: c for c in rollouts.sample(policy, roots, settings, args.seed)}
        return [(tokenizer.decode(found[r.id].tokens), len(r.tokens), len(found[r.id].tokens)) for r in roots]

    return LocalTeacher(generate)


def begin(out: Path, fields: dict) -> None:
    """Note what the run was begun with, or compare: UsageError names a field that would make another result."""
    path = out / "manifest.json"
    if not path.exists():
        out.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(fields, indent=1) + "\n")
        return
    before = json.loads(path.read_text())
    for name in sorted(set(before) | set(fields)):
        if before.get(name) != fields.get(name):
            raise UsageError(
                f"{out} was begun with {name} = {before.get(name)!r}, not {fields.get(name)!r}: use another --out, "
                "or the same settings"
            )


def finish(results: list[Made], held_out: list[Problem], args, budget: Budget, ended: str) -> dict:
    """Drop leaks and near-duplicates, write problems.jsonl, rejected.jsonl and report.json; the report's row."""
    out = Path(args.out)
    reasons = collections.Counter(made.reason for made in results if made.problem is None)
    rejected = [
        {"id": m.name, "seed": m.seed, "reason": m.reason, "detail": m.detail} for m in results if m.problem is None
    ]
    problems = [made.problem for made in results if made.problem is not None]
    made_count = len(problems)
    seeds = {made.name: made.seed for made in results}
    for reason, drop in (
        ("leak", lambda ps: decontaminate.drop_leaks(ps, held_out, args.ngram) if args.ngram else (ps, [])),
        ("duplicate", lambda ps: decontaminate.drop_duplicates(ps, args.similarity) if args.similarity else (ps, [])),
    ):
        problems, leaks = drop(problems)
        reasons[reason] += len(leaks)
        for leak in leaks:
            detail = f"{leak.because_of}: {leak.ngram or leak.similarity}"
            rejected.append({"id": leak.dropped, "seed": seeds[leak.dropped], "reason": reason, "detail": detail})
    for name, rows in (("problems", [p.to_json() for p in problems]), ("rejected", rejected)):
        write_atomic(out / f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    row = {
        "candidates": args.count, "finished": len(results), "solved": made_count, "kept": len(problems),
        "yield": round(len(problems) / max(1, len(results)), 4), "ended": ended, **budget.totals(),
        **{f"rejected: {reason}": n for reason, n in sorted(reasons.items()) if n},
        "model": args.local or args.model, "seeds": args.seeds, "agree": args.agree, "of": args.solutions, "out": args.out,
    }  # fmt: skip
    write_atomic(out / "report.json", json.dumps(row, indent=1) + "\n")
    return row


def parser_of() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--seeds", default="gsm8k", help="the source of the seed problems: its train split; gsm8k or hendrycks_math")
    add("--seeds_path", default="", help="where that source's files are")
    add(
        "--seeds_count",
        type=int,
        help="how many seed problems (default: all); each serves again when all had their turn",
    )
    add("--count", type=int, required=True, help="candidates: about twice the problems that are wanted")
    add("--out", required=True, help="a directory; give the same one to go on")
    add("--model", default="", help="the model's name at the endpoint")
    add("--base_url", help="the endpoint (default: $OPENAI_BASE_URL, or OpenAI's own)")
    add("--key_env", default="OPENAI_API_KEY", help="the environment variable that holds the key")
    add("--local", help="instead of an endpoint: one of our policies, a directory or a shipped name")
    add(
        "--template",
        default="plain",
        help="for --local: the template around each prompt, a word or a text with {question}",
    )
    add("--rows", type=int, default=128, help="for --local: the device batch")
    add("--seed", type=int, default=0, help="of the choice of seed problems, and of --local's samples")
    add("--prompts", help="gsm8k, math, or a folder with write.txt, check.txt, rewrite.txt, solve.txt")
    add("--grading", help="how answers are found, see grading.extract (default: by --seeds)")
    add("--solutions", type=int, default=3)
    add("--agree", type=int, default=2, help="how many solutions must have the same answer")
    add("--rewrites", type=int, default=2, help="how often a problem that fails its check is rewritten")
    add("--temperature", type=float, default=0.7, help="below 0: not sent, for endpoints that know none")
    add("--max_tokens", type=int, default=1024, help="of one answer")
    add("--token_field", default="max_tokens", help="what the endpoint calls it, e.g. max_completion_tokens")
    add("--concurrency", type=int, default=16, help="requests at a time")
    add("--timeout", type=float, default=180.0, help="seconds for one request")
    add("--retries", type=int, default=6, help="further attempts at a request that failed")
    add("--backoff", type=float, default=1.0, help="seconds before the first of them; doubled each time")
    add("--budget_tokens", type=int, help="most tokens, in and out, over all sessions")
    add("--budget_money", type=float, help="most money over all sessions, by the prices below")
    add("--price_in", type=float, default=0.0, help="money per million tokens in")
    add("--price_out", type=float, default=0.0, help="money per million tokens out")
    add("--shard", type=int, default=100, help="candidates in a file of results")
    add(
        "--ngram",
        type=int,
        default=decontaminate.NGRAM,
        help="words shared with an evaluation problem that drop one; 0: none",
    )
    add("--similarity", type=float, default=0.7, help="of near-duplicates, of which one stays; 0: all stay")
    add("--json", help="write the report's row to this file")
    return parser


def check(args) -> None:
    """UsageError for what would only fail later."""
    if args.seeds not in KINDS and not (args.prompts and args.grading):
        raise UsageError(
            f"--seeds={args.seeds}: give --prompts and --grading for a source other than {', '.join(KINDS)}"
        )
    if bool(args.local) == bool(args.model):
        raise UsageError("give either --model (and --base_url) or --local")
    for name in ("count", "concurrency", "shard", "max_tokens", "timeout", "rows"):
        if getattr(args, name) <= 0:
            raise UsageError(f"--{name}={getattr(args, name)}: must be positive")
    if args.model and not os.environ.get(args.key_env):
        raise UsageError(f"${args.key_env} is not set: export the endpoint's key (any word where it asks for none)")


def main(argv: list[str] | None = None) -> int:
    args = parser_of().parse_args(argv)
    try:
        check(args)
        recipe = Recipe(rewrites=args.rewrites, solutions=args.solutions, agree=args.agree)
        prompts = teacher.load_prompts(args.prompts or PROMPTS[args.seeds])
        kind = args.grading or KINDS[args.seeds]
        budget = Budget(args.budget_tokens, args.budget_money, args.price_in, args.price_out)
        where = {"path": args.seeds_path} if args.seeds_path else {}
        seeds = load(args.seeds, "train", count=args.seeds_count, seed=args.seed, **where)
        held_out = [p for part in ("validation", "test") for p in load(args.seeds, part, **where)] if args.ngram else []
        endpoint = EndpointSettings(
            args.model, args.base_url, None if args.temperature < 0 else args.temperature, args.max_tokens, args.token_field,
            args.concurrency, args.timeout, args.retries, args.backoff,
        )  # fmt: skip
        lock = Lock(args.out)
        text = json.dumps([prompts, [p.question for p in seeds]])
        fields = {k: v for k, v in dataclasses.asdict(endpoint).items() if k not in FREE} | dataclasses.asdict(recipe)
        fields |= {
            "local": args.local,
            "template": args.template if args.local else "",
            "grading": kind,
            "shard": args.shard,
        }
        fields |= {"seed": args.seed, "prompts_and_seeds": hashlib.sha256(text.encode()).hexdigest()[:12]}
        begin(Path(args.out), json.loads(json.dumps(fields)))
        grader = Grader(kind)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2

    async def work():
        maker = local_maker(args) if args.local else Endpoint(endpoint, os.environ[args.key_env])
        return await synthesize(seeds, args, recipe, prompts, maker, budget, grader)

    try:
        results, ended, failed = asyncio.run(work())
    except KeyboardInterrupt:
        print("\nstopped; give the same command again to go on from here", file=sys.stderr)
        return 130
    except (EndpointError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        grader.close()
    row = finish(results, held_out, args, budget, ended)
    for name, value in row.items():
        print(f"{name:>28}  {value:,}" if isinstance(value, int) else f"{name:>28}  {value}")
    if args.json:
        Path(args.json).write_text(json.dumps([row], indent=1) + "\n")
    del lock
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
