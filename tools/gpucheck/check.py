#!/usr/bin/env python3
"""Checks mochi's CUDA engine on a machine with an NVIDIA GPU, and compares its
speed with PyTorch's, in under nine minutes.

    tar xzf gpucheck.tar.gz && python3 gpucheck/check.py

Needs an NVIDIA driver, cuDNN 8 or 9, cuBLAS and NVRTC (those inside PyTorch's
wheels are found), Python 3.8, and for comparisons PyTorch with torchvision. No
Go, no compiler. Writes report.json and report.md beside itself, after every
part anew. Every part is a program of its own with a time limit: one failure
does not hide the rest. Exit status 0: every part that could run has passed,
and there was a GPU.

    --only PART     this part alone (may be repeated); --list names them
    --out DIR       where the reports go
    --small         tiny networks, to try the script itself
"""
import argparse
import glob
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
MOCHI = os.path.join(HERE, "mochi")
LIMIT_S = 530

PASSED, FAILED, NOT_RUN = "passed", "failed", "not run"


class Failed(Exception):
    """A part has failed; result is what it found nevertheless."""

    def __init__(self, why, **result):
        super().__init__(why)
        self.result = result


class NotRun(Exception):
    """A part cannot run here."""


class Check:
    def __init__(self, args):
        self.args, self.started, self.parts = args, time.time(), {}
        self.work = tempfile.mkdtemp(prefix="gpucheck-")
        self.env = dict(os.environ, XDG_CACHE_HOME=os.path.join(self.work, "cache"))
        folder = library_folder(self.work)
        if folder and "MOCHI_CUDA_LIBRARIES" not in os.environ:
            self.env["MOCHI_CUDA_LIBRARIES"] = folder
            # For what these libraries open themselves.
            self.env["LD_LIBRARY_PATH"] = folder + ":" + os.environ.get("LD_LIBRARY_PATH", "")
        self.goldens = None

    def left(self):
        return LIMIT_S - (time.time() - self.started)

    def run(self, argv, limit, **env):
        """Output of a program; Failed with its last lines if it fails."""
        limit = min(limit, self.left())
        if limit < 5:
            raise NotRun("no time is left")
        try:
            done = subprocess.run(argv, env=dict(self.env, **env), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  timeout=limit, text=True, errors="replace", cwd=self.work)
        except subprocess.TimeoutExpired as e:
            raise Failed("still running after %d s: %s" % (limit, tail(e.stdout)))
        if done.returncode != 0:
            raise Failed("exit status %d: %s" % (done.returncode, tail(done.stdout)))
        return done.stdout

    def json_of(self, argv, limit, **env):
        """The JSON object on the last line of a program's output."""
        lines = [l for l in self.run(argv, limit, **env).splitlines() if l.startswith("{")]
        if not lines:
            raise Failed("it printed no result")
        return json.loads(lines[-1])

    def mochi(self, limit, *args, **env):
        return self.json_of([MOCHI, *args, "--engine", "cuda", "--json"], limit, **env)

    def torch(self, limit, *args):
        try:
            return self.json_of([sys.executable, os.path.join(HERE, "pytorch_gpu.py"), *args], limit)
        except (Failed, NotRun) as e:
            return {"error": str(e)}

    def part(self, name, function):
        began = time.time()
        try:
            result, status = function(self), PASSED
        except NotRun as e:
            result, status = {"why": str(e)}, NOT_RUN
        except Failed as e:
            result, status = dict(e.result, error=str(e)), FAILED
        except Exception as e:  # of the script itself: the other parts go on
            result, status = {"error": "%s: %s" % (type(e).__name__, e)}, FAILED
        self.parts[name] = dict(status=status, seconds=round(time.time() - began, 1), **result)
        print("%-12s %-8s %5.1f s  %s" % (name, status, self.parts[name]["seconds"],
                                         result.get("error", result.get("why", "")).strip().split("\n")[-1][:300]), flush=True)
        self.report()

    def report(self):
        out = {"parts": self.parts, "seconds": round(time.time() - self.started, 1), "not_measured": NOT_MEASURED,
               "small": self.args.small}
        write(os.path.join(self.args.out, "report.json"), json.dumps(out, indent=1) + "\n")
        write(os.path.join(self.args.out, "report.md"), markdown(out))


# What issue and users may look for and this script does not give.
NOT_MEASURED = ["input from files while it trains: images of these steps are in memory"]


def write(path, text):
    with open(path + ".new", "w") as f:
        f.write(text)
    os.replace(path + ".new", path)


def tail(text, lines=15):
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    return "\n".join((text or "").strip().splitlines()[-lines:])


def library_folder(work):
    """A folder with links to the CUDA libraries inside PyTorch's wheels, which
    the system's loader does not know; None where there are none."""
    folder = os.path.join(work, "libraries")
    os.makedirs(folder)
    for path in sys.path:
        for library in glob.glob(os.path.join(path, "nvidia", "*", "lib", "lib*.so*")) + glob.glob(os.path.join(path, "torch", "lib", "libcud*.so*")):
            link = os.path.join(folder, os.path.basename(library))
            if not os.path.exists(link):
                os.symlink(library, link)
    return folder if os.listdir(folder) else None


# ---- Parts ----


def machine(c):
    """What this machine is. Never fails."""
    def ask(*argv):
        try:
            return subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30, text=True).stdout.strip()
        except (OSError, subprocess.TimeoutExpired) as e:
            return str(e)

    return {
        "gpu": ask("nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.max.sm", "--format=csv,noheader"),
        "cpu": cpu_name(), "cores": os.cpu_count(), "libc": " ".join(platform.libc_ver()), "python": platform.python_version(),
        "torch": ask(sys.executable, "-c", "import torch; print(torch.__version__, torch.version.cuda, torch.backends.cudnn.version())"),
        "mochi": ask(MOCHI, "version"), "libraries": c.env.get("MOCHI_CUDA_LIBRARIES", "the system's"),
    }


def cpu_name():
    try:
        with open("/proc/cpuinfo") as f:
            return next((l.split(":", 1)[1].strip() for l in f if l.startswith("model name")), "")
    except OSError:
        return ""


def device(c):
    """The engine starts, compiles its kernels and does a step."""
    r = c.mochi(120, *STEP, *TINY)
    return {"device": r["device"], "versions": r["versions"]}


STEP = ("bench", "step")
TINY = ("--arch", "resnet8", "--image-size", "28", "--batch", "8", "--bn-group", "8", "--queue", "64", "--mochi", "8,8,2", "--steps", "2")


def fallback(c):
    """The kernels that the build brings as PTX, for machines without NVRTC."""
    return {"versions": c.mochi(60, *STEP, *TINY, MOCHI_CUDA_NVRTC="none")["versions"],
            **go_tests(c, "cuda.test", "^TestBF16StepByStep$", 60, MOCHI_TEST_REAL_GPU="1", MOCHI_CUDA_NVRTC="none")}


def conformance(c):
    """The engine's contract against a plain float64 reference, in fp32."""
    return go_tests(c, "cuda.test", "^TestConformance$", 150, MOCHI_TEST_REAL_GPU="1")


def bf16(c):
    """The contract in bf16, and every step of it against the same step in fp32."""
    return go_tests(c, "cuda.test", "^(TestBF16StepByStep|TestConformanceBF16)$", 90, MOCHI_TEST_REAL_GPU="1")


def go_tests(c, binary, tests, limit, **env):
    out = c.run([os.path.join(HERE, binary), "-test.v", "-test.run", tests], limit, **env)
    ran, skipped = out.count("--- PASS"), out.count("--- SKIP")
    if ran == 0:
        raise NotRun(tail(out) or "no test ran")
    return {"tests": ran, "skipped": skipped}


def parity(c):
    """Whole networks against PyTorch: tools/parity, whose goldens are made on
    the CPU while the other parts run."""
    if c.goldens is None:
        raise NotRun("the goldens were not asked for")
    try:
        c.goldens.wait(min(180, c.left() - 60))
    except subprocess.TimeoutExpired:
        raise NotRun("PyTorch was still making the goldens")
    if c.goldens.returncode != 0:
        raise NotRun("PyTorch could not make the goldens: " + tail(open(os.path.join(c.work, "goldens.log")).read(), 3))
    return go_tests(c, "mochi.test", "^TestParity$", 150, MOCHI_PARITY=os.path.join(c.work, "goldens"), MOCHI_PARITY_ENGINE="cuda")


def start_goldens(c):
    log = open(os.path.join(c.work, "goldens.log"), "w")
    c.goldens = subprocess.Popen([sys.executable, os.path.join(HERE, "generate.py"), os.path.join(c.work, "goldens")], stdout=log, stderr=log)


def batches(small):
    """Batches of the whole step, and the flags that both sides take."""
    arch, size, queue, mix, sizes = ("resnet8", 28, 64, "8,8,2", (8,)) if small else ("resnet50", 224, 65536, "1024,1024,128", (32, 128, 256))
    return {b: ["--arch", arch, "--image-size", str(size), "--batch", str(b), "--queue", str(queue), "--mochi", mix, "--precision", "bf16"]
            for b in sizes}


def step(c):
    """A whole step, one BatchNorm group a batch, beside PyTorch (eager)."""
    rows, failed = {}, []
    for batch, common in batches(c.args.small).items():
        row = rows[str(batch)] = {}
        try:
            row["mochi"] = c.mochi(60, *STEP, *common, "--bn-group", str(batch), "--steps", "10")
            if len(rows) == 1:  # the smallest, where launches weigh most
                row["mochi_without_graphs"] = c.mochi(60, *STEP, *common, "--bn-group", str(batch), "--steps", "10", MOCHI_CUDA_GRAPHS="off")
        except (Failed, NotRun) as e:
            row["mochi"] = {"error": str(e)}
            failed.append("batch %d: %s" % (batch, str(e).splitlines()[-1]))
        row["eager"] = c.torch(60, "step", *common, "--mode", "eager") if not c.args.small else {"error": "left out (--small)"}
        ours, theirs = row["mochi"].get("step_ms_p50"), row["eager"].get("step_ms_p50")
        if ours and theirs:
            row["times_pytorch_eager"] = round(theirs / ours, 3)
    if failed:
        raise Failed("; ".join(failed), batches=rows)
    return {"batches": rows}


def groups(c):
    """The largest batch in groups of 32: one at a time, and several at once."""
    batch, common = list(batches(c.args.small).items())[-1]
    size, counts = (2, (1, 2, 4)) if c.args.small else (32, (1, 4, 8))
    rows, failed = {}, []
    for n in counts:
        try:
            rows[str(n)] = c.mochi(45, *STEP, *common, "--bn-group", str(size), "--groups-at-once", str(n), "--steps", "5")
            if rows[str(n)]["groups_at_once"] != n:
                failed.append("%d at once: the engine computes %d" % (n, rows[str(n)]["groups_at_once"]))
        except (Failed, NotRun) as e:
            rows[str(n)] = {"error": str(e)}
            failed.append("%d at once: %s" % (n, str(e).splitlines()[-1]))
    if failed:
        raise Failed("; ".join(failed), batch=batch, at_once=rows)
    return {"batch": batch, "at_once": rows}


def compiled(c):
    """PyTorch compiled, in the time that is left: the largest batch first."""
    if c.args.small:
        raise NotRun("left out (--small)")
    rows = {str(b): c.torch(150, "step", *common, "--mode", "compiled") for b, common in reversed(batches(False).items())}
    if not any("step_ms_p50" in r for r in rows.values()):
        raise NotRun("PyTorch could not: " + list(rows.values())[0]["error"].splitlines()[-1])
    return {"batches": rows}


def loss(c):
    """The loss alone, keys on the device, beside PyTorch's."""
    common = ["--batch", "32" if c.args.small else "256", "--queue", "1024" if c.args.small else "65536", "--dim", "128",
              "--mochi", "64,64,8" if c.args.small else "1024,1024,128", "--iterations", "5"]
    return {"mochi": c.mochi(60, "bench", "loss", *common), "pytorch": c.torch(60, "loss", *common)}


def oracles(c):
    """The loss on the device against one that builds every point, and for any number of holders of the queue."""
    return go_tests(c, "loss.test", ".", 60, MOCHI_TEST_REAL_GPU="1")


def replicas(c):
    """Two replicas on GPU 0 give the checkpoint of one, to the bit."""
    return agree(c, "0", "0")


def units(c):
    """The same with two groups at once: in units of two, which are dealt whole."""
    return agree(c, "0", "0", batch=32, at_once=2)


def devices(c):
    """Two replicas on GPU 0 and 1 give the checkpoint of one, to the bit."""
    if len(gpus()) < 2:
        raise NotRun("there is one GPU")
    return agree(c, "0", "1")


def agree(c, *on, batch=16, at_once=1):
    """One replica, then a cluster with one on each GPU of on."""
    data = os.path.join(c.work, "data")
    images(data)
    settings = ["--data", data, "--preset", "cifar10", "--arch", "resnet8", "--image-size", "12", "--batch", str(batch), "--bn-group", "8", "--groups-at-once", str(at_once),
                "--queue", "64", "--mochi", "8,8,2", "--mochi-warmup", "0", "--steps", "3" if c.args.small else "20", "--knn-every", "0"]
    one, two = (os.path.join(c.work, "-".join([name, *on, str(at_once)])) for name in ("one", "two"))
    c.run([MOCHI, "train", *settings, "--engine", "cuda", "--threads", "1", "--replicas", "1", "--out", one, "--resume", "never"], 60)
    port = free_port()
    members = []
    log = open(two + ".log", "w+")
    try:
        start = lambda *argv: members.append(subprocess.Popen([MOCHI, *argv], env=c.env, stdout=log, stderr=log, cwd=c.work))
        start("coordinator", "--listen", "127.0.0.1:%d" % port, "--state", two, *settings, "--min-replicas", "2")
        for i, device in enumerate(on):
            start("replica", "--join", "nats://127.0.0.1:%d" % port, "--data", data, "--name", "replica-%d" % i,
                  "--engine", "cuda", "--device", device, "--threads", "1")
        members[0].wait(min(90, max(5, c.left())))
    except subprocess.TimeoutExpired:
        log.seek(0)
        raise Failed("two replicas did not finish: " + tail(log.read()))
    finally:
        for m in members:
            if m.poll() is None:
                m.terminate()
        for m in members:
            m.wait(30)
    if members[0].returncode != 0:
        log.seek(0)
        raise Failed("the coordinator ended with %d: %s" % (members[0].returncode, tail(log.read())))
    latest = "checkpoints/latest.safetensors"
    return {"difference": c.json_of([MOCHI, "diff", os.path.join(one, latest), os.path.join(two, latest), "--json"], 30)}


def free_port():
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def images(folder, n=64):
    """n coloured waves in CIFAR-10's binary format."""
    import math
    import random

    rng = random.Random(1)
    os.makedirs(folder, exist_ok=True)
    for name in ["data_batch_%d.bin" % i for i in range(1, 6)] + ["test_batch.bin"]:
        with open(os.path.join(folder, name), "wb") as f:
            for i in range(n):
                out = bytearray([i % 10])
                for _ in range(3):
                    fx, fy, phase = rng.uniform(0, .6), rng.uniform(0, .6), rng.uniform(0, 6)
                    out += bytes(int(127 + 120 * math.sin(fx * x + fy * y + phase)) for y in range(32) for x in range(32))
                f.write(out)


def soak(c):
    """500 steps; device memory must not grow."""
    argv = [MOCHI, *STEP, "--engine", "cuda", "--json", "--precision", "bf16", "--arch", "resnet8" if c.args.small else "resnet18-cifar",
            "--image-size", "12" if c.args.small else "32", "--batch", "8" if c.args.small else "256", "--bn-group", "8" if c.args.small else "64",
            "--queue", "64" if c.args.small else "4096", "--mochi", "8,8,2" if c.args.small else "256,256,32", "--steps", "5" if c.args.small else "500"]
    limit = min(90, c.left())
    if limit < 10:
        raise NotRun("no time is left")
    out = open(os.path.join(c.work, "soak.log"), "w+")
    p = subprocess.Popen(argv, env=c.env, stdout=out, stderr=subprocess.STDOUT, cwd=c.work)
    samples, began = [], time.time()
    while p.poll() is None:
        if time.time() - began > limit:
            p.kill()
            p.wait()
            out.seek(0)
            raise Failed("still running after %d s: %s" % (limit, tail(out.read(), 2)))
        time.sleep(1)
        used = memory_used()
        if used is not None:
            samples.append(used)
    out.seek(0)
    text = out.read()
    if p.returncode != 0:
        raise Failed("exit status %d: %s" % (p.returncode, tail(text)))
    result = {"memory_mib": samples, "bench": json.loads([l for l in text.splitlines() if l.startswith("{")][-1])}
    settled = samples[len(samples) // 3:]
    if settled and max(settled) - settled[0] > 16:
        raise Failed("device memory grows from %d to %d MiB" % (settled[0], max(settled)), **result)
    return result


def gpus():
    """Their names."""
    try:
        return subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=10, text=True).stdout.strip().splitlines()
    except (OSError, subprocess.TimeoutExpired):
        return []


def memory_used():
    try:
        out = subprocess.run(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-i", "0"],
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=10, text=True).stdout
        return int(out.strip().splitlines()[0])
    except (OSError, ValueError, IndexError, subprocess.TimeoutExpired):
        return None


# In the order in which they run; those that need the device after the first two.
PARTS = {"machine": machine, "device": device, "conformance": conformance, "bf16": bf16, "fallback": fallback, "oracles": oracles, "step": step,
         "groups": groups, "loss": loss, "replicas": replicas, "units": units, "devices": devices, "soak": soak, "parity": parity,
         "compiled": compiled}


def markdown(report):
    lines = ["# mochi on a GPU", "", "%.0f s%s" % (report["seconds"], ", tiny networks (--small): no measurement" if report["small"] else ""), "",
             "| part | result | seconds | |", "|---|---|---|---|"]
    for name, p in report["parts"].items():
        said = p.get("error", p.get("why", p.get("device", ""))).strip().split("\n")[-1].replace("|", "\\|")
        lines.append("| %s | %s | %.1f | %s |" % (name, p["status"], p["seconds"], said))
    rows = report["parts"].get("step", {}).get("batches", {})
    late = report["parts"].get("compiled", {}).get("batches", {})
    if rows:
        lines += ["", "| batch | mochi ms | PyTorch eager ms | compiled ms | times eager |", "|---|---|---|---|---|"]
        ms = lambda side: "%.1f" % side["step_ms_p50"] if "step_ms_p50" in side else "–"
        for batch, row in rows.items():
            lines.append("| %s | %s | %s | %s | %s |" % (batch, ms(row["mochi"]), ms(row["eager"]), ms(late.get(batch, {})), row.get("times_pytorch_eager", "–")))
        names = sorted({n for row in rows.values() for n in row["mochi"].get("phases", {})})
        lines += ["", "Phases of mochi's step. gpu_… are by events: computation, and for `gpu_images` and `gpu_gradients` the copies that nothing hid."]
        lines += ["", "| phase, ms |" + "".join(" %s |" % b for b in rows), "|---|" + "---|" * len(rows)]
        for name in names:
            lines.append("| %s |" % name + "".join(" %.2f |" % row["mochi"].get("phases", {}).get(name, 0) for row in rows.values()))
    together = report["parts"].get("groups", {})
    if "at_once" in together:
        lines += ["", "A batch of %d, its groups one at a time and several at once (`--groups-at-once`):" % together["batch"]]
        lines += ["", "| at once | mochi ms | images/s |", "|---|---|---|"]
        lines += ["| %s | %.1f | %.0f |" % (n, r["step_ms_p50"], r["images_per_s"]) for n, r in together["at_once"].items() if "step_ms_p50" in r]
    sides = report["parts"].get("loss", {})
    if "mochi" in sides:
        lines += ["", "| the loss alone, ms | mochi | PyTorch |", "|---|---|---|"]
        lines += ["| %s | %.2f | %s |" % (name, sides["mochi"][key], "%.2f" % sides["pytorch"][key] if key in sides["pytorch"] else "–")
                  for name, key in (("MoCHi", "loss_ms_p50"), ("MoCo", "moco_ms_p50"))]
    machine = report["parts"].get("machine", {})
    lines += [""] + ["- %s: %s" % (k, machine[k]) for k in ("gpu", "cpu", "cores", "libc", "torch", "mochi", "libraries") if k in machine]
    lines += ["", "Not measured: " + "; ".join(report["not_measured"]) + ".", ""]
    return "\n".join(lines)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--only", action="append", choices=list(PARTS), default=None)
    p.add_argument("--list", action="store_true")
    p.add_argument("--out", default=HERE)
    p.add_argument("--small", action="store_true")
    args = p.parse_args()
    if args.list:
        for name, function in PARTS.items():
            print("%-12s %s" % (name, " ".join(function.__doc__.split())))
        return 0
    args.out = os.path.abspath(args.out)
    os.makedirs(args.out, exist_ok=True)
    c = Check(args)
    wanted = args.only or list(PARTS)
    try:
        if "machine" in wanted:
            c.part("machine", machine)
        c.part("device", device)
        there = c.parts["device"]["status"] == PASSED
        if there and "parity" in wanted:
            start_goldens(c)
        for name in wanted:
            if name in ("machine", "device"):
                continue
            if there:
                c.part(name, PARTS[name])
            else:
                def no_device(_):
                    raise NotRun("the engine does not start here; see part device")
                c.part(name, no_device)
    finally:
        if c.goldens is not None and c.goldens.poll() is None:
            c.goldens.kill()
            c.goldens.wait()
        shutil.rmtree(c.work, ignore_errors=True)
    if not there:
        print("no GPU was used: " + c.parts["device"]["error"].splitlines()[-1] if "error" in c.parts["device"] else "no GPU was used")
    print("reports: " + os.path.join(args.out, "report.md") + ", report.json")
    return 0 if there and all(v["status"] != FAILED for v in c.parts.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
