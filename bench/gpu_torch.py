"""The PyTorch side of bench/gpu.ts: the same measurements, eager and compiled, as one line of JSON.

    python3 bench/gpu_torch.py '{"mlp": [784, 4096, 10, 4096], "matmul": [4096], "elementwise": 67108864, "rounds": 7, "turns": 10, "tf32": false}'
"""

import json
import sys
import time

import torch
import torch.nn.functional as F


def median(numbers):
    numbers = sorted(numbers)
    middle = len(numbers) // 2
    return numbers[middle] if len(numbers) % 2 else (numbers[middle - 1] + numbers[middle]) / 2


def measure(turn, rounds, turns):
    """Milliseconds of one turn: the median of rounds, each waited for at its end only."""
    for _ in range(5):
        turn()
    torch.cuda.synchronize()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(turns):
            turn()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - start) * 1e3 / turns)
    return median(times)


def mlp_step(options, compiled):
    inputs, hidden, outputs, batch = options["mlp"]
    torch.manual_seed(1)
    model = torch.nn.Sequential(
        torch.nn.Linear(inputs, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, outputs)
    ).cuda()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    x = torch.rand(batch, inputs, device="cuda")
    y = torch.randint(0, outputs, (batch,), device="cuda")
    loss = lambda x, y: F.cross_entropy(model(x), y)
    if compiled:
        loss = torch.compile(loss)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss(x, y).backward()
        optimizer.step()

    torch.cuda.reset_peak_memory_stats()
    ms = measure(step, options["rounds"], options["turns"])
    return {"ms": ms, "memory_mb": torch.cuda.max_memory_allocated() / 2**20}


def main():
    options = json.loads(sys.argv[1])
    torch.backends.cuda.matmul.allow_tf32 = options["tf32"]
    if not torch.cuda.is_available():
        sys.exit("PyTorch finds no GPU")
    rounds, turns = options["rounds"], options["turns"]
    out = {"version": torch.__version__, "mlp_eager": mlp_step(options, False)}
    try:
        out["mlp_compiled"] = mlp_step(options, True)
    except Exception as error:  # torch.compile needs a C compiler and Triton
        out["compile_error"] = str(error).splitlines()[0]
    out["matmul"] = {}
    for n in options["matmul"]:
        a, b = torch.rand(n, n, device="cuda"), torch.rand(n, n, device="cuda")
        out["matmul"][str(n)] = measure(lambda: a @ b, rounds, turns)
    n = options["elementwise"]
    x, y = torch.rand(n, device="cuda"), torch.rand(n, device="cuda")
    chain = lambda x, y: torch.tanh(x * y + x) * torch.sigmoid(y)
    out["elementwise_eager"] = measure(lambda: chain(x, y), rounds, turns)
    if "compile_error" not in out:
        compiled = torch.compile(chain)
        out["elementwise_compiled"] = measure(lambda: compiled(x, y), rounds, turns)
    one = torch.zeros(1, device="cuda")
    out["launch_us"] = measure(lambda: one + 1, rounds, 100) * 1e3
    print(json.dumps(out))


main()
