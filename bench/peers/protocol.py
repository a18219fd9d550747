"""What the Python peers share: the conversation with the benchmark, threads, memory, and reading a workload's file.

A peer reads one JSON request a line from standard input and answers each with one JSON line. Models stand elsewhere.
"""

import json
import os
import sys
import time
import traceback

import numpy as np


def limit_threads(count):
    """To be called before a framework is imported: its pools look at these when they start."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(count)
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, allowed[:count])


def status_mb(field):
    """Megabytes of a field of /proc/self/status; None where there is no /proc."""
    if not os.path.exists("/proc/self/status"):
        return None
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith(field + ":"):
                return int(line.split()[1]) / 1024
    raise RuntimeError(f"no {field} in /proc/self/status")


def reset_peak():
    """Let the kernel forget the highest resident size so far (VmHWM)."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


class File:
    """Arrays of a workload: 4-byte floats and integers one after another, in the order that its description names."""

    def __init__(self, path):
        self.bytes = np.fromfile(path, dtype=np.uint8)

    def array(self, entry):
        size = int(np.prod(entry["shape"], dtype=np.int64))
        dtype = np.float32 if entry["dtype"] == "f32" else np.int32
        part = self.bytes[entry["offset"] : entry["offset"] + 4 * size]
        return part.view(dtype).reshape(entry["shape"]).copy()


def reply(value):
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def serve(version, load_step, load_op):
    """Answer requests until the input ends.

    `load_step(workload)` gives an object with `step()` → a loss that is not waited for, and `wait(loss)` → a number.
    `load_op(op, arrays)` gives `run()` → a result that is not waited for, `wait(result)`, and `arrays(result)`.
    """
    subject = None
    reply({"version": version})
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer, subject = respond(request, subject, load_step, load_op)
        except Exception as error:  # whatever a framework throws belongs into the report
            traceback.print_exc(file=sys.stderr)
            answer = {"error": f"{type(error).__name__}: {error}".strip().splitlines()[0]}
        reply(answer)


def respond(request, subject, load_step, load_op):
    kind = request["do"]
    if kind == "load":
        before = status_mb("VmRSS")
        start = time.perf_counter()
        subject = load_step(request["workload"])
        loss = subject.wait(subject.step())
        return {"loss": loss, "first_ms": (time.perf_counter() - start) * 1e3, "rss_before_mb": before}, subject
    if kind == "steps":
        return {"losses": [subject.wait(subject.step()) for _ in range(request["count"])]}, subject
    if kind == "burst":
        subject.wait(subject.step())
        start = time.perf_counter()
        for _ in range(request["count"]):
            loss = subject.step()
        subject.wait(loss)
        return {"ms": (time.perf_counter() - start) * 1e3}, subject
    if kind == "memory":
        reset_peak()
        for _ in range(request["count"]):
            subject.wait(subject.step())
        return {"peak_mb": status_mb("VmHWM")}, subject
    if kind == "op":
        file = File(request["file"])
        subject = load_op(request["op"], [file.array(entry) for entry in request["arrays"]])
        result = subject.run()
        subject.wait(result)
        return {"sums": [float(np.abs(array.astype(np.float64)).mean()) for array in subject.arrays(result)]}, subject
    if kind == "turns":
        subject.wait(subject.run())
        start = time.perf_counter()
        for _ in range(request["count"]):
            result = subject.run()
        subject.wait(result)
        return {"ms": (time.perf_counter() - start) * 1e3}, subject
    raise ValueError(f"unknown request {kind}")
