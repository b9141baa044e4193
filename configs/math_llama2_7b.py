"""The paper's setting on MATH with Llama-2-7B: synthetic problems like MATH's, steps by line or sentence, tested on MATH.

Hardware: as configs/gsm8k_llama2_7b.py; answers are longer, ask `python -m experiments.plan
--config=configs/math_llama2_7b.py --topology=v5e:8x8`. What is needed: models/Llama-2-7b-hf as there; data/math: a copy of
MATH that you have (its first home took it down in January 2025): train/ and test/ with the original JSON files, or
train.jsonl and test.jsonl with problem, solution, level, type; or
    python -m experiments.prepare hendrycks_math --source=COPY --data_dir=data/math
Commands, in order:
    python -m experiments.synthesize --seeds=hendrycks_math --seeds_path=data/math --count=260000 --out=synthetic/math \\
        --model=MODEL --base_url=https://HOST/v1 --max_tokens=2048 --price_in=P --price_out=Q --budget_money=M
    python -m experiments.run --config=configs/math_llama2_7b.py --workdir=gs://BUCKET/math_llama2_7b --distributed=auto
On one CPU in minutes, on rows in MATH's form that it writes itself: --config.smoke=True.

Expected. From the paper: error falls only about as D^-0.05; RFT is worth 2 x and per-step DPO 8 x the problems, error
ratios of 0.97 and 0.90. From others: this base answers 2.5 % with 4 examples in the prompt (Touvron et al. 2023); on 960 k
synthetic problems 40.6 % (Xwin-Math, 2403.04706). The stand-ins are those of configs/gsm8k_llama2_7b.py.
"""

from configs import gsm8k_llama2_7b
from synthrl_jax.credit.steps import SENTENCE


def get_config(smoke: bool = False):
    c = gsm8k_llama2_7b.get_config()
    c.name = "math_llama2_7b"
    math_form(c)
    if smoke:
        from experiments import smoke as small

        small.shrink(c, family="llama2", form="hendrycks_math")
    return c


def math_form(c) -> None:
    """What MATH changes: its data, sentences as steps, boxed answers, longer ones."""
    c.problems.path = "synthetic/math"
    c.problems.settings = {"evaluation": {"source": "hendrycks_math", "path": "data/math", "published": True}}
    c.validation_problems, c.test_problems = 350, 5000
    c.delimiters, c.grading = SENTENCE, "boxed_last_normalised"
    c.sample.max_tokens, c.sample.rows = 768, 32  # longer rows than GSM8K's: fewer fit
