"""An OpenAI-compatible endpoint on loopback: a teacher of sums that misbehaves as it is told, and counts what it is paid for."""

import collections
import email.utils
import hashlib
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "sk-loopback-secret-0123456789"


def number(text, low, high):
    return low + int(hashlib.sha256(text.encode()).hexdigest(), 16) % (high - low)


def answer(prompt, name):
    """What the teacher says: problems are sums, a fifth of them are faulty at first, a fifth of the solutions are wrong."""
    inside = re.findall(r"<problem>\s*(.*?)\s*</problem>", prompt, re.DOTALL)[0]
    if prompt.startswith("Here is"):
        a, b = number(name + "a", 2, 900), number(name + "b", 2, 900)
        fault = " Nobody knows." if number(name, 0, 5) == 0 else ""
        person = f"Tom{number(name + 'c', 0, 10**6)}"
        return f"Gladly!\n<problem>\n{person} has {a} figs and buys {b}.{fault} How many figs has {person} now?\n</problem>"
    if prompt.startswith("Check"):
        return "It says...\nVerdict: bad: nobody knows." if "Nobody knows" in inside else "Fine.\n**Verdict: good**"
    if "has a fault" in prompt:
        return f"<problem>{inside.replace(' Nobody knows.', '')}</problem>"
    a, b = map(int, re.findall(r" (\d+)", inside))
    total = a + b + (number(name + "wrong", 0, 5) == 0) * number(name, 1, 50)
    return f"{a} figs and {b} figs are {a} + {b} = {total} figs.\n#### {total:,}"


class Server:
    """faults: request number (from 0) -> word; `paid` counts whole good answers by the request's idempotency key."""

    def __init__(self, fault=lambda number, name: None, pause_after=None, say=answer):
        """pause_after: that many paid answers, and further requests are held until `go`, and then not answered."""
        self.fault, self.say = fault, say
        self.paid, self.seen, self.times = collections.Counter(), collections.Counter(), []
        self.tokens, self.busy, self.most_busy = [0, 0], 0, 0
        self.lock, self.go, self.pause_after = threading.Lock(), threading.Event(), pause_after
        self.paused = threading.Event()
        if pause_after is None:
            self.go.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_POST(self):
                outer.handle(self)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.http.handle_error = lambda *_: None  # a client that went away
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def close(self):
        self.go.set()
        self.http.shutdown()
        self.http.server_close()

    def handle(self, http):
        request = json.loads(http.rfile.read(int(http.headers["Content-Length"])))
        name, prompt = http.headers["Idempotency-Key"], request["messages"][0]["content"]
        with self.lock:
            number = sum(self.seen.values())
            self.seen[name] += 1
            self.times.append((time.monotonic(), number))
            self.busy += 1
            self.most_busy = max(self.most_busy, self.busy)
            hold = self.pause_after is not None and sum(self.paid.values()) >= self.pause_after
        try:
            if hold:
                self.paused.set()
                self.go.wait(60)
                return  # whoever asked is dead
            time.sleep(0.005)
            word = self.fault(number, name)
            if http.headers["Authorization"] != f"Bearer {KEY}":
                return self.reply(http, 401, {"error": {"message": f"no such key {http.headers['Authorization']}"}})
            if word:
                return getattr(self, word)(http, prompt, name)
            self.good(http, prompt, name)
        except OSError:
            pass  # the client went away
        finally:
            with self.lock:
                self.busy -= 1

    def reply(self, http, status, body, headers=()):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        http.send_response(status)
        for field, value in (("Content-Type", "application/json"), ("Content-Length", str(len(data))), *headers):
            http.send_header(field, value)
        http.end_headers()
        http.wfile.write(data)

    def good(self, http, prompt, name, text=None):
        text = self.say(prompt, name) if text is None else text
        usage = {"prompt_tokens": len(prompt) // 4, "completion_tokens": len(text) // 4 + 1}
        body = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "usage": usage}
        body["choices"] = [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}]
        with self.lock:
            self.paid[name] += 1
            self.tokens[0] += usage["prompt_tokens"]
            self.tokens[1] += usage["completion_tokens"]
        self.reply(http, 200, body)

    def busy_429(self, http, prompt, name):
        self.reply(http, 429, {"error": {"message": "slow down"}}, [("Retry-After", "0.3")])

    def busy_date(self, http, prompt, name):
        date = email.utils.formatdate(time.time() + 1, usegmt=True)
        self.reply(http, 503, {"error": {"message": "later"}}, [("Retry-After", date)])

    def error_500(self, http, prompt, name):
        self.reply(http, 500, b"<html>oops</html>")

    def slow(self, http, prompt, name):
        time.sleep(8)

    def cut(self, http, prompt, name):
        http.send_response(200)
        http.send_header("Content-Length", "5000")
        http.end_headers()
        http.wfile.write(b'{"choices": [{"mess')
        http.wfile.flush()
        http.connection.close()

    def not_json(self, http, prompt, name):
        self.reply(http, 200, b"\xff\xfe not json {")

    def wrong_types(self, http, prompt, name):
        self.reply(http, 200, {"choices": [{"message": {"content": {"a": 1}}}], "usage": "much"})

    def nested(self, http, prompt, name):
        self.reply(http, 200, b"[" * 200_000)

    def huge(self, http, prompt, name):
        http.send_response(200)
        http.send_header("Content-Length", str(1 << 40))
        http.end_headers()
        while True:
            http.wfile.write(b" " * (1 << 20))

    def no_choices(self, http, prompt, name):
        self.reply(http, 200, {"choices": []})

    def refused(self, http, prompt, name):
        self.reply(http, 400, {"error": {"message": "content policy", "code": "content_filter"}})

    def quota(self, http, prompt, name):
        self.reply(http, 429, {"error": {"message": "pay first", "code": "insufficient_quota"}})


FAULTS = (
    "busy_429",
    "busy_date",
    "error_500",
    "slow",
    "cut",
    "not_json",
    "wrong_types",
    "nested",
    "huge",
    "no_choices",
)
