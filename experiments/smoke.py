"""What `--config.smoke=True` puts in the place of a 7B model, its data and its hours: the same code in minutes on one CPU.

A tiny random model of the same family in Hugging Face form (shards with an index, its own tokenizer) is written once per
machine, beside rows in MATH's form; GSM8K's rows are the first ones of its real files where `problems.path` has them.
"""

import json
import os
import random
import tempfile
from pathlib import Path

from synthrl_jax.problems import gsm8k, hendrycks_math
from synthrl_jax.problems.problem import Problem

FORMS = ("gsm8k", "hendrycks_math")
VERSION = 1  # of what is written; a new one gets a directory of its own
LONGEST = 280  # characters of a problem with its solution


def shrink(c, *, family: str, form: str) -> None:
    """Change a config of a 7B model to its smoke: few small problems, few samples, few updates."""
    c.name += "_smoke"
    c.base.pretrained = str(model(family))
    c.problems.source, c.problems.path = "experiments.smoke:problems", ""
    c.problems.settings = {"form": form}
    c.sizes, c.sft_sizes = (24,), ()
    c.validation_problems, c.test_problems = 8, 12
    c.mesh = {"data": 1, "fsdp": 1, "tensor": 1}
    c.train.update({"attention": "xla", "vocab_chunk": 128})
    c.sample.update({"n": 8, "max_tokens": 128, "rows": 64, "shard_roots": 12})
    c.monte_carlo.update({"negatives": 1, "rollouts": 5, "shard_roots": 12})
    c.evaluate.n = 5
    # learnt by heart, so that there are right answers to its own problems, and wrong ones at temperature 0.8
    c.sft = {"batch": 8, "epochs": 50.0, "looks": 2, "optimizer": {"learning_rate": 4e-3}}
    for entry in c.methods.values():
        entry.update({"batch": 8, "epochs": 0.0, "updates": 4, "looks": 1})


def _place(name: str, write) -> Path:
    """A directory of this machine that `write(directory)` fills once; several processes may ask for it together."""
    root = Path(tempfile.gettempdir()) / f"synthrl_jax_smoke_{os.getuid()}_{VERSION}"
    root.mkdir(exist_ok=True)
    place = root / name
    if not place.is_dir():
        beside = Path(tempfile.mkdtemp(dir=root))
        write(beside)
        try:
            beside.rename(place)
        except OSError:  # another process was first
            if not place.is_dir():
                raise
    return place


def model(family: str) -> Path:
    """A directory with a tiny random model of the family of `llama2` or `deepseek_math`."""
    return _place(family, lambda directory: _write_model(directory, family))


def _write_model(directory: Path, family: str) -> None:
    import jax

    from synthrl_jax.policy import decoder, hf_weights

    texts = [text for form in FORMS for i in range(400) for text in _row(form, i)]
    size = _sentencepiece(directory, texts) if family == "llama2" else _byte_level(directory, texts)
    config = decoder.DecoderConfig(
        vocab_size=-(-size // 64) * 64, width=64, layers=2, heads=4, mlp_width=128, max_positions=1024,
        norm_eps=1e-5 if family == "llama2" else 1e-6,
    )  # fmt: skip
    hf_weights.save(directory, config, decoder.init(config, jax.random.key(0)), shard_bytes=200_000)


def _sentencepiece(directory: Path, texts: list[str]) -> int:
    """A tokenizer.model as Llama 2's: a space in front of each text, no padding token."""
    import io

    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=model, model_type="bpe", vocab_size=600, byte_fallback=True,
        split_digits=True, normalization_rule_name="identity", remove_extra_whitespaces=False, unk_id=0, bos_id=1,
        eos_id=2, pad_id=-1, num_threads=1, minloglevel=2, hard_vocab_limit=False,
    )  # fmt: skip
    from synthrl_jax.policy.tokenizer import SentencePieceTokenizer

    tokenizer = SentencePieceTokenizer(model.getvalue())
    tokenizer.save(str(directory))
    return tokenizer.vocab_size


def _byte_level(directory: Path, texts: list[str]) -> int:
    """A tokenizer.json as DeepSeek-Math's: digits apart, words with the space before them, bytes."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    made = tokenizers.Tokenizer(models.BPE())
    words = pre_tokenizers.Split(tokenizers.Regex(r"\p{N}|[^\r\n\p{L}\p{N}]?\p{L}+|\s+"), "isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    made.decoder = decoders.ByteLevel()
    special = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=600, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    made.save(str(directory / "tokenizer.json"))
    fields = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": special[0], "eos_token": special[1]}
    (directory / "tokenizer_config.json").write_text(json.dumps(fields) + "\n")
    return made.get_vocab_size()


def _row(form: str, i: int) -> tuple[str, str]:
    """(question, solution) of a made-up problem in a data set's form, with two steps."""
    rng = random.Random(i)
    a, b, c = (rng.randint(2, 30) for _ in range(3))
    if form == "hendrycks_math":
        question = f"What is the value of ${a}+{b}+{c}$?"
        steps = f"First we add $a={a}$ and ${b}$. This gives ${a}+{b}={a + b}$. Then ${a + b}+{c}={a + b + c}$."
        return question, f"{steps} The answer is $\\boxed{{{a + b + c}}}$."
    name, thing = rng.choice(["Tom", "Ann", "Natalia", "James"]), rng.choice(["clips", "eggs", "books", "dollars"])
    question = (
        f"{name} had {a} {thing} in April. She sold her friends {b} and then {c} more. How many {thing} altogether?"
    )
    return (
        question,
        f"There are {a} + {b} = {a + b} {thing}.\nThen {a + b} + {c} = {a + b + c} {thing}.\n#### {a + b + c}",
    )


def _write_math(directory: Path) -> None:
    for split, first, n in (("train", 0, 80), ("test", 1000, 20)):
        for i in range(n):
            question, solution = _row("hendrycks_math", first + i)
            row = {"problem": question, "level": f"Level {1 + i % 5}", "type": "Prealgebra", "solution": solution}
            path = directory / split / "prealgebra" / f"{i}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(row))


def problems(split: str, *, form: str, path: str = "", count: int | None = None, seed: int = 0) -> list[Problem]:
    """The first short rows of GSM8K at `path`, or of MATH there; without a path rows of the same form that are made up here."""
    short = {"count": count, "seed": seed, "max_characters": LONGEST, "validation_share": 0.25, "published": False}
    if form == "hendrycks_math":
        return hendrycks_math.load(split, path=path or str(_place("math", _write_math)), **short)
    if path:
        return gsm8k.load(split, path=path, **short)
    first = {"train": 0, "validation": 1000, "test": 2000}[split]
    rows = [(i, *_row(form, first + i)) for i in range(count or 100)]
    return [Problem(f"{split}-{i:05d}", q, text.split("#### ")[1], text) for i, q, text in rows]
