"""Compile the CUDA C in crates/device/src/cuda/kernels to the PTX committed beside it, one file for each kernel.

    python3 scripts/compile-cuda.py            write *.ptx
    python3 scripts/compile-cuda.py --check    fail if the committed files differ from what would be written
    python3 scripts/compile-cuda.py --ptxas    assemble the committed files and print registers, shared memory and spills

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
SOURCES = [("dot.cu", 75), ("dot_tensor.cu", 80)]
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


def compile_all():
    return {name: text for source, capability in SOURCES for name, text in split(nvrtc_compile(source, capability), source, capability).items()}


def write():
    modules = compile_all()
    for old in KERNELS.glob("*.ptx"):
        old.unlink()
    for name, text in modules.items():
        (KERNELS / f"{name}.ptx").write_text(text)
    print(f"{len(modules)} kernels, {sum(map(len, modules.values()))} bytes")


def check_drift():
    fresh = {f"{name}.ptx": text for name, text in compile_all().items()}
    committed = {path.name: path.read_text() for path in KERNELS.glob("*.ptx")}
    wrong = sorted(name for name in fresh.keys() | committed.keys() if fresh.get(name) != committed.get(name))
    if wrong:
        sys.exit(f"{', '.join(wrong)}: not what the sources give; run scripts/compile-cuda.sh and commit the result")
    print(f"{len(fresh)} kernels are as committed")


def assemble():
    ptxas, spilling = wheel_file("cuda_nvcc/bin/ptxas"), []
    print("| kernel | " + " | ".join(f"sm_{target}" for target in TARGETS) + " |")
    print("|---" * (len(TARGETS) + 1) + "|")
    for path in sorted(KERNELS.glob("*.ptx")):
        oldest = int(re.search(r"\.target sm_(\d+)", path.read_text())[1])
        cells = []
        for target in TARGETS:
            if target < oldest:
                cells.append("–")
                continue
            with tempfile.TemporaryDirectory() as folder:
                command = [ptxas, "-v", f"-arch=sm_{target}", str(path), "-o", f"{folder}/out.cubin"]
                done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{path.name} for sm_{target}: {done.stderr}")
            registers = re.search(r"Used (\d+) registers", done.stderr)[1]
            spills = sum(map(int, re.findall(r"(\d+) bytes spill", done.stderr)))
            cells.append(f"{registers}" + (f" (spills {spills} B)" if spills else ""))
            if spills:
                spilling.append(f"{path.stem} on sm_{target}")
        print(f"| {path.stem} | " + " | ".join(cells) + " |")
    if spilling:
        sys.exit(f"registers are spilled: {', '.join(spilling)}")
    print("\nRegisters per thread; no kernel spills any.")


if __name__ == "__main__":
    {"": write, "--check": check_drift, "--ptxas": assemble}[sys.argv[1] if len(sys.argv) > 1 else ""]()
