"""Verdicts of one grader on (gold, prediction, ...) rows from standard input, timed without its imports."""

import json
import sys
import time


def ours():
    """synthrl_jax's grader."""
    from synthrl_jax.grading import equivalent

    return equivalent


def math_verify():
    """math-verify's, each answer between dollar signs as its documentation asks; exit 3 where it is not installed."""
    try:
        import math_verify as peer
    except ImportError:
        sys.exit(3)

    def verdict(gold: str, prediction: str) -> bool:
        parsed = [peer.parse(f"${answer}$", parsing_timeout=None) for answer in (gold, prediction)]
        return bool(peer.verify(*parsed, timeout_seconds=None))

    return verdict


def main() -> None:
    """`math_verify_peer.py GRADER`: prints {"seconds": ..., "verdicts": [...]}."""
    rows = json.load(sys.stdin)
    verdict = ours() if sys.argv[1] == "synthrl_jax" else math_verify()
    verdict(r"\frac{1}{2}+\sqrt{3}", r"\sqrt{3}+0.5")  # grammars and tables are built on first use
    verdicts = []
    start = time.process_time()
    for gold, prediction, *_ in rows:
        try:
            verdicts.append(verdict(gold, prediction))
        except Exception:
            verdicts.append(None)
    seconds = time.process_time() - start
    print(json.dumps({"seconds": seconds, "verdicts": verdicts}))


if __name__ == "__main__":
    main()
