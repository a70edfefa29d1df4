"""The table: what was compared, what came out, what was allowed."""

import platform
import resource
import time


def used():
    """Seconds of processors that this process and those that it waited for have used."""
    return sum(
        resource.getrusage(who).ru_utime + resource.getrusage(who).ru_stime for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )


class Report:
    def __init__(self, say=True):
        self.rows, self.say = [], say
        self.part, self.began, self.used = "", 0.0, 0.0
        self.seconds, self.processor = {}, {}

    def begin(self, part):
        self.end()
        self.part, self.began, self.used = part, time.time(), used()
        if self.say:
            print(f"\n{part}", flush=True)

    def end(self):
        if self.part:
            self.seconds[self.part] = time.time() - self.began
            self.processor[self.part] = used() - self.used

    def add(self, what, figure, tolerance, ok):
        """One line. figure and tolerance are texts."""
        row = {"part": self.part, "what": what, "figure": figure, "tolerance": tolerance, "ok": bool(ok)}
        self.rows.append(row)
        if self.say:
            print(f"  {'ok  ' if ok else 'OUT '} {what:<78} {figure:>22}   allowed {tolerance}", flush=True)

    def below(self, what, figure, limit, unit=""):
        """A figure that must not exceed a limit; one that is no number does."""
        self.add(what, f"{figure:.3g}{unit}", f"≤ {limit:.3g}{unit}", figure <= limit)

    def above(self, what, figure, limit):
        """A figure that must not be less than a limit."""
        self.add(what, f"{figure:.3g}", f"≥ {limit:.3g}", figure >= limit)

    def none(self, what, differing, of):
        """How many of many differ, of which none must."""
        self.add(what, f"{differing} of {of}", "0", differing == 0 and of > 0)

    def out(self):
        return [r for r in self.rows if not r["ok"]]

    def failure(self, part, error):
        if not self.part:
            self.begin(part)
        self.add("the comparison itself", str(error)[:60] or type(error).__name__, "none", False)


def processor():
    try:
        with open("/proc/cpuinfo") as f:
            for line in f:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def markdown(report, about):
    """The page docs/fidelity.md."""
    total = sum(report.processor.values())
    lines = [
        "# Fidelity",
        "",
        (
            "What `make fidelity` printed: mochi beside independent code, which stands in [tools/fidelity](../tools/fidelity/README.md) "
            "and uses PyTorch, torchvision, Pillow and scikit-learn. The page is made by `make fidelity DOC=docs/fidelity.md`; do not edit it. "
            "Where mochi does something else than the papers or their code, on purpose, is said in [method.md](method.md)."
        ),
        "",
        (
            f"mochi {about['mochi']}. {about['libraries']}. {about['machine']}. "
            f"All parts took {total:.0f} seconds of a processor, two of them at a time."
        ),
        "",
    ]
    parts = list(dict.fromkeys(r["part"] for r in report.rows))
    for part in parts:
        lines += [
            f"## {part}",
            "",
            f"{report.processor.get(part, 0):.0f} s of a processor.",
            "",
            "| compared | found | allowed | |",
            "|---|---|---|---|",
        ]
        for r in report.rows:
            if r["part"] == part:
                cells = (r["what"], r["figure"], r["tolerance"], "" if r["ok"] else "**out**")
                lines.append("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
        lines.append("")
    return "\n".join(lines)
