"""The sides of a comparison, and how they take turns."""
import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TCMALLOC = "libtcmalloc_minimal.so.4"


class Failed(Exception):
    pass


def environment(threads, tuned):
    """PyTorch's surroundings. Tuned: what makes it fastest here without
    touching its source, tcmalloc against page faults and its AVX-512 kernels.
    OpenBLAS chooses its own kernels in both (a worker checks its products)."""
    env = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "LD_PRELOAD")}
    env.update(OMP_NUM_THREADS=str(threads), TCMALLOC_LARGE_ALLOC_REPORT_THRESHOLD=str(1 << 40))
    if tuned:
        env.update(LD_PRELOAD=TCMALLOC, ATEN_CPU_CAPABILITY="avx512")
    return env


class Once:
    """A side that is a process per turn; its last line of output is JSON."""

    def __init__(self, name, command, env=None, read=lambda r: r):
        self.name, self.command, self.env, self.read = name, command, env, read

    def turn(self):
        done = subprocess.run(self.command, env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            raise Failed(f"{self.name}: {' '.join(self.command)}\n{done.stderr[-2000:]}")
        return self.read(json.loads(done.stdout.strip().splitlines()[-1]))

    def close(self):
        pass


class Resident:
    """A PyTorch worker that stays and measures n iterations a turn. Between
    turns it waits for input and uses no processor."""

    def __init__(self, name, command, env, n):
        self.name, self.n = name, n
        self.process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.about = self.line()

    def line(self):
        text = self.process.stdout.readline()
        if not text:
            raise Failed(f"{self.name}: the worker ended with status {self.process.wait()}")
        return json.loads(text)

    def turn(self):
        self.process.stdin.write(f"{self.n}\n")
        self.process.stdin.flush()
        return self.line()

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def pytorch(script, threads, flags, n=None):
    """Makers of the two PyTorch sides; n: resident, with n iterations a turn."""
    command = ["/usr/bin/python3", os.path.join(HERE, script), *flags]

    def make(name, tuned):
        env = environment(threads, tuned)
        return Once(name, command, env) if n is None else Resident(name, command, env, n)

    return {"PyTorch stock": lambda: make("PyTorch stock", False), "PyTorch tuned": lambda: make("PyTorch tuned", True)}


def take_turns(makers, rounds, log=sys.stderr):
    """Starts the sides and lets each measure once a round, in turn; the order
    alternates, so that a drift of the machine favours nobody. Returns
    {side: [result of each round]}."""
    sides, results = [], {}
    try:
        for make in makers.values():
            sides.append(make())
        results = {side.name: [] for side in sides}
        for r in range(rounds):
            for side in sides if r % 2 == 0 else sides[::-1]:
                results[side.name].append(side.turn())
                print(f"  round {r + 1}/{rounds}  {side.name}: " + brief(results[side.name][-1]), file=log, flush=True)
    finally:
        for side in sides:
            side.close()
    return results


def brief(result):
    return "  ".join(f"{k} {v:.1f}" for k, v in result.items() if isinstance(v, (int, float)) and not isinstance(v, bool) and k not in ("threads", "steps"))
