"""The rule `next` around any torch optimizer, as plain as it can be said: one vector of all parameters, numbers of Python.

`step(loss, probe)` is called when the gradients of the batch are there; `probe()` is the loss on the same batch at the parameters of
the moment. It moves the parameters itself: the optimizer is asked for its step at rate 1, whose length is the direction.
"""
import math

import torch


class Next:
    def __init__(self, optimizer, alpha=1e-3, total_steps=None, alpha_min=1e-8, alpha_max=100.0):
        self.optimizer, self.alpha, self.total_steps = optimizer, alpha, total_steps
        self.alpha_min, self.alpha_max = alpha_min, alpha_max
        self.params = [p for group in optimizer.param_groups for p in group["params"]]
        self.applied = self.N = self.D = self.d = 0.0
        self.e = self.f = self.y = None
        self.mean = self.best = None
        self.usual = 0.0
        self.t = self.rejections = self.in_a_row = 0
        self.halved = -10

    def _flat(self, pick):
        return torch.cat([pick(p).detach().reshape(-1) for p in self.params])

    @torch.no_grad()
    def _put(self, vector):
        offset = 0
        for p in self.params:
            p.copy_(vector[offset : offset + p.numel()].view_as(p))
            offset += p.numel()

    def _clip(self, alpha):
        return min(max(alpha, self.alpha_min), self.alpha_max)

    def _multiplier(self):
        return 1.0 if self.total_steps is None else min(1.0, max(0.0, 2.0 * (1.0 - self.t / self.total_steps)))

    def _newton(self, n):
        grows = self.total_steps is None or 2 * self.t < self.total_steps
        N, D = 0.9 * self.N + n, 0.9 * self.D + self.d
        if not D > 0:
            D = 0.9 * self.D + abs(self.d)
        gained = max(self.slow - self.mean, 0.0) + self.deviation
        c = min(0.3, 0.1 * gained / (1 - 0.9) / max(self.applied, 1e-30) / max(D, 1e-30))
        top, bottom = N + (c if grows else 2 * c) * D, D - N
        up = 1.25 if grows else 1.0
        gamma = 0.07 * min(max(math.sqrt(100 / (self.t + 1)), 1), 3)
        factor = 1 + gamma * top / bottom if bottom > 0 else (up if top > 0 else 0.5)
        least = 0.5 if grows and N < -0.5 * D else 1 - min(max(200 / (self.t + 1), 0.5), 1) / (self.t + 1)
        factor = min(max(factor if math.isfinite(factor) else 0.5, least), up)
        alpha = self._clip(self.alpha * factor)
        travel = abs(math.log(alpha / self.alpha))
        self.alpha, self.N, self.D = alpha, N * math.exp(-3 * travel), D * math.exp(-3 * travel)
        for trace in (self.e, self.f, self.y):
            trace.mul_(math.exp(-2 * travel))

    def _track(self, loss):
        if self.mean is None:
            self.mean, self.slow, self.deviation, self.peak = loss, loss, 0.0, loss
            return
        self.peak = max(loss, 0.99 * self.peak)
        self.deviation = 0.9 * self.deviation + 0.1 * abs(loss - self.mean)
        self.mean = loss if self.in_a_row > 5 else 0.9 * self.mean + 0.1 * loss
        self.slow += min(0.01, 2 / (self.t + 1)) * min(self.mean - self.slow, 0.0)
        if self.t < 10:
            self.usual = self.deviation
            return
        if self.best is None:
            self.best = self.mean
        if self.mean > self.best + max(2 * self.usual, self.deviation) and self.t - self.halved >= 10:
            self.alpha, self.N, self.D, self.halved = max(0.5 * self.alpha, self.alpha_min), 0.0, 0.0, self.t
        self.best = min(self.mean, self.best + 0.01 * max(self.mean - self.best, 0.0))
        risen = self.usual + 0.01 * max(self.deviation - self.usual, 0.0)
        self.usual = self.deviation if self.mean <= self.best else risen

    def _start(self, loss, probe, slope):
        tolerance = 4 * torch.finfo(self.params[0].dtype).eps * abs(loss)

        def passes(far):
            self._put(self.start - far * self.omega)
            return probe() <= loss - 0.3 * far * max(slope, 0.0) + tolerance

        if self.t > 0:
            shorter = 0
            while shorter < 3 and not passes(self.alpha * 0.2**shorter):
                shorter += 1
            self.alpha = self._clip(self.alpha * 0.2**shorter * (0.1 if shorter else 1.0))
            return
        exponent = round(math.log2(self.alpha))
        grows = passes(20 * 2.0**exponent)
        for _ in range(20):
            passed = passes(20 * 2.0 ** (exponent + (2 if grows else -2)))
            if grows and not passed:
                break
            exponent += 2 if grows else -2
            if passed and not grows:
                break
        self.alpha = self._clip(2.0 ** (exponent + passes(20 * 2.0 ** (exponent + 1))))

    @torch.no_grad()
    def step(self, loss, probe):
        gradient = self._flat(lambda p: p.grad)
        multiplier = self._multiplier()
        rejected = False
        if self.t > 0:
            n = float(gradient @ (self.e - 0.5 * self.f))
            finite = math.isfinite(loss) and math.isfinite(n)
            high = not finite or loss > max(self.mean + abs(self.mean) + 10 * self.deviation, 2 * self.peak)
            rejected = not finite or (high and self.in_a_row < 5)
            self.in_a_row = self.in_a_row + 1 if high else 0
            if rejected:
                shorter = 0.5 if finite and self.in_a_row == 1 else 0.1
                self.alpha, self.N, self.D = max(self.alpha * shorter, self.alpha_min), 0.0, 0.0
                self.rejections += 1
            else:
                self._newton(n)
        if rejected:  # the same direction once more, shorter, from where it started
            self.e, self.f = self.omega.clone(), self.omega.clone()
            self.y *= 0.99
        else:
            self._track(loss)
            self.start = self._flat(lambda p: p)
            self.optimizer.step()
            self.omega = self.start - self._flat(lambda p: p)
            self.e = self.omega.clone() if self.e is None else 0.99 * self.e + self.omega
            self.f = self.omega.clone() if self.f is None else 0.9 * self.f + self.omega
            self.y = gradient.clone() if self.y is None else 0.99 * self.y + gradient
            self.d = float(self.y @ self.omega)
            if self.t < 3:
                self._start(loss, probe, float(gradient @ self.omega))
        if self.t == 0:
            self.reach = self.alpha * float(self.e.norm())
        elif self.t < 40:
            longest = self.reach * math.sqrt(self.t + 1) * min(1.1**self.t, 8.0)
            self.alpha = self._clip(min(self.alpha, longest / max(float(self.e.norm()), 1e-30)))
        self.applied = multiplier * self.alpha
        self._put(self.start - self.applied * self.omega)
        self.t += 1
