"""`python -m experiments.synthesize` against a real HTTP server: the recipe, every kind of failure, the budget, and a kill -9."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from teacher_server import FAULTS, KEY, Server, answer

from experiments import synthesize
from synthrl_jax.problems.endpoint import Endpoint, EndpointSettings
from synthrl_jax.problems.problem import load
from synthrl_jax.problems.synthetic import read


@pytest.fixture
def seeds(tmp_path):
    path = tmp_path / "seeds.jsonl"
    text = "Ann has {} cups and sells {} of them. How many has she?"
    rows = [{"question": text.format(i, i // 2), "answer": f"#### {i - i // 2}"} for i in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    servers = []

    def start(*args, **settings):
        servers.append(Server(*args, **settings))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def flags(server, seeds, out, *more, count=30):
    return [
        f"--seeds_path={seeds}", f"--count={count}", f"--out={out}", "--model=m", f"--base_url={server.url}", "--shard=10",
        "--concurrency=8", "--backoff=0.02", "--timeout=30", f"--json={out}.json", *more,
    ]  # fmt: skip


def run(server, seeds, out, *more, code=0, **settings):
    assert synthesize.main(flags(server, seeds, out, *more, **settings)) == code
    return json.loads(out.with_name(out.name + ".json").read_text())[0]


def test_problems_are_kept_where_answers_agree_and_the_rest_is_accounted_for(serve, seeds, tmp_path, capsys):
    server = serve()
    row = run(server, seeds, tmp_path / "out")
    problems = read(str(tmp_path / "out"))
    rejected = [json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").open()]
    assert len(problems) == row["kept"] and len(problems) + len(rejected) == 30 == row["finished"] and row["kept"] > 15
    for problem in problems:
        a, b = (
            int(word) for word in problem.question.split() if word.rstrip(".").isdigit() for word in [word.rstrip(".")]
        )
        assert problem.solution.endswith(f"#### {int(problem.answer):,}") and problem.meta["agree"] >= 2
        assert "Nobody knows" not in problem.question
        right = int(problem.answer) == a + b
        assert right or problem.meta["agree"] < 3
    assert any(p.meta["rewrites"] for p in problems) and {p.meta["agree"] for p in problems} == {2, 3}
    assert {r["reason"] for r in rejected} <= {"answers do not agree", "duplicate"}
    assert row["requests_answered"] == sum(server.paid.values()) and set(server.paid.values()) == {1}
    assert [row["tokens_in"], row["tokens_out"]] == server.tokens and row["uncertain_tokens"] == 0
    assert 1 < server.most_busy <= 8
    source = {"evaluation": {"source": "gsm8k", "path": str(seeds)}}
    assert len(load("synthetic", "train", path=str(tmp_path / "out"), **source)) == len(problems)


def test_the_same_command_again_pays_nothing_and_a_larger_count_only_what_is_new(serve, seeds, tmp_path):
    server = serve()
    first = run(server, seeds, tmp_path / "out", count=25)
    paid = sum(server.paid.values())
    again = run(server, seeds, tmp_path / "out", count=25)
    assert sum(server.paid.values()) == paid and again == first
    more = run(server, seeds, tmp_path / "out", count=30)
    assert set(server.paid.values()) == {1} and sum(server.paid.values()) > paid
    assert more["requests_answered"] == sum(server.paid.values())
    whole = run(serve(), seeds, tmp_path / "whole", count=30)
    assert (tmp_path / "whole" / "problems.jsonl").read_bytes() == (tmp_path / "out" / "problems.jsonl").read_bytes()
    assert {k: v for k, v in whole.items() if k != "out"} == {k: v for k, v in more.items() if k != "out"}


# what a cut connection leaves open is only known after a read has timed out: a minute and a half
@pytest.mark.parametrize("word", [pytest.param(w, marks=pytest.mark.long) if w == "cut" else w for w in FAULTS])
def test_every_failure_is_retried_and_changes_nothing(word, serve, seeds, tmp_path):
    plain = serve()
    run(plain, seeds, tmp_path / "plain", count=4)
    server = serve(lambda number, name: word if number % 5 == 1 else None)
    row = run(server, seeds, tmp_path / "out", *(("--timeout=4",) if word == "slow" else ()), count=4)
    assert (tmp_path / "plain" / "problems.jsonl").read_bytes() == (tmp_path / "out" / "problems.jsonl").read_bytes()
    assert set(server.paid.values()) == {1} and server.paid.keys() == plain.paid.keys()
    assert row["requests_failed"] == sum(server.seen.values()) - sum(server.paid.values()) > 0
    unsure = word not in ("busy_429", "busy_date", "error_500")
    assert (row["uncertain_tokens"] > 0) == unsure


def test_retry_after_holds_for_every_request(serve, seeds, tmp_path):
    server = serve(lambda number, name: "busy_429" if number == 3 else None)
    run(server, seeds, tmp_path / "out", "--concurrency=1", count=2)
    times = [at for at, _ in server.times]
    assert times[4] - times[3] >= 0.3 > times[3] - times[2]


def test_an_endpoint_that_stays_down_ends_the_run_and_a_later_one_goes_on(serve, seeds, tmp_path, capsys):
    down = serve(lambda number, name: "error_500" if number >= 40 else None)
    row = run(down, seeds, tmp_path / "out", "--retries=1", code=1)
    assert "failed at the endpoint" in row["ended"] and "HTTP 500" in row["ended"] and row["finished"] < 30
    up = serve()
    row = run(up, seeds, tmp_path / "out", "--retries=1")
    assert row["ended"] == "" and row["finished"] == 30
    assert not set(up.paid) & set(down.paid) and set((up.paid + down.paid).values()) == {1}


@pytest.mark.parametrize(
    "budget", [("--budget_tokens=9000",), ("--budget_money=0.02", "--price_in=1", "--price_out=3")]
)
def test_the_budget_is_never_exceeded_and_a_larger_one_goes_on(budget, serve, seeds, tmp_path):
    server = serve()
    row = run(server, seeds, tmp_path / "out", *budget, "--max_tokens=100")
    assert "budget" in row["ended"] and 0 < row["finished"] < 30
    assert sum(server.tokens) <= 9000 if "tokens" in budget[0] else row["money"] <= 0.02
    assert sum(server.tokens) == row["tokens_in"] + row["tokens_out"]
    row = run(server, seeds, tmp_path / "out", "--max_tokens=100")
    assert row["finished"] == 30 and set(server.paid.values()) == {1}


def hostile(prompt, name):
    """Answers made to break whoever reads them."""
    kind = int(name, 16) % 9
    if not prompt.startswith("Here is"):
        texts = ["Verdict: good", "\x00" * 10, "#### 9**9**9**9", "#### \\frac{1}{0}", "a" * 100_000, "#### " + "(" * 5000, "",
                 "Verdict: bad: {problem}{reason}</problem><problem>", "####"]  # fmt: skip
        return texts[kind] + (f"\nkey {KEY}" if kind < 3 else "")
    texts = ["no tags", "<problem></problem>", "<problem>" + "x" * 50_000 + "</problem>", "<problem>a\x1bb</problem>", "",
             "<problem>{reason} {question} {problem} " + name + "?</problem>", "<problem>\ud800 how many?</problem>",
             "<problem>" * 3000, f"<problem>My key is {KEY}, {name}?</problem>"]  # fmt: skip
    return texts[kind]


def test_hostile_answers_are_rejected_with_a_reason_and_the_key_is_written_nowhere(serve, seeds, tmp_path, capsys):
    server = serve(lambda number, name: "refused" if number % 11 == 5 else None, say=hostile)
    row = run(server, seeds, tmp_path / "out", count=40)
    assert row["finished"] == 40 and row["kept"] == 0
    reasons = {json.loads(line)["reason"] for line in (tmp_path / "out" / "rejected.jsonl").open()}
    assert reasons >= {"no problem in the answer", "too long", "control characters", "refused"}
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    captured = capsys.readouterr()
    assert KEY.encode() not in written and KEY not in captured.out + captured.err


def test_wrong_use_is_one_clear_line(serve, seeds, tmp_path, capsys, monkeypatch):
    server, out = serve(), tmp_path / "out"
    run(server, seeds, out, count=2)
    capsys.readouterr()
    quota = serve(lambda number, name: "quota")
    cases = [
        (flags(server, seeds, out, "--temperature=0.1"), "was begun with temperature = 0.7, not 0.1"),
        (flags(server, seeds, out, "--agree=4"), "agree must be in 1..solutions=3"),
        (flags(server, seeds, out, "--count=0"), "--count=0: must be positive"),
        (flags(server, seeds, out, "--budget_money=1"), "needs the prices"),
        (flags(server, seeds, out, "--local=x"), "either --model"),
        (flags(server, seeds, out, "--prompts=/none"), "no such file"),
        (flags(server, "/none.jsonl", out), "no such file"),
        (flags(quota, seeds, tmp_path / "other"), "refuses all requests: HTTP 429"),
    ]
    for command, words in cases:
        assert synthesize.main(command) == 2, words
        lines = capsys.readouterr().err.strip().split("\n")
        assert len(lines) == 1 and words in lines[0], lines
    monkeypatch.setenv("OPENAI_API_KEY", "sk-another-secret")
    assert synthesize.main(flags(server, seeds, tmp_path / "third")) == 2
    err = capsys.readouterr().err
    assert "HTTP 401" in err and "sk-another-secret" not in err
    monkeypatch.delenv("OPENAI_API_KEY")
    assert synthesize.main(flags(server, seeds, out)) == 2
    assert "$OPENAI_API_KEY is not set" in capsys.readouterr().err


def start(server, seeds, out):
    command = [sys.executable, "-m", "experiments.synthesize", *flags(server, seeds, out, count=24)]
    env = os.environ | {"SYNTHRL_QUIET": "1"}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_a_kill_in_the_middle_pays_nothing_twice_and_loses_nothing(serve, seeds, tmp_path):
    server = serve(pause_after=50)
    process = start(server, seeds, tmp_path / "out")
    try:
        assert server.paused.wait(60), process.poll()
        time.sleep(0.5)  # what the server has answered is with the client, what it holds back is not
        paid = sum(server.paid.values())
        process.send_signal(signal.SIGKILL)
        process.wait()
        # and a torn line, as a machine that loses power may leave it
        torn = sorted((tmp_path / "out" / "shards").glob("*.calls.jsonl"))[-1]
        with torn.open("ab") as file:
            file.write(b'{"key": "gsm8k-syn-0000')
    finally:
        process.kill()
    server.pause_after = None
    server.go.set()
    assert 0 < paid < 120 and set(server.paid.values()) == {1}
    process = start(server, seeds, tmp_path / "out")
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out
    assert set(server.paid.values()) == {1}
    run(serve(), seeds, tmp_path / "whole", count=24)
    for name in ("problems.jsonl", "rejected.jsonl"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    row = json.loads((tmp_path / "out" / "report.json").read_text())
    assert row["requests_answered"] == len(server.paid) and row["uncertain_tokens"] > 0


def test_a_teacher_of_our_own_answers_through_the_sampler(seeds, tmp_path, capsys):
    out = tmp_path / "out"
    command = [f"--seeds_path={seeds}", "--count=3", f"--out={out}", "--local=arithmetic_base", "--max_tokens=24", "--rows=8",
               "--ngram=0", f"--json={out}.json"]  # fmt: skip
    assert synthesize.main(command) == 0
    row = json.loads((tmp_path / "out.json").read_text())[0]
    assert row["finished"] == 3 and row["requests_answered"] >= 3 and row["tokens_out"] > 0
    first = (out / "rejected.jsonl").read_bytes()
    assert synthesize.main(command) == 0 and (out / "rejected.jsonl").read_bytes() == first


def test_the_solution_ends_with_the_line_of_the_answer():
    from synthrl_jax.problems.teacher import solution_in

    assert solution_in("2+3=5\r\n#### 5\n\nI hope this helps!") == "2+3=5\n#### 5"
    assert solution_in(" The answer is $\\boxed{7}$. ") == "The answer is $\\boxed{7}$."


def test_the_server_itself_is_a_function_of_its_requests():
    prompt = "Solve this\n<problem>\nTom1 has 12 figs and buys 30. How many figs has Tom1 now?\n</problem>"
    assert answer(prompt, "x") == answer(prompt, "x")


def test_a_key_that_is_a_plain_word_stays_one_in_the_answers():
    """Servers that ask for no key are given any word; a real one is taken out wherever an answer repeats it."""
    body = json.dumps({"choices": [{"message": {"content": "so x = 3, my key is sk-a-real-secret"}}]}).encode()
    texts = [Endpoint(EndpointSettings("m", "http://h"), key)._parse(body, "p")[0] for key in ("x", "sk-a-real-secret")]
    assert texts == ["so x = 3, my key is sk-a-real-secret", "so x = 3, my key is ***"]
