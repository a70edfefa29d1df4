#!/usr/bin/python3
"""MoCHi's and MoCo's loss and its gradient in PyTorch, timed.

MoCHi as public code computes it: every synthetic negative is built. Written
for speed within that: the queue is [K, d], so that rows are gathered; the two
sources of a pair are gathered directly, not through the N hardest; top-N is
not sorted; mixing is one lerp; synthetic logits are one batched product.

    python3 tools/compare/pytorch_loss.py --batch 256 --iterations 5
"""
import argparse

import worker


def contrastive_loss(torch, q, k, queue, mix, tau):
    """InfoNCE of queries q [B,d] with keys k [B,d] against queue [K,d] and, for
    mix = (N, s, s2), synthetic negatives; mean over the batch."""
    n, s, s2 = mix
    logits = [(q * k).sum(1, keepdim=True), q @ queue.t()]
    if n and s + s2:
        with torch.no_grad():
            batch, d = q.shape
            hardest = logits[1].topk(n, dim=1, sorted=False).indices
            rows = lambda m: queue[hardest.gather(1, torch.randint(n, (batch, m))).view(-1)].view(batch, m, d)
            synthetic = []
            if s:
                synthetic.append(torch.lerp(rows(s), rows(s), torch.rand(batch, s, 1)))
            if s2:
                synthetic.append(torch.lerp(rows(s2), q[:, None], torch.rand(batch, s2, 1) / 2))
            synthetic = [torch.nn.functional.normalize(h, dim=2) for h in synthetic]
        logits += [torch.bmm(h, q[:, :, None]).squeeze(2) for h in synthetic]
    logits = torch.cat(logits, 1) / tau
    return torch.nn.functional.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--queue", type=int, default=65536)
    p.add_argument("--dim", type=int, default=128)
    p.add_argument("--mochi", default="1024,1024,128", help="N,s,s2")
    args = worker.arguments(p)
    worker.serve(args, lambda: setup(args))


def setup(args):
    torch = worker.start_torch(args.threads)
    unit = lambda n: torch.nn.functional.normalize(torch.randn(n, args.dim), dim=1)
    q, k, queue = unit(args.batch).requires_grad_(), unit(args.batch), unit(args.queue)
    mix = tuple(int(x) for x in args.mochi.split(","))

    def run(mix):
        q.grad = None
        contrastive_loss(torch, q, k, queue, mix, 0.2).backward()

    def measure(n):
        ms = {"mochi_ms": [], "moco_ms": []}
        for _ in range(n):
            ms["mochi_ms"] += worker.times(lambda: run(mix), 1)
            ms["moco_ms"] += worker.times(lambda: run((0, 0, 0)), 1)
        return {"loss_ms": worker.median(ms["mochi_ms"]), "moco_ms": worker.median(ms["moco_ms"]),
                "peak_rss_mb": worker.peak_rss_mb()}

    measure(2)
    return worker.describe(torch), measure


if __name__ == "__main__":
    main()
