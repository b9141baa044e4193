"""A problem of two steps with its graph, for tests that judge steps by hand."""

from synthrl_jax.problems.problem import Problem

QUESTION = "Fig is 10\nTea is 20\nHen is fig+tea\nOwl is hen+fig\nWhat is owl?"
GRAPH = {
    "given": {"fig": 10, "tea": 20},
    "computed": {"hen": ["fig", "+", "tea"], "owl": ["hen", "+", "fig"]},
    "asked": "owl",
}
PROBLEM = Problem("p", QUESTION, "40", "", {"graph": GRAPH})
