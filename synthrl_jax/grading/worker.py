"""One grading process: length-prefixed JSON over its standard input and output, under limits that the kernel keeps."""

import contextlib
import json
import os
import resource
import signal
import struct
import sys
import threading
import time

from synthrl_jax.grading import numeric

HEADER = struct.Struct(">I")


def send(file, message: object) -> None:
    """Write one message."""
    data = json.dumps(message).encode()
    file.write(HEADER.pack(len(data)) + data)
    file.flush()


def receive(file) -> object | None:
    """Read one message; None at the end of the stream."""
    head = file.read(HEADER.size)
    if len(head) < HEADER.size:
        return None
    (size,) = HEADER.unpack(head)
    data = file.read(size)
    return None if len(data) < size else json.loads(data)


def confine(memory_mb: int) -> None:
    """Take memory, core files and the making of files and processes away from this process."""
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def _leave_with(parent: int) -> None:
    """End this process when its parent has ended, also where its last item hangs."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(0)


def _grader(path: str):
    """The function (gold, prediction) -> (outcome, reason) that `module:function` names."""
    module, _, name = path.partition(":")
    __import__(module)
    return getattr(sys.modules[module], name)


def main(argv: list[str]) -> None:
    """`worker GRADER SECONDS MEMORY_MB`: answer each [gold, prediction] with [outcome, reason, whether it retires]."""
    path, seconds, memory_mb = argv[0], float(argv[1]), int(argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is printed here must not mix with replies
    requests = os.fdopen(os.dup(0), "rb")
    grader = _grader(path)
    for digits in (numeric.DIGITS, numeric.MORE_DIGITS):
        numeric.context(digits)  # built before the first item's time runs
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()
    confine(memory_mb)
    send(replies, "ready")
    while (request := receive(requests)) is not None:
        # the default action of the alarm ends the process, even in a loop that holds the interpreter
        signal.setitimer(signal.ITIMER_REAL, seconds + 1)
        try:
            reply = list(grader(*request))
        except MemoryError:
            reply = ["grader_error", "out of memory"]
        except RecursionError:
            reply = ["grader_error", "nested too deeply"]
        except Exception as error:
            reply = ["grader_error", f"{type(error).__name__}: {error}"[:200]]
        signal.setitimer(signal.ITIMER_REAL, 0)
        last = reply[1] == "out of memory"  # what it has hoarded stays: a fresh process takes over
        send(replies, [*reply[:2], last])
        if last:
            return


if __name__ == "__main__":
    main(sys.argv[1:])
