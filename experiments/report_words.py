"""What a report says in words, on the terminal and on the page."""

from experiments.report_credit import pit_facts
from experiments.report_data import ENOUGH_SEEDS, Report, Scores

SHOWN_STEPS = 6  # pits of later steps are told together
OTHER_OUTCOMES = {"no_answer": "without an answer", "grader_error": "not graded for an error of the grader"}


def what(report: Report) -> str:
    """One line: the source, the sizes, the seeds and the set that all is read on."""
    problems, sizes = report.config["problems"], ", ".join(f"{n:,}" for n in report.config["sizes"])
    seeds, split = len(report.config["seeds"]), report.split
    return (
        f"{problems['source']}, {sizes} training problems, {seeds} seed{'s' * (seeds > 1)}, "
        f"{report.config[f'{split}_problems']:,} {split} problems; in brackets 95 % intervals"
    )


def paragraphs(report: Report) -> list[str]:
    """For the terminal: what the learner, the samples, the pits and the pairs were, and what is missing."""
    out = [text for text in (learner(report), untrained(report), findings(report)) if text]
    if report.missing:
        out.append(f"Not finished ({len(report.missing)} cells): {', '.join(report.missing)}.")
    return out


def learner(report: Report) -> str:
    """Where the policy comes from, said plainly if it starts from nothing."""
    base = report.config["base"]
    if base["pretrained"]:
        return ""
    shape = ", ".join(f"{name} {value}" for name, value in base["decoder"].items())
    return (
        f"The learner is a small decoder from scratch ({shape}; {base['pieces']} SentencePiece pieces) that has seen nothing but "
        "the training problems: accuracy will be low. What this run shows is that every stage works on this source."
    )


def untrained(report: Report) -> str:
    """Methods that found no rows to learn from: their numbers are those of the policy that they start from."""
    idle = [s for s in report.scores if s.facts.get("train_rows") == 0]
    if not idle:
        return ""
    names = [f"{s.method} (N = {s.size:,})" if len(report.sizes) > 1 else s.method for s in idle]
    return f"No rows to learn from, so the policy is the one that the method starts from: {', '.join(names)}."


def findings(report: Report) -> str:
    """Outcomes of the samples, where the pits are, how many pairs there are, at the main size; empty before grading."""
    size = report.main_size
    facts = [f for (n, _), f in report.samples.items() if n == size]
    if not facts:
        return ""
    total = lambda name: sum(f.get(name, 0) for f in facts)  # noqa: E731
    at = f" (N = {size:,})" if len(report.sizes) > 1 else ""
    samples = max(1, total("samples"))
    outcomes = [
        f"{100 * total(f'samples_{name}') / samples:.1f} % {name.replace('_', ' ')}" for name in ("correct", "wrong")
    ]
    outcomes += [f"{total(f'samples_{name}'):,} {text}" for name, text in OTHER_OUTCOMES.items()]
    out = (
        f"Samples of pi_sft{at}: {total('samples'):,} responses to {total('samples_problems'):,} problems: "
        f"{', '.join(outcomes)}; {total('samples_problems_with_a_right_answer'):,} problems have a right answer."
    )
    pits = [row for (n, _), rows in report.pits.items() if n == size for row in rows]
    if pits:
        out += f" {_pits(pits)}"
    pairs = {name: total(f"pairs_{name}") for name in ("fork", "solution", "outcome", "edit_distance")}
    if any(pairs.values()):
        found = ", ".join(f"{count:,} {name.replace('_', '-')}" for name, count in pairs.items())
        out += f" Pairs found: {found}."
    return out


def _pits(pits: list[dict]) -> str:
    """Where pits are, and how often the oracle sees the error there."""
    facts, said = pit_facts(pits), []
    groups = {"pit": f"of {facts['pits']:,} pits"}
    if facts["usable_pits"] < facts["pits"]:
        groups["usable_pit"] = f"of the {facts['usable_pits']:,} with V > 0 before"
    for prefix, of in groups.items():
        if f"{prefix}_is_first_wrong" in facts:
            names = {"first_wrong": "are the oracle's first wrong step", "lost": "lose the answer", "either": "either"}
            shares = [f"{100 * facts[f'{prefix}_is_{name}']:.1f} % {text}" for name, text in names.items()]
            said.append(f"{of} {', '.join(shares)}")
    text = "; ".join(said) or f"there are {len(pits):,} pits"
    share = lambda steps: f"{100 * sum(row['pit'] in steps for row in pits) / len(pits):.0f} %"  # noqa: E731
    last = max(row["pit"] for row in pits)
    places = [f"{step + 1}: {share([step])}" for step in range(min(last + 1, SHOWN_STEPS))]
    places += [f"later: {share(range(SHOWN_STEPS, last + 1))}"] * (last >= SHOWN_STEPS)
    return f"{text[0].upper()}{text[1:]}. Pits by step: {', '.join(places)}."


def verdict(scores: Scores) -> str:
    """What the difference to the control says; undecided with fewer than five seeds (then it is no claim yet)."""
    seeds = len(scores.seeds)
    if seeds < ENOUGH_SEEDS:
        return f"{'one seed' if seeds == 1 else f'{seeds} seeds'}: undecided"
    if scores.difference.lo > 0:
        return "better"
    return "worse" if scores.difference.hi < 0 else "no difference shown"
