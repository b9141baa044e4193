"""What the training bench trains on: random tokens at real lengths, and per-step pairs as the method makes them."""

import numpy as np

from synthrl_jax.credit.example import Example

# (question, solution) of every 39th of GSM8K's 7,473 training rows, in tokens of a 4,096-piece BPE trained on them
GSM8K_LENGTHS = (
    (43, 47), (100, 100), (68, 63), (102, 136), (69, 98), (49, 90), (69, 165), (83, 73), (38, 37), (63, 65), (58,
    59), (72, 108), (88, 187), (39, 35), (43, 39), (62, 67), (49, 54), (51, 125), (47, 65), (38, 78), (43, 56),
    (103, 162), (97, 154), (52, 88), (44, 39), (62, 71), (33, 42), (68, 84), (63, 57), (40, 73), (77, 152), (46,
    52), (54, 45), (86, 133), (73, 66), (63, 127), (86, 82), (78, 189), (43, 96), (52, 121), (83, 114), (49, 43),
    (60, 122), (80, 136), (80, 74), (61, 62), (37, 70), (57, 94), (86, 81), (45, 104), (57, 70), (82, 60), (80,
    182), (151, 147), (50, 71), (58, 82), (54, 70), (52, 110), (53, 71), (40, 69), (116, 128), (66, 124), (54, 63),
    (91, 106), (81, 142), (51, 73), (64, 85), (55, 58), (58, 98), (40, 38), (55, 73), (50, 65), (78, 78), (133,
    111), (37, 57), (44, 45), (41, 46), (91, 46), (101, 55), (47, 44), (41, 92), (71, 102), (81, 110), (35, 48),
    (36, 104), (74, 82), (158, 80), (58, 90), (105, 128), (59, 80), (81, 94), (42, 48), (63, 114), (60, 54), (65,
    97), (69, 109), (84, 60), (65, 59), (185, 237), (57, 97), (36, 113), (84, 141), (34, 47), (53, 61), (43, 69),
    (157, 72), (59, 208), (75, 156), (97, 76), (105, 85), (79, 73), (32, 39), (54, 54), (80, 172), (103, 101), (77,
    106), (49, 75), (65, 127), (47, 62), (50, 76), (47, 63), (64, 89), (67, 67), (62, 97), (72, 54), (54, 50), (92,
    155), (65, 58), (86, 58), (47, 122), (52, 105), (55, 142), (67, 76), (61, 43), (59, 123), (38, 171), (87, 109),
    (38, 53), (107, 151), (48, 64), (105, 116), (72, 97), (41, 72), (39, 112), (103, 148), (63, 90), (62, 87), (66,
    176), (64, 100), (81, 104), (63, 100), (60, 62), (66, 152), (120, 132), (101, 190), (28, 64), (41, 71), (143,
    192), (56, 113), (62, 114), (41, 137), (81, 153), (45, 83), (84, 116), (87, 91), (39, 72), (79, 83), (38, 54),
    (74, 110), (84, 73), (90, 153), (100, 269), (71, 75), (96, 200), (85, 126), (64, 69), (47, 103), (38, 45), (57,
    70), (71, 80), (49, 91), (74, 101), (64, 121), (84, 57), (50, 57), (90, 187), (53, 37), (43, 91), (60, 108),
    (111, 284), (60, 98), (43, 63),
)  # fmt: skip
# per-step pairs: a prompt, wrong responses of so many steps each, pits spread over them, so many right continuations of each
PROMPT, STEPS, STEP = 120, 8, 15
CHOSEN, WRONG = 4, 3  # chosen per pit; wrong responses, hence pits, per problem


def solutions(vocab: int, seed: int = 0) -> list[Example]:
    """Rows at GSM8K's lengths, the solution's tokens counted."""
    random = np.random.default_rng(seed)
    return [Example(random.integers(4, vocab, q + a), np.arange(q + a) >= q) for q, a in GSM8K_LENGTHS]


def step_pairs(problems: int, vocab: int, seed: int = 0) -> list[Example]:
    """Fork pairs: the shared prefix ends before the pit, a step that is rejected; chosen are whole right continuations.

    Steps and continuations vary by a third around their means; pits lie on the 2nd to 7th step of 8.
    """
    random = np.random.default_rng(seed)
    draw = lambda mean: random.integers(4, vocab, max(2, round(mean * random.uniform(2 / 3, 4 / 3))))  # noqa: E731
    out = []
    for problem in range(problems):
        prompt = random.integers(4, vocab, PROMPT)
        for response in range(WRONG):
            pit = int(random.integers(1, STEPS - 1))
            prefix = np.concatenate([prompt, *(draw(STEP) for _ in range(pit))])
            rejected = np.concatenate([prefix, draw(STEP)])
            for k in range(CHOSEN):
                chosen = np.concatenate([prefix, draw(STEP * (STEPS - pit))])
                for role, tokens in (("chosen", chosen), ("rejected", rejected)):
                    ref = -random.random(len(tokens)).astype(np.float32)
                    mask = np.arange(len(tokens)) >= len(prefix)
                    pair = (f"{problem} {response} {k}", role)
                    out.append(Example(tokens, mask, pair=pair, ref_logprobs=ref, meta={"problem_id": str(problem)}))
    return out
