"""MATH, GSM8K through TFDS, and the sets out of distribution: forms, sizes, splits, and what is said when data is absent."""

import json
import subprocess
import sys
import time

import pytest
from shared_data import shared

from synthrl_jax.problems import hendrycks_math, out_of_distribution
from synthrl_jax.problems.problem import load

SUBJECTS = ("algebra", "number_theory")


def math_row(i, split="train"):
    return {
        "problem": f"What is ${i}+1$, of {split}?",
        "level": f"Level {1 + i % 5}",
        "type": ("Algebra", "Number Theory")[i % 2],
        "solution": f"We add. So ${i}+1=\\boxed{{{i + 1}}}$.",
    }


@pytest.fixture(scope="module")
def math_forms(tmp_path_factory):
    """The same 60 + 20 rows in each form: name -> path."""
    root = tmp_path_factory.mktemp("math")
    for split, n in (("train", 60), ("test", 20)):
        for i in range(n):
            folder = root / "json" / split / SUBJECTS[i % 2]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{i}.json").write_text(json.dumps(math_row(i, split)))
        (root / "lines").mkdir(exist_ok=True)
        (root / "lines" / f"{split}.jsonl").write_text("".join(json.dumps(math_row(i, split)) + "\n" for i in range(n)))
    command = [
        sys.executable,
        "-m",
        "experiments.prepare",
        "hendrycks_math",
        "--source",
        root / "json",
        "--data_dir",
        root / "tfds",
    ]
    began = time.monotonic()
    out = subprocess.run([*command, "--json", root / "rows.json"], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert time.monotonic() - began < 60  # no network is asked
    assert json.loads((root / "rows.json").read_text()) == [
        {"data_set": "hendrycks_math", "split": split, "rows": n, "data_dir": str(root / "tfds")}
        for split, n in (("train", 60), ("test", 20))
    ]
    return {form: str(root / form) for form in ("json", "lines", "tfds")}


def contents(problems):
    return sorted((p.question, p.answer, p.solution, p.meta["level"], p.meta["type"]) for p in problems)


def test_math_is_the_same_in_every_form(math_forms, capsys):
    for split in ("train", "validation", "test"):
        found = {form: load("hendrycks_math", split, path=path) for form, path in math_forms.items()}
        assert contents(found["json"]) == contents(found["lines"]) == contents(found["tfds"]) and found["json"]
        assert [p.id for p in found["json"]] == [p.id for p in found["tfds"]]
    assert "as published it has 7,500" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"train split at .* has 60 rows, as published it has 7,500"):
        load("hendrycks_math", "train", path=math_forms["tfds"], published=True)


def test_math_splits_are_disjoint_and_fixed_by_content(math_forms):
    train, validation, test = (
        load("hendrycks_math", s, path=math_forms["json"]) for s in ("train", "validation", "test")
    )
    assert len(train) + len(validation) == 60 and len(test) == 20
    assert not {p.question for p in train} & {p.question for p in validation}
    assert train[0].id == "train/algebra/0" and train[0].answer == "1"
    easy = load("hendrycks_math", "train", path=math_forms["json"], levels=(1, 2), subjects=("Algebra",))
    assert easy and all(p.meta["level"] in (1, 2) and p.meta["type"] == "Algebra" for p in easy)
    with pytest.raises(ValueError, match="Algebra, Counting"):
        load("hendrycks_math", "train", path=math_forms["json"], subjects=("Chess",))


def test_one_file_of_math_gives_all_three_splits(tmp_path):
    path = tmp_path / "all.jsonl"
    path.write_text("".join(json.dumps(math_row(i)) + "\n" for i in range(300)))
    parts = [load("hendrycks_math", s, path=str(path), validation_share=0.1) for s in ("train", "validation", "test")]
    assert sum(map(len, parts)) == 300 and all(parts)
    assert len({p.id for part in parts for p in part}) == 300


@pytest.mark.parametrize(
    "text,answer",
    [
        (r"so \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{1}, no, \boxed{2}", "2"),
        (r"\boxed{3} and \boxed{}", "3"),
        (r"\fbox{(1,\{2\})}", r"(1,\{2\})"),
        (r"it is \boxed 7.", "7."),
        (r"\boxed{unbalanced", None),
        (r"\boxed{a}\boxed{b", "a"),
        ("42", None),
    ],
)
def test_the_answer_is_the_last_box(text, answer):
    assert hendrycks_math.boxed(text) == answer


def test_bad_rows_of_math_are_named(tmp_path):
    folder = tmp_path / "json" / "train" / "algebra"
    folder.mkdir(parents=True)
    (folder / "1.json").write_text(json.dumps(math_row(1)))
    bad = folder / "2.json"
    for text, words in (
        ("{", "not JSON"),
        ("[]", "object"),
        (json.dumps(math_row(2) | {"solution": "It is 3."}), "boxed"),
        (json.dumps({"solution": "x"}), "'problem'"),
    ):
        bad.write_text(text)
        with pytest.raises(ValueError, match=rf"algebra/2\.json: .*{words}"):
            load("hendrycks_math", "train", path=str(tmp_path / "json"))
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(math_row(1)) + "\n" + json.dumps({"problem": "x"}) + "\n")
    with pytest.raises(ValueError, match=r"rows\.jsonl:2: .*'solution'"):
        load("hendrycks_math", "train", path=str(path))


def test_absent_data_is_told_at_once_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "nothing"))
    helps = {"gsm8k": "train.jsonl", "hendrycks_math": "experiments.prepare hendrycks_math", "svamp": "SVAMP"}
    helps |= {"multiarith": "multiarith.jsonl", "gsm_hard": "gsm_hard.jsonl", "synthetic": "experiments.synthesize"}
    began = time.monotonic()
    for name, words in helps.items():
        more = {"evaluation": {"source": "gsm8k"}} if name == "synthetic" else {}
        for path in ("", str(tmp_path / "absent"), str(tmp_path)):
            for split in ("train", "test"):
                if (name in out_of_distribution.CORPORA and split == "train") or (
                    name == "synthetic" and split == "test"
                ):
                    continue
                with pytest.raises(FileNotFoundError, match=words) as error:
                    load(name, split, path=path, **more)
                assert "\n" not in str(error.value)
    assert time.monotonic() - began < 2


def test_gsm8k_through_tfds_is_that_of_its_files(tmp_path):
    from gsm8k_builder import prepare

    plain = tmp_path / "plain"
    plain.mkdir()
    for split, n in (("train", 200), ("test", 50)):
        lines = shared(f"data/gsm8k/{split}.jsonl").open().readlines()[:n]
        (plain / f"{split}.jsonl").write_text("".join(lines))
    prepare(plain, tmp_path / "tfds")
    path = str(tmp_path / "tfds")
    for split in ("train", "validation", "test"):
        for settings in ({}, {"keep_marks": True}):
            prepared, files = (load("gsm8k", split, path=p, published=False, **settings) for p in (path, str(plain)))
            both = [sorted((p.question, p.answer, p.solution) for p in found) for found in (prepared, files)]
            assert both[0] == both[1] and both[0]
            assert any("<<" in p.solution for p in prepared) == bool(settings)
    versioned = str(tmp_path / "tfds" / "gsm8k" / "1.0.0")
    assert load("gsm8k", "test", path=path, published=False) == load("gsm8k", "test", path=versioned, published=False)
    with pytest.raises(ValueError, match="50 rows, as published it has 1,319"):
        load("gsm8k", "test", path=path, published=True)
    info = tmp_path / "tfds" / "gsm8k" / "1.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(ValueError, match="ArrayRecord"):
        load("gsm8k", "test", path=path)


def test_gsm8k_has_its_published_sizes_and_says_when_a_copy_has_not(tmp_path, capsys):
    path = shared("data/gsm8k")
    parts = {s: load("gsm8k", s, path=str(path), published=True) for s in ("train", "validation", "test")}
    assert len(parts["train"]) + len(parts["validation"]) == 7473 and len(parts["test"]) == 1319
    assert 600 < len(parts["validation"]) < 900 and not capsys.readouterr().err
    (tmp_path / "test.jsonl").write_text("".join((path / "test.jsonl").open().readlines()[:7]))
    assert len(load("gsm8k", "test", path=str(tmp_path))) == 7
    assert "has 7 rows, as published it has 1,319" in capsys.readouterr().err


@pytest.mark.parametrize("name,file,size", [
    ("svamp", "svamp.jsonl", 1000), ("multiarith", "mawps_multiarith.jsonl", 600), ("gsm_hard", "gsm_hard.jsonl", 1319),
])  # fmt: skip
def test_sets_out_of_distribution_have_their_sizes_and_only_a_test_split(name, file, size):
    path = shared(f"data/ood/{file}")
    problems = load(name, "test", path=str(path), published=True)
    assert len(problems) == size == len(load(name, "test", path=str(path.parent)))
    rows = [json.loads(line) for line in path.open()]
    for problem, row in zip(problems, rows):
        assert float(problem.answer) == float(row["answer"]) and " ".join(row["question"].split()) == problem.question
    assert len(load(name, "test", path=str(path), count=5, seed=3)) == 5
    with pytest.raises(ValueError, match="nothing is trained on it"):
        load(name, "train", path=str(path))


def test_the_first_forms_of_these_sets_are_read_too(tmp_path):
    (tmp_path / "SVAMP.json").write_text(
        json.dumps([{"Body": "He had 5 pens", "Question": "How many?", "Answer": 5.0}])
    )
    (tmp_path / "MultiArith.json").write_text(json.dumps([{"sQuestion": " How many? ", "lSolutions": [8.0]}]))
    (tmp_path / "gsmhardv2.jsonl").write_text(json.dumps({"input": "How many?", "target": -12345.5}) + "\n")
    found = {name: load(name, "test", path=str(tmp_path))[0] for name in out_of_distribution.CORPORA}
    assert found["svamp"].question == "He had 5 pens, How many?" and found["svamp"].answer == "5"
    assert found["multiarith"].answer == "8" and found["gsm_hard"].answer == "-12345.5"
    (tmp_path / "gsmhardv2.jsonl").write_text(json.dumps({"input": "How many?", "target": "many"}) + "\n")
    with pytest.raises(ValueError, match=r"gsmhardv2\.jsonl:1: the answer 'many' is no number"):
        load("gsm_hard", "test", path=str(tmp_path))


def test_synthetic_problems_train_and_real_ones_evaluate(tmp_path, capsys):
    gsm8k = shared("data/gsm8k")
    test = load("gsm8k", "test", path=str(gsm8k))
    rows = [{"id": f"s{i}", "question": f"Tom has {i} figs and buys {i} more. How many has he?", "answer": str(2 * i),
             "solution": f"{i}+{i}={2 * i}\n#### {2 * i}", "meta": {"seed": "x"}} for i in range(5)]  # fmt: skip
    rows.append(
        {"id": "leak", "question": "Surely: " + test[3].question, "answer": "1", "solution": "#### 1", "meta": {}}
    )
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluation = {"source": "gsm8k", "path": str(gsm8k)}
    train = load("synthetic", "train", path=str(tmp_path), evaluation=evaluation)
    assert [p.id for p in train] == ["s0", "s1", "s2", "s3", "s4"] and train[0].meta == {"seed": "x"}
    assert "1 of 6 problems dropped, first leak for test-00003" in capsys.readouterr().out
    assert load("synthetic", "test", path=str(tmp_path), evaluation=evaluation) == test
    assert len(load("synthetic", "train", path=str(tmp_path), evaluation=evaluation, ngram=0)) == 6


def test_odd_files_are_read_or_named(tmp_path):
    row = {"question": "Tom has 2 figs.\u2028How many?", "answer": "2\n#### 1,002"}
    path = tmp_path / "test.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(row, ensure_ascii=False).encode() + b"\r\n\r\n")
    (found,) = load("gsm8k", "test", path=str(tmp_path), published=False)
    assert found.answer == "1002" and "\u2028" in found.question
    bad = {
        "not UTF-8": b"\xff\xfe{}",
        r":1: not a row \(RecursionError": b'{"a": ' * 100_000,
        r"test.jsonl: not rows \(RecursionError": b"[" * 100_000,
        r":1: not a row \(ValueError": b'{"question": ' + b"1" * 5000 + b"}",
        ":2: not JSON": json.dumps(row).encode() + b"\n{'question': 1}",
        "no '#### <answer>'": json.dumps(row | {"answer": "#### 3\nso three"}).encode(),
        "no text in field 'answer'": json.dumps(row | {"answer": 5}).encode(),
    }
    for words, content in bad.items():
        path.write_bytes(content)
        with pytest.raises(ValueError, match=words) as error:
            load("gsm8k", "test", path=str(tmp_path), published=False)
        assert "test.jsonl" in str(error.value) and "\n" not in str(error.value)
