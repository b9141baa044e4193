"""What was asked of a paid endpoint: every request is noted before it is sent and every answer before it is used.

So a killed run finds each answer that reached it and pays for none twice; what was under way at the kill counts as spent.
"""

import dataclasses
import json
import os
import threading
from typing import Any

KINDS = ("paid", "uncertain", "open")


class BudgetSpent(Exception):
    """The next request might go beyond the budget; the message says which part of it."""


@dataclasses.dataclass
class Tokens:
    """Tokens into and out of a model."""

    into: int = 0
    out: int = 0

    def add(self, into: int, out: int) -> None:
        self.into, self.out = self.into + into, self.out + out


class Budget:
    """Tokens and money of a whole run, over all of its sessions.

    paid: answered. uncertain: sent, but the answer never came (a timeout, a cut connection, a kill): it may be on the bill, so
    it counts. open: the most that requests under way can take. Prices are money per million tokens in and out.
    """

    def __init__(
        self, tokens: int | None = None, money: float | None = None, price_in: float = 0.0, price_out: float = 0.0
    ):
        if money is not None and not price_in and not price_out:
            raise ValueError("a budget in money needs the prices per million tokens")
        self.limit_tokens, self.limit_money = tokens, money
        self.price_in, self.price_out = price_in, price_out
        self.spent = {kind: Tokens() for kind in KINDS}
        self.requests, self.failures = 0, 0

    def money(self, *kinds: str) -> float:
        into, out = (sum(getattr(self.spent[kind], side) for kind in kinds) for side in ("into", "out"))
        return (into * self.price_in + out * self.price_out) / 1e6

    def require(self, into: int, out: int) -> None:
        """BudgetSpent if a request of at most so many tokens might not fit any more."""
        total = sum(t.into + t.out for t in self.spent.values()) + into + out
        if self.limit_tokens is not None and total > self.limit_tokens:
            raise BudgetSpent(f"the next request might go beyond the budget of {self.limit_tokens:,} tokens")
        price = self.money(*KINDS) + (into * self.price_in + out * self.price_out) / 1e6
        if self.limit_money is not None and price > self.limit_money:
            raise BudgetSpent(f"the next request might go beyond the budget of {self.limit_money:g} in money")

    @property
    def busy(self) -> bool:
        """Whether requests are under way, which may take less than they could."""
        return bool(self.spent["open"].into)

    def totals(self) -> dict[str, Any]:
        """Numbers for a report; what is still open counts as uncertain."""
        paid, uncertain = self.spent["paid"], self.spent["uncertain"]
        return {
            "requests_answered": self.requests, "requests_failed": self.failures, "tokens_in": paid.into,
            "tokens_out": paid.out, "money": round(self.money("paid"), 6),
            "uncertain_tokens": uncertain.into + uncertain.out, "uncertain_money": round(self.money("uncertain"), 6),
        }  # fmt: skip

    def restore(self, totals: dict[str, Any]) -> None:
        """Add what an earlier session noted by `Ledger.totals`."""
        self.requests += totals["requests"]
        self.failures += totals["failures"]
        for kind in ("paid", "uncertain"):
            self.spent[kind].add(*totals[kind])


class Ledger:
    """The requests of one shard in a JSONL file, which is read back where it exists; a torn last line is cut off."""

    def __init__(self, path, budget: Budget):
        self.path, self.budget, self._lock = path, budget, threading.Lock()
        self.answers: dict[str, str] = {}
        self._sent: dict[str, tuple[int, int]] = {}
        self._totals = {"requests": 0, "failures": 0, "paid": [0, 0], "uncertain": [0, 0]}
        self._file = open(path, "a+b")  # noqa: SIM115 - open as long as the ledger
        self._file.seek(0)
        whole = 0
        for line in self._file:
            if not line.endswith(b"\n"):
                break
            whole += len(line)
            self._read(json.loads(line))
        self._file.truncate(whole)
        for into, out in self._sent.values():  # under way when the last session ended
            self._count("uncertain", into, out)
        self._sent.clear()
        budget.restore(self._totals)

    def _read(self, row: dict[str, Any]) -> None:
        if "sent" in row:
            if row["key"] in self._sent:  # a session was killed between the two
                self._count("uncertain", *self._sent[row["key"]])
            self._sent[row["key"]] = tuple(row["sent"])
        elif "answer" in row:
            self._sent.pop(row["key"], None)
            self.answers[row["key"]] = row["answer"]
            self._totals["requests"] += 1
            self._count("paid", *row["tokens"])
        else:
            self._sent.pop(row["key"], None)
            self._totals["failures"] += 1
            self._count("uncertain", *row["uncertain"])

    def _count(self, kind: str, into: int, out: int) -> None:
        self._totals[kind][0] += into
        self._totals[kind][1] += out

    def _write(self, row: dict[str, Any], durable: bool = False) -> None:
        with self._lock:
            self._file.write(json.dumps(row).encode() + b"\n")
            self._file.flush()
            if durable:
                os.fsync(self._file.fileno())

    def begin(self, key: str, into: int, out: int) -> None:
        """Note a request of at most so many tokens, before it is sent. BudgetSpent: it must not be."""
        self.budget.require(into, out)
        self._write({"key": key, "sent": [into, out]})
        self._sent[key] = (into, out)
        self.budget.spent["open"].add(into, out)

    def finish(self, key: str, answer: str, into: int, out: int) -> None:
        """Note an answer and what it cost; from here on it is never asked for again."""
        self._write({"key": key, "answer": answer, "tokens": [into, out]}, durable=True)
        self.answers[key] = answer
        self._close(key)
        self._totals["requests"] += 1
        self._count("paid", into, out)
        self.budget.requests += 1
        self.budget.spent["paid"].add(into, out)

    def fail(self, key: str, reason: str, may_be_paid: bool) -> None:
        """Note that no answer came."""
        uncertain = self._sent[key] if may_be_paid else (0, 0)
        self._write({"key": key, "failed": reason, "uncertain": uncertain})
        self._close(key)
        self._totals["failures"] += 1
        self._count("uncertain", *uncertain)
        self.budget.failures += 1
        self.budget.spent["uncertain"].add(*uncertain)

    def _close(self, key: str) -> None:
        into, out = self._sent.pop(key)
        self.budget.spent["open"].add(-into, -out)

    def totals(self) -> dict[str, Any]:
        """What this shard took, for `Budget.restore`."""
        return self._totals

    def close(self) -> None:
        self._file.close()
