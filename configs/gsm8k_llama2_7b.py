"""The paper's first setting: Llama-2-7B on synthetic problems like GSM8K's, tested on GSM8K (claims C1, C2, C5, C6, C8).

Hardware: 64 chips of TPU v5e (mesh fsdp = 64; others with --config.mesh.fsdp). Time, memory and cost before anything is
paid for:
    python -m experiments.plan --config=configs/gsm8k_llama2_7b.py --topology=v5e:8x8
What is needed, and where (other places by --config.base.pretrained, .problems.path, .problems.settings.evaluation.path):
    models/Llama-2-7b-hf   meta-llama/Llama-2-7b-hf from Hugging Face, after accepting Meta's licence: config.json, *.safetensors
                           with their index, tokenizer.model (13.5 GB)
    data/gsm8k             train.jsonl and test.jsonl from github.com/openai/grade-school-math, grade_school_math/data
    synthetic/gsm8k        made by the first command, with a capable model behind any OpenAI-compatible endpoint
Commands, in order:
    python -m experiments.synthesize --seeds=gsm8k --seeds_path=data/gsm8k --count=260000 --out=synthetic/gsm8k --model=MODEL \\
        --base_url=https://HOST/v1 --price_in=P --price_out=Q --budget_money=M
    python -m experiments.run --config=configs/gsm8k_llama2_7b.py --workdir=gs://BUCKET/gsm8k_llama2_7b --distributed=auto
Also out of distribution, with svamp.jsonl, multiarith.jsonl and gsm_hard.jsonl in data/ood, a column of the table each:
    --config.evaluate.also="('svamp','multiarith','gsm_hard')" --config.evaluate.also_path=data/ood
One CPU, the same code, a tiny random model, minutes, and numbers that mean nothing:
    python -m experiments.run --config=configs/gsm8k_llama2_7b.py --config.smoke=True --workdir=runs/smoke \\
        --config.problems.path=data/gsm8k

Expected. From the paper: test error falls about as D^-0.15 with the number D of synthetic problems; RFT is worth 2 x the
problems and per-step DPO 8 x, i.e. at equal D their errors are 0.90 and 0.73 of SFT's. From others: this base answers 14.6
% with 8 examples in the prompt (Touvron et al. 2023); fine-tuned on GSM8K's own 7,473 problems 41.6 %, with RFT of 100
samples 47.5 % (Yuan et al. 2308.01825); on 960 k synthetic problems 82.6 % (Xwin-Math, 2403.04706). Our own stand-ins, as
the paper's values are not known to us: learning rates, batches, epochs, beta, temperature, samples a problem, the prompt,
and how teacher answers are verified (2 of 3 agree).
"""

from configs import base
from synthrl_jax.credit.steps import LINE
from synthrl_jax.policy.templates import TEMPLATES

# of the released config.json: for planning where the weights are not at hand
LLAMA2_7B = {"vocab_size": 32_000, "width": 4096, "layers": 32, "heads": 32, "mlp_width": 11_008, "max_positions": 4096}


def get_config(smoke: bool = False):
    c = base.get_config()
    c.name = "gsm8k_llama2_7b"
    c.base.pretrained = "models/Llama-2-7b-hf"
    c.base.shape = LLAMA2_7B
    c.problems.source, c.problems.path = "synthetic", "synthetic/gsm8k"
    c.problems.settings = {"evaluation": {"source": "gsm8k", "path": "data/gsm8k", "published": True}}
    # methods at two sizes; SFT up to 16 times the smaller one, so that a multiple of 8 can be read from its curve
    c.sizes, c.sft_sizes, c.seeds = (8_000, 16_000), (32_000, 64_000, 128_000), (0,)
    c.validation_problems, c.test_problems = 700, 1319
    c.prompt, c.delimiters, c.grading = TEMPLATES["llama2"], LINE, "gsm8k_hash"
    c.mesh = {"data": 1, "fsdp": 64, "tensor": 1}
    # rows: what a v5e host of four chips holds beside the weights; v5p and v6e hold four times as many
    c.sample.update({"n": 16, "temperature": 0.8, "max_tokens": 384, "rows": 64, "shard_roots": 256})
    c.positives.cap = 4
    c.monte_carlo.update({"negatives": 8, "positives": 1, "rollouts": 8, "shard_roots": 256})
    c.evaluate.update({"n": 16, "k": 5, "temperature": 0.8})
    c.train.update({"batch": 128, "epochs": 3.0, "looks": 3})
    c.train.update({"remat": "full", "attention": "splash", "vocab_chunk": 8_192})
    c.train.optimizer.update({"learning_rate": 1e-5, "warmup": 0.03, "final": 0.0, "weight_decay": 0.0, "b2": 0.95})
    c.sft = {"epochs": 3.0, "looks": 3}
    pairs = {"batch": 128, "epochs": 1.0, "looks": 2, "optimizer": {"learning_rate": 5e-7, "warmup": 0.1}}
    pairs |= {"loss_args": {"beta": 0.1, "nll": 0.0}}
    rows = {"batch": 128, "epochs": 1.0, "looks": 2, "optimizer": {"learning_rate": 2e-6, "warmup": 0.1}}
    c.methods = {
        "rft": {"epochs": 3.0, "looks": 3},
        "dpo_outcome": pairs,
        "dpo_edit_distance": pairs,
        "dpo_per_step": pairs,
        "dpo_per_step_solution": pairs,
        "advantage_weighted": rows | {"loss_args": {"beta": 0.3, "max_weight": 20.0}},
        "advantage_filtered": rows,
    }
    if smoke:
        from experiments import smoke as small

        small.shrink(c, family="llama2", form="gsm8k")
    return c
