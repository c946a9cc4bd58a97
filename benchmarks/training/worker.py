"""A contestant's side of the contest: one process that works when it is told to, and waits without using the processor.

A line of JSON each way. The worker says ``ready`` when it is warm; ``{"go": n}`` makes it do n steps, which it answers with
``done``; ``{"stop": true}`` (or the driver's end) makes it say ``stopped`` and end. What libraries print goes to stderr.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Take = Callable[[int], dict[str, Any]]
"""n steps; returns what is to be reported, at least ``amount``: how much work that was, in the unit of the contest."""


class Channel:
    """The two pipes; making it turns everything else that is printed to stderr."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def say(self, event: str, **facts: Any) -> None:
        """Tell the driver."""
        self._out.write(json.dumps({"event": event, **facts}) + "\n")
        self._out.flush()

    def hear(self) -> dict[str, Any]:
        """Wait for the driver; that it is gone means stop."""
        line = sys.stdin.readline()
        return json.loads(line) if line else {"stop": True}

    def next_turn(self) -> tuple[int | None, float]:
        """Steps of the next turn, None for the end, and seconds of processor time that waiting for it took."""
        before = time.process_time()
        message = self.hear()
        return message.get("go"), time.process_time() - before


def serve(channel: Channel, take: Take, *, device: torch.device, warmup: int, facts: dict[str, Any]) -> None:
    """Warm up, then a turn whenever the driver says so.

    Args:
        warmup: steps before the contest, compilation included.
        facts: to be reported as they are, with what warming up showed.
    """
    begin = time.perf_counter()
    take(max(1, warmup - 1))
    wait(device)
    warm = time.perf_counter()
    reply = take(1)
    wait(device)
    # The limit measures a part of a step, and says what all of it takes.
    seconds = reply.get("seconds", time.perf_counter() - warm)
    channel.say("ready", warmup_seconds=warm - begin, step_seconds=seconds, **facts)
    n, idle = channel.next_turn()
    while n is not None:
        begin = time.perf_counter()
        reply = take(n)
        wait(device)
        channel.say("done", **{"seconds": time.perf_counter() - begin, "idle_cpu_seconds": idle, **reply})
        n, idle = channel.next_turn()
    channel.say("stopped", **peaks(device))


def wait(device: torch.device) -> None:
    """Until everything queued on a GPU is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peaks(device: torch.device) -> dict[str, int]:
    """The most memory that this process ever held: ``rss`` of the machine, ``cuda`` of a GPU."""
    found = {"rss": status_bytes("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    if device.type == "cuda":
        found["cuda"] = torch.cuda.max_memory_allocated(device)
    return found


def status_bytes(field: str) -> int:
    """A size from the kernel's notes on this process; ``VmHWM``, unlike ``ru_maxrss``, is not inherited from the parent."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), 0)


def imported() -> dict[str, Any]:
    """What a process is before it has built anything: memory after its imports, threads, version of PyTorch."""
    return {"imported_rss": status_bytes("VmRSS"), "threads": torch.get_num_threads(), "torch": torch.__version__}
