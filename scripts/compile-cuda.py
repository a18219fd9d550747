"""Compile the CUDA C in crates/device/src/cuda/kernels to the PTX committed beside it, one file for each kernel.

    python3 scripts/compile-cuda.py            write *.ptx, and what ptxas makes of them to registers.md
    python3 scripts/compile-cuda.py --check    fail if the committed files differ from what would be written

The compiler is NVRTC from PyPI, pinned, so that the text is the same everywhere; no GPU, driver or toolkit is needed.
scripts/compile-cuda.sh makes the environment.
"""

import ctypes
import glob
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

KERNELS = Path(__file__).resolve().parent.parent / "crates/device/src/cuda/kernels"
# File, and the oldest compute capability that its kernels run on.
SOURCES = [("dot.cu", 70), ("dot_tensor.cu", 80), ("conv.cu", 70), ("conv_tensor.cu", 80), ("attention.cu", 70)]
SOURCES += [("attention_tensor.cu", 80)]
# The oldest PTX that has what the kernels use (asynchronous copies, TF32): CUDA 11.0, so every later driver loads it.
VERSION = "7.0"
# Capabilities that ptxas must accept.
TARGETS = [75, 80, 90, 120]


def wheel_file(pattern):
    found = [hit for path in sys.path for hit in glob.glob(os.path.join(path, "nvidia", pattern))]
    if not found:
        sys.exit(f"no nvidia/{pattern} in the Python environment; run scripts/compile-cuda.sh")
    return found[0]


def nvrtc_compile(source, capability):
    """PTX of a source file."""
    nvrtc = ctypes.CDLL(wheel_file("cuda_nvrtc/lib/libnvrtc.so.12"))
    headers = sorted(KERNELS.glob("*.cuh"))
    strings = lambda items: (ctypes.c_char_p * len(items))(*items)
    program = ctypes.c_void_p()
    text = (KERNELS / source).read_bytes()
    bodies, names = [h.read_bytes() for h in headers], [h.name.encode() for h in headers]
    check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), text, source.encode(), len(headers), strings(bodies), strings(names)))
    options = [f"--gpu-architecture=compute_{capability}".encode(), b"--std=c++17", b"--fmad=true"]
    failed = nvrtc.nvrtcCompileProgram(program, len(options), strings(options))
    size = ctypes.c_size_t()
    check(nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size)))
    log = ctypes.create_string_buffer(size.value)
    check(nvrtc.nvrtcGetProgramLog(program, log))
    if log.value:
        print(log.value.decode(), file=sys.stderr)
    check(failed)
    check(nvrtc.nvrtcGetPTXSize(program, ctypes.byref(size)))
    ptx = ctypes.create_string_buffer(size.value)
    check(nvrtc.nvrtcGetPTX(program, ptx))
    return ptx.value.decode()


def check(status):
    if status:
        sys.exit(f"NVRTC failed with status {status}")


def split(ptx, source, capability):
    """{kernel name: a module of its own}"""
    ptx = re.sub(r"//.*", "", ptx)
    entries = re.split(r"(?=^\.visible \.entry )", ptx, flags=re.M)
    # What stands between the header and the first kernel, or between kernels, is shared: declarations of shared memory.
    shared = "".join(re.findall(r"^\.extern \.shared .*\n", ptx, flags=re.M))
    modules = {}
    for entry in entries[1:]:
        name = re.match(r"\.visible \.entry (\w+)", entry)[1]
        body = re.sub(r"^\.extern \.shared .*\n", "", entry, flags=re.M)
        body = re.sub(r"[ \t]+$", "", body, flags=re.M)
        body = re.sub(r"\n{2,}", "\n", body).strip()
        header = f"// Compiled from {source} by scripts/compile-cuda.py. Do not edit.\n"
        header += f".version {VERSION}\n.target sm_{capability}\n.address_size 64\n"
        used = shared if re.search(r"\b_ZN?\w*tiles\w*\b|\btiles\b", body) else ""
        modules[name] = header + used + body + "\n"
    return modules


def assemble(name, text, target):
    """Registers per thread on a target."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "in.ptx").write_text(text, encoding="utf-8")
        command = [wheel_file("cuda_nvcc/bin/ptxas"), "-v", f"-arch=sm_{target}", f"{folder}/in.ptx", "-o", f"{folder}/out.cubin"]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{name} for sm_{target}: {done.stderr}")
    if sum(map(int, re.findall(r"(\d+) bytes spill", done.stderr))):
        sys.exit(f"{name} for sm_{target} spills registers: {done.stderr}")
    return re.search(r"Used (\d+) registers", done.stderr)[1]


def table(modules):
    rows = ["Registers per thread, by ptxas; no kernel spills any. Written by scripts/compile-cuda.py.", ""]
    rows += ["| kernel | " + " | ".join(f"sm_{target}" for target in TARGETS) + " |", "|---" * (len(TARGETS) + 1) + "|"]
    for name, text in sorted(modules.items()):
        oldest = int(re.search(r"\.target sm_(\d+)", text)[1])
        cells = [assemble(name, text, target) if target >= oldest else "–" for target in TARGETS]
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


def files():
    """Everything that is committed, by file name."""
    modules = {}
    for source, capability in SOURCES:
        modules |= split(nvrtc_compile(source, capability), source, capability)
    return {f"{name}.ptx": text for name, text in modules.items()} | {"registers.md": table(modules)}


def committed():
    return {path.name: path.read_text(encoding="utf-8") for path in [*KERNELS.glob("*.ptx"), *KERNELS.glob("registers.md")]}


def write():
    fresh = files()
    for name in committed().keys() - fresh.keys():
        (KERNELS / name).unlink()
    for name, text in fresh.items():
        (KERNELS / name).write_text(text, encoding="utf-8")
    print(f"{len(fresh) - 1} kernels, {sum(map(len, fresh.values()))} bytes")


def check_drift():
    fresh, old = files(), committed()
    wrong = sorted(name for name in fresh.keys() | old.keys() if fresh.get(name) != old.get(name))
    if wrong:
        sys.exit(f"{', '.join(wrong)}: not what the sources give; run scripts/compile-cuda.sh and commit the result")
    print(f"{len(fresh) - 1} kernels are as committed")


if __name__ == "__main__":
    {(): write, ("--check",): check_drift, ("--version",): lambda: print(wheel_file("cuda_nvrtc/lib/libnvrtc.so.12"))}[tuple(sys.argv[1:])]()
