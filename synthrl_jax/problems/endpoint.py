"""An OpenAI-compatible endpoint that is asked politely: limited concurrency, retries that honour Retry-After, nothing trusted."""

import asyncio
import dataclasses
import email.utils
import hashlib
import json
import math
import random
import time
from typing import Any

from synthrl_jax.problems.ledger import BudgetSpent, Ledger
from synthrl_jax.problems.teacher import Refused

BODY_LIMIT = 8 << 20  # bytes of one answer
LONGEST_WORD = 5  # a key as short as "none" is no secret, and may be a word of the answer
LONGEST_WAIT = 600.0  # seconds, whatever Retry-After says
TRANSIENT = (408, 409, 425, 429)


class EndpointError(Exception):
    """The endpoint cannot be used at all (wrong key, unknown model, no quota), told in one line without the key."""


class GaveUp(Exception):
    """One request failed in every attempt; a later run tries it again."""


class Malformed(Exception):
    """An answer that is none; the message says why."""


@dataclasses.dataclass(frozen=True)
class EndpointSettings:
    """model and base_url (None: the client's default); sampling; limits. token_field: what the endpoint calls max_tokens.

    timeout is for a whole request, in seconds; backoff is the first wait after a failure, doubled with each further one.
    """

    model: str
    base_url: str | None = None
    temperature: float | None = 0.7
    max_tokens: int = 1024
    token_field: str = "max_tokens"
    concurrency: int = 16
    timeout: float = 180.0
    retries: int = 6
    backoff: float = 1.0


class Endpoint:
    """`ask` gives the text that the model answers to a prompt; the key never leaves this object but to the endpoint."""

    def __init__(self, settings: EndpointSettings, key: str):
        import openai

        self.settings, self._key, self._openai = settings, key, openai
        self._client = openai.AsyncOpenAI(
            api_key=key, base_url=settings.base_url, max_retries=0, timeout=settings.timeout
        )
        self._free = asyncio.Semaphore(settings.concurrency)
        self._not_before = 0.0  # a wait that the endpoint asked for holds for every request

    async def ask(self, ledger: Ledger, name: str, prompt: str) -> str:
        """The answer, from the ledger where it was paid before.

        Refused: the endpoint will not answer this prompt; GaveUp: no attempt succeeded; EndpointError: none ever will;
        BudgetSpent: from the ledger.
        """
        if name in ledger.answers:
            return ledger.answers[name]
        s = self.settings
        into = len(prompt.encode()) // 2 + 64  # more tokens than any text of so many bytes has in practice
        fault = ""
        for attempt in range(s.retries + 1):
            async with self._free:
                await asyncio.sleep(max(0.0, self._not_before - time.monotonic()))
                await self._begin(ledger, name, into)
                try:
                    text, used = await self._request(name, prompt)
                except BaseException as error:
                    fault, wait, may_be_paid = self._judge(error, attempt)
                    ledger.fail(name, fault, may_be_paid)
                    if wait is None:
                        raise self._final(error, fault) from None
                    if wait < 0:
                        raise
                else:
                    ledger.finish(name, text, *used)
                    return text
            if attempt < s.retries:
                await asyncio.sleep(wait)
        raise GaveUp(f"{s.retries + 1} attempts, the last: {fault}")

    async def _begin(self, ledger: Ledger, name: str, into: int) -> None:
        """Note the request; where the budget might not hold it, wait for what those under way leave of theirs."""
        while True:
            try:
                return ledger.begin(name, into, self.settings.max_tokens)
            except BudgetSpent:
                if not ledger.budget.busy:
                    raise
            await asyncio.sleep(0.02)

    async def _request(self, name: str, prompt: str) -> tuple[str, tuple[int, int]]:
        """(text, (tokens in, out)) of one attempt; the answer is read up to a limit and taken apart by hand."""
        s = self.settings
        body = bytearray()
        # the same for every attempt and session: an endpoint or a proxy that knows it does not charge twice
        once = {"Idempotency-Key": hashlib.sha256(f"{s.model}\0{name}\0{prompt}".encode()).hexdigest()[:32]}
        sampling: dict[str, Any] = {s.token_field: s.max_tokens}
        if s.temperature is not None:
            sampling["temperature"] = s.temperature
        async with asyncio.timeout(s.timeout):
            create = self._client.chat.completions.with_streaming_response.create
            messages = [{"role": "user", "content": prompt}]
            async with create(model=s.model, messages=messages, extra_headers=once, extra_body=sampling) as response:
                async for chunk in response.iter_bytes():
                    body += chunk
                    if len(body) > BODY_LIMIT:
                        raise Malformed(f"an answer of more than {BODY_LIMIT:,} bytes")
        return self._parse(bytes(body), prompt)

    def _parse(self, body: bytes, prompt: str) -> tuple[str, tuple[int, int]]:
        try:
            data = json.loads(body)
            message = data["choices"][0]["message"]
            text = message["content"]
            if text is None and isinstance(message, dict):
                text = ""  # a refusal: an answer, and paid
            if not isinstance(text, str):
                raise TypeError(f"content is {type(text).__name__}")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
            raise Malformed(
                self._scrub(f"an answer that is no chat completion ({type(error).__name__}: {error})")
            ) from None
        usage = data.get("usage")
        used = [
            usage.get(field) if isinstance(usage, dict) else None for field in ("prompt_tokens", "completion_tokens")
        ]
        known = [type(n) is int and 0 <= n < 10_000_000 for n in used]
        guess = [len(prompt.encode()) // 3 + 1, len(text.encode(errors="replace")) // 3 + 1]
        text = text.encode(errors="replace").decode()
        if len(self._key) > LONGEST_WORD:
            text = self._scrub(text)
        return text, tuple(n if fine else g for n, fine, g in zip(used, known, guess))

    def _judge(self, error: BaseException, attempt: int) -> tuple[str, float | None, bool]:
        """(what is said of a failure, seconds to wait (None: never again, -1: not ours), whether it may be on the bill)."""
        openai, backoff = self._openai, self.settings.backoff
        wait = min(60.0, backoff * 2**attempt) * random.uniform(0.75, 1.25)
        if isinstance(error, openai.APIStatusError):
            status = error.status_code
            fault = self._scrub(f"HTTP {status}: {' '.join(str(error.message).split())[:200]}")
            if (status not in TRANSIENT and status < 500) or getattr(error, "code", None) == "insufficient_quota":
                return fault, None, False
            asked = retry_after(error.response.headers)
            if asked is not None:
                wait = max(wait if asked == 0 else asked, 0.0)
                if status in (429, 503):
                    self._not_before = max(self._not_before, time.monotonic() + asked)
            return fault, wait, False
        if isinstance(error, TimeoutError | openai.APITimeoutError):
            return "timeout", wait, True
        if isinstance(error, Malformed):
            return str(error), wait, True
        if isinstance(error, openai.APIConnectionError):
            sent = type(error.__cause__).__name__ not in ("ConnectError", "ConnectTimeout", "PoolTimeout")
            return self._scrub(f"connection failed ({error.__cause__!r})"[:200]), wait, sent
        if isinstance(error, Exception) and type(error).__module__.split(".")[0] in (
            "httpx",
            "httpx2",
            "httpcore",
            "httpcore2",
        ):
            return self._scrub(f"connection cut ({type(error).__name__}: {error})"[:200]), wait, True
        if isinstance(error, openai.OpenAIError | UnicodeError | json.JSONDecodeError):
            return self._scrub(f"an answer that cannot be read ({type(error).__name__})"), wait, True
        return self._scrub(f"{type(error).__name__}"), -1.0, True

    def _final(self, error, fault: str) -> Exception:
        # 400, 413 and 422 are about this prompt; everything else holds for all of them
        about_prompt = error.status_code in (400, 413, 422) and getattr(error, "code", None) != "insufficient_quota"
        return Refused(fault) if about_prompt else EndpointError(f"the endpoint refuses all requests: {fault}")

    def _scrub(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text

    async def close(self) -> None:
        await self._client.close()


def retry_after(headers) -> float | None:
    """Seconds that an answer asks to wait: Retry-After in seconds or as a date, or retry-after-ms; None where it does not."""
    for field, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        value = headers.get(field)
        if value is None:
            continue
        try:
            seconds = float(value) / unit
        except ValueError:
            try:
                seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
            except (TypeError, ValueError, OverflowError):
                continue
        if math.isfinite(seconds):
            return min(max(seconds, 0.0), LONGEST_WAIT)
    return None
