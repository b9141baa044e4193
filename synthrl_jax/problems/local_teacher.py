"""A teacher of our own: requests that come in together are answered together by one function, e.g. a sampler."""

import asyncio
from collections.abc import Callable, Sequence

from synthrl_jax.problems.ledger import Ledger

# (names, prompts) -> (text, tokens in, tokens out) each; a text depends on its name and prompt alone
Generate = Callable[[Sequence[str], Sequence[str]], list[tuple[str, int, int]]]


class LocalTeacher:
    """`ask` as an Endpoint's; `generate` is called with what has gathered once nothing more comes for `quiet` seconds."""

    def __init__(self, generate: Generate, quiet: float = 0.05):
        self._generate, self._quiet = generate, quiet
        self._waiting: list[tuple[Ledger, str, str, asyncio.Future]] = []
        self._timer: asyncio.TimerHandle | None = None

    async def ask(self, ledger: Ledger, name: str, prompt: str) -> str:
        """The answer, from the ledger where there is one."""
        if name in ledger.answers:
            return ledger.answers[name]
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._waiting.append((ledger, name, prompt, future))
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_later(self._quiet, self._answer)
        return await future

    def _answer(self) -> None:
        waiting, self._waiting, self._timer = self._waiting, [], None
        try:
            found = self._generate([name for _, name, _, _ in waiting], [prompt for _, _, prompt, _ in waiting])
        except Exception as error:
            for *_, future in waiting:
                if not future.done():
                    future.set_exception(error)
            return
        for (ledger, name, _, future), (text, into, out) in zip(waiting, found, strict=True):
            try:
                ledger.begin(name, into, out)
                ledger.finish(name, text, into, out)
            except Exception as error:  # the budget; in a callback nobody else would hear of it
                text = error
            if future.done():
                continue
            if isinstance(text, Exception):
                future.set_exception(text)
            else:
                future.set_result(text)

    async def close(self) -> None:
        """Nothing to close."""
