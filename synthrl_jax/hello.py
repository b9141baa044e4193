"""The first meeting of a run's processes, before jax's own service is there: it knows who has not come."""

import contextlib
import socket
import time


def meet(coordinator: str, processes: int, index: int, seconds: float) -> None:
    """Return on all processes once all are there; process 0 listens at HOST:PORT, which is free again afterwards.

    TimeoutError, on whoever came, names those that did not within so many seconds.
    """
    host, port = coordinator.rsplit(":", 1)
    until = time.monotonic() + seconds
    if processes == 1:
        return
    if index:
        said = _go(host.strip("[]"), int(port), index, until)
        missing = said if said != "go" else ""
    else:
        missing = _gather(int(port), processes, until)
    if missing:
        raise TimeoutError(f"after {seconds:.0f} s process {missing} of {processes} has not come to {coordinator}")


def _gather(port: int, processes: int, until: float) -> str:
    """Process 0: hear from all others, then tell them to go on; the numbers of those that are missing."""
    here: dict[int, socket.socket] = {}
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("", port), family=family, dualstack_ipv6=dual, backlog=4096))
        while len(here) < processes - 1 and (left := until - time.monotonic()) > 0:
            server.settimeout(left)
            try:
                other, _ = server.accept()
            except TimeoutError:
                break
            stack.enter_context(other)
            other.settimeout(5.0)
            with contextlib.suppress(OSError, ValueError):  # a stranger says something else, or nothing
                number = int(_line(other))
                if 0 < number < processes:
                    here[number] = other
        missing = ", ".join(str(i) for i in range(1, processes) if i not in here)
        for other in here.values():
            with contextlib.suppress(OSError):
                other.sendall(f"{missing or 'go'}\n".encode())
        for other in here.values():  # they hang up first: then the port is free at once
            with contextlib.suppress(OSError):
                other.recv(1)
    return missing


def _go(host: str, port: int, index: int, until: float) -> str:
    """Another process: what process 0 answers, or its number where it is the one that is missing."""
    while (left := until - time.monotonic()) > 0:
        try:
            with socket.create_connection((host, port), timeout=left) as first:
                first.settimeout(left + 10.0)  # process 0 began its own wait later, perhaps
                first.sendall(f"{index}\n".encode())
                if said := _line(first):
                    return said
        except OSError:
            pass
        time.sleep(0.2)
    return "0"


def _line(connection: socket.socket) -> str:
    """Up to the line's end, or what came before the other side hung up."""
    data = b""
    while not data.endswith(b"\n") and len(data) < 1000 and (more := connection.recv(100)):
        data += more
    return data.decode("ascii", "replace").strip() if data.endswith(b"\n") else ""
