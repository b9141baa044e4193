"""`python -m experiments.evaluate`: any policy on any source, and wrong use told in one line."""

import json
from pathlib import Path

from experiments import evaluate
from experiments.report_data import scores_of
from experiments.stages.evaluate import summary
from synthrl_jax import policy as policies
from synthrl_jax.grading import grade
from synthrl_jax.rollouts import Root, Settings, sample

TINY = f"--config={Path(__file__).resolve().parents[2] / 'configs' / 'tiny.py'}"


def test_accuracy_is_the_share_of_greedy_answers_that_are_right(tmp_path):
    policy = policies.load_pretrained("arithmetic_base")
    question = "Pie is 2\nTea is 3\nRam is tea+pie\nWhat is ram?"
    ids = policy.tokenizer.encode(question + "\n")
    settings = Settings(max_tokens=24, temperature=0.0, stop_ids=(policy.tokenizer.eos_id,))
    (found,) = sample(policy, [Root("x", ids, (len(ids),))], settings, 0)
    text = policy.tokenizer.decode(found.tokens)
    rows = [{"question": question, "answer": str(answer)} for answer in (5, 6, 7)]
    (tmp_path / "svamp.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    want = sum(grade(text, row["answer"], "gsm8k_hash").outcome == "correct" for row in rows) / 3
    flags = ["arithmetic_base", TINY, "--source=svamp", f"--path={tmp_path}", f"--json={tmp_path / 'rows.json'}"]
    assert evaluate.main([*flags, "--config.sample.max_tokens=24", "--config.sample.rows=8"]) == 0
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    assert abs(row["accuracy"] - want) < 1e-6 and row["problems"] == 3 and row["source"] == "svamp"


def test_a_grader_error_is_counted_apart_and_no_wrong_answer():
    outcomes = ["correct", "wrong", "grader_error", "correct", "no_answer"]
    rows = [{"id": str(i), "outcome": outcome, "samples": 0, "correct": 0} for i, outcome in enumerate(outcomes)]
    row = summary(rows, 1)
    assert row["accuracy"] == 2 / 4 and row["problems"] == 5
    assert row["grader_error"] == row["no_answer"] == 1
    assert scores_of("sft", 5, {0: (rows, row), 1: (rows, row)}).accuracy.value == 2 / 4


def test_wrong_use_is_one_clear_line(tmp_path, capsys):
    cases = {
        "no svamp": ["arithmetic_base", TINY, "--source=svamp", f"--path={tmp_path}"],
        "too few for pass@5": ["arithmetic_base", TINY, "--n=2"],
        "unknown problem source": ["arithmetic_base", TINY, "--source=chess"],
    }
    for words, flags in cases.items():
        assert evaluate.main(flags) == 2
        lines = capsys.readouterr().err.strip().split("\n")
        assert len(lines) == 1 and words in lines[0], lines
