"""Every field that an experiment can set, with the defaults; each other config imports this one and changes a few lines."""

from ml_collections import ConfigDict

from experiments import crediting, training


def get_config() -> ConfigDict:
    c = ConfigDict()
    c.name = "base"
    # A file in the repository that gets a row for each finished evaluation; a run goes on from it on another machine.
    c.results = ""

    # The model that everything starts from: a directory, a shipped name, or None for a new decoder of the shape below.
    c.base = ConfigDict(
        {
            "pretrained": "arithmetic_base",
            "decoder": {"width": 128, "layers": 4, "heads": 4, "tied": True, "scan": False},
            "pieces": 512,
        }
    )
    # Problems: the source and its own settings; sizes (numbers of training problems) and seeds span the grid.
    c.problems = ConfigDict({"source": "arithmetic", "settings": {"style": 0.25}})
    c.problems.path = ""  # for sources that read files
    c.sizes = (1000,)
    c.sft_sizes = ()  # more sizes at which SFT alone is trained, for its curve
    # The N at which the methods' `updates` and the `problems` of rounds are meant, in proportion at others; 0: the same at all.
    c.updates_at = 0
    c.seeds = (0,)
    c.tune_seeds = ()  # the seeds whose validation accuracy chooses a point of each `grid`
    c.validation_problems = 512
    c.test_problems = 1024
    # a text around {question}, a word of policy/templates.py, or chat: the tokenizer's own chat template
    c.prompt = "{question}\n"
    c.delimiters = ("\n",)
    c.grading = "gsm8k_hash"
    c.mesh = ConfigDict({"data": 1, "fsdp": 1, "tensor": 1})

    # Sampling from pi_sft: n responses a problem.
    c.sample = ConfigDict({"n": 16, "temperature": 1.0, "max_tokens": 112, "shard_roots": 250})
    c.sample.sampler, c.sample.rows = "grouped", 128
    # RFT's selection of positives.
    c.positives = ConfigDict({"cap": 4, "min_distance": 0.1})
    # Monte Carlo values: how many wrong and right responses of a problem, rollouts a step; K of the best-of-K policy.
    c.monte_carlo = ConfigDict({"negatives": 4, "positives": 1, "rollouts": 8, "shard_roots": 100})
    # early_stop: "pit" or "advantage" looks at each step after `looks` rollouts and draws more, up to `rollouts`, only while its
    # interval of that level leaves open whether it is the pit, or whether A is above 0. It biases Q: see credit/early_stop.py
    c.monte_carlo.early_stop, c.monte_carlo.looks, c.monte_carlo.level = "", (5,), 0.95
    c.credit = ConfigDict(
        {"k": 5, "pit_rule": "first_pit", "rejected": "step", "limit": 1, "per_problem": 4, "threshold": 0.0}
    )
    # pit_rule: first_pit, least_advantage, "module:function", or two bounds: oracle (the first step that is truly wrong) and
    # random; which steps are pits, and how pairs are chosen and weighted by V(prefix): see experiments/crediting.py
    c.credit.update(crediting.DEFAULTS)

    optimizer = {"learning_rate": 1e-3, "schedule": "cosine", "warmup": 0.1, "final": 0.05, "weight_decay": 0.01}
    optimizer |= {"clip": 1.0, "b1": 0.9, "b2": 0.98}
    # updates 0: as many as `epochs` gives; micro 0: the whole batch at once; patience 0: never stop early.
    c.train = ConfigDict({"batch": 16, "micro": 0, "epochs": 1.0, "updates": 0, "looks": 4, "patience": 0})
    c.train.optimizer = ConfigDict(optimizer)
    c.train.loss_args = ConfigDict(convert_dict=False)
    # packing, LoRA, memory, checkpoints: see experiments/training.py; optimizer.name: adamw or adafactor; bad: stop or skip
    # updates whose loss is not finite or a spike of so many standard deviations.
    c.train.update(training.DEFAULTS)
    c.train.optimizer.update(training.OPTIMIZER_DEFAULTS)
    # What differs from `train` for SFT and for each method that is run; the keys are the names in the table. An entry may also
    # have `grid`, e.g. {"optimizer": {"learning_rate": (1e-4, 3e-4)}}: the best point by validation is the policy of every seed;
    # `credit` and `monte_carlo` of its own; and `rounds` {count, problems, reference: "round" or "sft", sample}: so many rounds
    # of sample, grade, values, credit and train, each on fresh samples of the next slice of so many problems.
    c.sft = ConfigDict({"epochs": 8.0, "looks": 8})
    # What differs from `sft` at a size, as more problems want other rates: {"8000": {"optimizer": {"learning_rate": 1e-3}}}; a
    # grid there takes the place of that of `sft`.
    c.sft_by_size = ConfigDict()
    c.methods = ConfigDict()
    c.titles = ConfigDict()  # a method's words in the study's table, where they are not its name
    # Which method claim C6 is read from, and the size of all claims; 0: the largest size of which SFT's curve reaches 16 times.
    c.main_method, c.main_size = "dpo_per_step", 0
    c.main_outcome = "dpo_outcome"  # what it is held against: the same wrong answers without credit for steps (C5)
    c.drift = 0  # so many of pi_sft's responses show how far each method moved right and wrong steps; needs problems with a graph

    # Looks at validation are greedy; evaluation adds n samples a problem for pass@k. split: what the table shows: `validation`
    # while a study makes its choices, `test` once they are made. max_tokens, rows, sampler and stop_strings are those of `sample`
    # unless they stand here too; top_k and top_p hold only where they stand here.
    c.evaluate = ConfigDict({"n": 10, "k": 5, "temperature": 1.0, "split": "test"})
    # More sets to evaluate every policy on, out of distribution: sources whose test files are in also_path, for example
    # ("svamp", "multiarith", "gsm_hard"); each is a column of the table.
    c.evaluate.also, c.evaluate.also_path = (), ""
    return c
