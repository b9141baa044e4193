"""Writes the cells of a run that never ran: small, of the right form, every number known."""

import json
import random
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from experiments import artifacts
from experiments.cells import Cell
from experiments.graph import plan
from synthrl_jax.analysis.evaluate import bootstrap_interval, pass_at_k
from synthrl_jax.credit.assignment import assign
from synthrl_jax.credit.example import Response, StepValues
from synthrl_jax.policy.tokenizer import train_sentencepiece
from synthrl_jax.problems.oracle import KINDS, Oracle, first_wrong_step, losing_step
from synthrl_jax.problems.problem import Problem, load

ROLLOUTS, K = 8, 5


def write_run(workdir: Path, config: ConfigDict, train: list[Problem], docstring: str = "Made up.") -> dict[str, Cell]:
    """Cells for every label of the config's plan, and run.json; `train` are the training problems of every size."""
    texts = [text for p in train for text in (p.question, p.solution)]
    tokenizer = train_sentencepiece(texts, 320)
    writer = _Writer(config.to_dict(), train, tokenizer)
    cells = {}
    for place, node in enumerate(plan(config)):
        path = workdir / "cells" / f"{place:03d}"
        path.mkdir(parents=True)
        getattr(writer, node.stage)(path, node)
        manifest = {
            "label": node.label,
            "key": f"k{place}",
            "stage": node.stage,
            "seed": node.seed,
            "fingerprint": f"f{place}",
        }
        manifest |= {"seconds": 10.0 + place, "date": f"2025-01-02T03:{place % 60:02d}:00+00:00", "commit": "abc1234"}
        (path / "manifest.json").write_text(json.dumps(manifest))
        cells[node.label] = Cell(node.label, path, f"k{place}", f"f{place}")
    run = {"name": config.name, "config": config.to_dict(), "config_hash": "0123456789ab", "docstring": docstring}
    run["cells"] = {label: str(cell.path.relative_to(workdir)) for label, cell in cells.items()}
    (workdir / "run.json").write_text(json.dumps(run))
    return cells


def skill(node_label: str, methods: list[str]) -> float:
    """The made-up probability of a right answer: more for later methods and larger sizes."""
    name = node_label.removeprefix("evaluate ").split(" N=")[0]
    size = int(node_label.partition(" N=")[2].split(" ")[0] or 0)
    rank = ["base", "sft", *methods].index(name)
    error = 0.9 if not size else 2.1 * size**-0.15 * 0.97 ** (rank - 1)
    return 1 - error


class _Writer:
    """One method for each stage."""

    def __init__(self, config: dict, train: list[Problem], tokenizer):
        self.config, self.train_problems, self.tokenizer = config, train, tokenizer
        self.oracle = all("graph" in p.meta for p in train)

    def data(self, path, node):
        if node.settings["split"] == "train":
            artifacts.write_jsonl(path / "problems.jsonl", (p.to_json() for p in self.train_problems))

    def base(self, path, node):
        pass

    def sft(self, path, node):
        (path / "policy").mkdir()
        self.tokenizer.save(str(path / "policy"))
        self.train(path, node)

    def train(self, path, node):
        updates = 500 if node.stage == "sft" else 150
        rng = random.Random(node.label)
        looks = [(updates * (i + 1) // 4, round(0.25 + 0.03 * i + rng.random() / 20, 4)) for i in range(4)]
        artifacts.write_jsonl(path / "looks.jsonl", [{"update": u, "validation_accuracy": score} for u, score in looks])
        best = max(looks, key=lambda look: look[1])
        summary = {
            "rows": 700,
            "updates": updates,
            "best_update": best[0],
            "validation_accuracy": best[1],
            "tokens": 90_000,
        }
        artifacts.write_jsonl(path / "summary.jsonl", [summary])
        artifacts.write_jsonl(path / "metrics.jsonl", [{"step": 20, "loss": 0.7}])

    def choose(self, path, node):
        rows = [{"point": p, "validation_accuracy": 0.2 + 0.01 * i} for i, p in enumerate(node.settings["points"])]
        artifacts.write_jsonl(path / "grid.jsonl", rows)
        artifacts.write_jsonl(path / "choice.jsonl", rows[-1:])

    def evaluate(self, path, node):
        rng, p = random.Random(node.label), skill(node.label, list(self.config["methods"]))
        hardness = random.Random(0)
        rows = []
        for i in range(self.config["test_problems"]):
            luck = 0.6 * hardness.random() + 0.4 * rng.random()  # methods share which problems are hard
            right = luck < p
            row = {"id": f"test-{i}", "outcome": "correct" if right else rng.choice(["wrong"] * 9 + ["no_answer"])}
            row |= {"samples": 10, "correct": sum(rng.random() < p for _ in range(10))}
            if self.oracle:
                wrong = int(rng.random() < 0.1) if right else rng.randint(1, 3)
                kinds = {
                    "needed": 4,
                    "needless": rng.randint(0, 1),
                    "leap": rng.randint(0, 1),
                    rng.choice(KINDS[3:]): wrong,
                }
                row["greedy"] = {kind: count for kind, count in kinds.items() if count}
            rows.append(row)
        artifacts.write_jsonl(path / "problems.jsonl", rows)
        right = np.array([row["outcome"] == "correct" for row in rows], float)
        passed = pass_at_k(np.array([row["correct"] for row in rows]), np.full(len(rows), 10), K)
        row = {"problems": len(rows), "accuracy": right.mean(), "pass_at_k": passed.mean(), "k": K}
        for name, values in (("accuracy", right), ("pass_at_k", passed)):
            row[f"{name}_lo"], row[f"{name}_hi"] = bootstrap_interval(values)
        row |= {name: sum(r["outcome"] == name for r in rows) for name in ("no_answer", "grader_error")}
        row["sampled_accuracy"] = sum(r["correct"] for r in rows) / (10 * len(rows))
        artifacts.write_jsonl(
            path / "row.jsonl", [{k: float(v) if isinstance(v, np.floating) else v for k, v in row.items()}]
        )

    def sample(self, path, node):
        pass

    def grade(self, path, node):
        summary = {"correct": 430, "wrong": 540, "no_answer": 29, "grader_error": 1, "samples": 1000, "tokens": 60_000}
        summary |= {"problems": 100, "problems_with_a_right_answer": 81, "cut_off_by_length": 12}
        artifacts.write_jsonl(path / "summary.jsonl", [summary])

    def positives(self, path, node):
        artifacts.write_jsonl(
            path / "summary.jsonl", [{"correct": 430, "distinct": 210, "chosen": 190, "problems": 81}]
        )

    def values(self, path, node):
        """A wrong response to each problem: the teacher's solution with one number spoilt, its values falling there."""
        rng, responses, values = random.Random(node.seed), [], []
        for problem in self.train_problems:
            lines = problem.solution.split("\n")
            spoilt = rng.randrange(len(lines))
            lines[spoilt] = lines[spoilt][:-1] + str((int(lines[spoilt][-1]) + 1) % 10)
            lines[-1] = "#### 1000" if spoilt < len(lines) - 1 else lines[-1]
            prompt, steps = (
                self.tokenizer.encode(problem.question + "\n"),
                [self.tokenizer.encode(x + "\n") for x in lines],
            )
            ends = len(prompt) + np.cumsum([len(step) for step in steps])
            spans = np.stack([ends - [len(step) for step in steps], ends], axis=1)
            name = f"{problem.id}/000"
            responses.append(
                Response(
                    name, problem.id, [*prompt, *(token for step in steps for token in step)], len(prompt), "wrong"
                )
            )
            counts = [rng.randint(1, ROLLOUTS) if i < spoilt else 0 for i in range(len(lines))]
            good = problem.solution.split("\n")
            rescues = [[self.tokenizer.encode("\n".join(good[i:]))] if i <= spoilt else [] for i in range(len(lines))]
            values.append(StepValues(name, spans, counts, [ROLLOUTS] * len(lines), rescues))
        artifacts.write_responses(path / "responses.jsonl", responses)
        artifacts.write_values(path / "values.jsonl", values)
        artifacts.write_jsonl(
            path / "summary.jsonl", [{"responses": len(values), "wrong": len(values), "rollouts": 900}]
        )
        self.valued = responses, values

    def credit(self, path, node):
        problems, rows, credits = {p.id: p for p in self.train_problems}, [], {}
        for response, values in zip(*self.valued):
            got = credits[response.id] = assign(values, 0.95, K)
            row = {
                "response_id": response.id,
                "steps": len(got.q),
                "pit": got.pit,
                "value_before": got.value_before(got.pit),
            }
            if self.oracle:
                verdicts = Oracle(problems[response.problem_id]).judge(self.tokenizer.decode(response.completion))
                row |= {"first_wrong": first_wrong_step(verdicts), "lost": losing_step(verdicts)}
            rows.append(row)
        artifacts.write_credits(path / "credits.jsonl", credits)
        artifacts.write_jsonl(path / "pits.jsonl", rows)
        summary = {
            "credited": len(rows),
            "pairs_fork": 20,
            "pairs_solution": 30,
            "pairs_outcome": 31,
            "pairs_edit_distance": 32,
        }
        artifacts.write_jsonl(path / "summary.jsonl", [summary | {"weighted": 40, "filtered": 40}])


def arithmetic_problems(count: int = 24) -> list[Problem]:
    return load("arithmetic", "train", seed=0, count=count, style=0.25)


def word_problems(count: int = 24) -> list[Problem]:
    """Problems of a source that has no oracle."""
    line = "He buys 3 boxes of {n} pens at $2 each, so he pays 3 * {n} * 2 = {total} dollars for the pens that he needs today."
    return [
        Problem(
            f"word-{n}",
            f"A man buys 3 boxes of {n} pens at $2 a pen. How much does he pay <in all> & when?",
            str(6 * n),
            f"There are 3 * {n} = {3 * n}\n{line.format(n=n, total=6 * n)} That is {6 * n}\n#### {6 * n}",
        )
        for n in range(2, count + 2)
    ]
