"""`/health`, again and again, from a process of its own: ``python health_probe.py PORT SECONDS`` writes the seconds as JSON.

A client in the event loop of a thousand others measures its own loop. This one imports nothing that is heavy and does
nothing else; what it waits for is the server and the machine.
"""

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

REQUEST = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
PAUSE_SECONDS = 0.01


def probe(port: int, seconds: float) -> list[float]:
    """Half on one connection that is kept, half each on a new one."""
    found, ends, kept = [], time.monotonic() + seconds, socket.create_connection(("127.0.0.1", port), timeout=60)
    while time.monotonic() < ends:
        found.append(asked(kept))
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", port), timeout=60) as fresh:
            asked(fresh)
            found.append(time.monotonic() - began)
        time.sleep(PAUSE_SECONDS)
    kept.close()
    return found


def asked(connection: socket.socket) -> float:
    began, reply = time.monotonic(), b""
    connection.sendall(REQUEST)
    while not reply.endswith(b"}"):
        part = connection.recv(65536)
        assert part, "the server closed"
        reply += part
    assert b'"status":"ok"' in reply, reply
    return time.monotonic() - began


@contextlib.contextmanager
def probing(port: int, seconds: float) -> Iterator[list[float]]:
    """Probe meanwhile; the list is filled, and sorted, at the end."""
    found: list[float] = []
    process = subprocess.Popen([sys.executable, __file__, str(port), str(seconds)], stdout=subprocess.PIPE)
    yield found
    found += sorted(json.loads(process.communicate(timeout=120)[0]))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(probe(int(sys.argv[1]), float(sys.argv[2]))))
