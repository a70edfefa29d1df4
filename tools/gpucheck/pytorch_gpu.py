#!/usr/bin/env python3
"""PyTorch's side of check.py, on GPU 0: a whole step of MoCHi on MoCo-v2, or
the loss alone, as a careful user writes it. Prints one JSON object.

Channels-last, autocast to bf16 around the encoders, fused SGD, gradients set
to None; --mode compiled is torch.compile of both encoders. BatchNorm sees the
whole batch. The loss builds every synthetic negative, as public code does.
"""
import argparse
import json
import statistics
import time

import torch
import torchvision


def unit(*shape):
    return torch.nn.functional.normalize(torch.randn(*shape, device="cuda"), dim=-1)


def contrastive_loss(q, k, queue, mix, tau=0.2):
    """InfoNCE of q [B,d] with k [B,d] against queue [K,d] and (N, s, s2)
    synthetic negatives a query."""
    n, s, s2 = mix
    logits = [(q * k).sum(1, keepdim=True), q @ queue.t()]
    if n and s + s2:
        with torch.no_grad():
            hardest = logits[1].topk(n, dim=1, sorted=False).indices

            def rows(m):
                at = hardest.gather(1, torch.randint(n, (len(q), m), device="cuda"))
                return queue[at]

            made = [torch.lerp(rows(s), rows(s), torch.rand(len(q), s, 1, device="cuda"))] if s else []
            if s2:
                made.append(torch.lerp(rows(s2), q[:, None], torch.rand(len(q), s2, 1, device="cuda") / 2))
            made = torch.nn.functional.normalize(torch.cat(made, 1), dim=2)
        logits.append(torch.bmm(made, q[:, :, None]).squeeze(2))
    logits = torch.cat(logits, 1) / tau
    return torch.nn.functional.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long, device="cuda"))


def encoder(arch, dim):
    if arch == "resnet18-cifar":
        net = torchvision.models.resnet18(num_classes=dim)
        net.conv1, net.maxpool = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False), torch.nn.Identity()
    else:
        net = getattr(torchvision.models, arch)()
        width = net.fc.in_features
        net.fc = torch.nn.Sequential(torch.nn.Linear(width, width), torch.nn.ReLU(inplace=True), torch.nn.Linear(width, dim))
    return net.to("cuda", memory_format=torch.channels_last).train()


def stepper(args, mix):
    nets = [encoder(args.arch, args.dim) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    theta_q, theta_k = (list(n.parameters()) for n in nets)
    sgd = torch.optim.SGD(theta_q, 0.03, momentum=0.9, weight_decay=1e-4, foreach=True)
    query, key = (torch.compile(n) if args.mode == "compiled" else n for n in nets)
    queue, at = unit(args.queue, args.dim), 0
    shape = (args.batch, 3, args.image_size, args.image_size)
    views = [torch.randn(shape).pin_memory() for _ in range(2)]

    def embed(net, view):
        x = view.to("cuda", non_blocking=True).to(memory_format=torch.channels_last)
        with torch.autocast("cuda", torch.bfloat16, enabled=args.precision == "bf16"):
            y = net(x)
        return torch.nn.functional.normalize(y.float(), dim=1)

    def step():
        nonlocal at
        with torch.no_grad():
            k = embed(key, views[1])
        value = contrastive_loss(embed(query, views[0]), k, queue, mix)
        sgd.zero_grad(set_to_none=True)
        value.backward()
        with torch.no_grad():
            sgd.step()
            torch._foreach_mul_(theta_k, 0.999)
            torch._foreach_add_(theta_k, theta_q, alpha=0.001)
            queue[torch.arange(at, at + len(k), device="cuda") % len(queue)] = k
        at = (at + len(k)) % len(queue)
        return value.item()

    return step


def times(f, warmup, n):
    for _ in range(warmup):
        f()
    ms = []
    for _ in range(n):
        torch.cuda.synchronize()
        began = time.perf_counter()
        f()
        torch.cuda.synchronize()
        ms.append((time.perf_counter() - began) * 1e3)
    return ms


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=["step", "loss"])
    p.add_argument("--arch", default="resnet50")
    p.add_argument("--image-size", type=int, default=224)
    p.add_argument("--batch", type=int, default=256)
    p.add_argument("--queue", type=int, default=65536)
    p.add_argument("--dim", type=int, default=128)
    p.add_argument("--mochi", default="1024,1024,128")
    p.add_argument("--precision", default="bf16", choices=["fp32", "bf16"])
    p.add_argument("--mode", default="eager", choices=["eager", "compiled"])
    p.add_argument("--iterations", type=int, default=10)
    args = p.parse_args()
    mix = tuple(int(x) for x in args.mochi.split(","))
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    if args.what == "step":
        ms = times(stepper(args, mix), 5, args.iterations)
        print(json.dumps({"step_ms_p50": statistics.median(ms), "images_per_s": args.batch / statistics.median(ms) * 1e3,
                          "peak_mib": torch.cuda.max_memory_allocated() >> 20}))
        return
    q, k, queue = unit(args.batch, args.dim).requires_grad_(), unit(args.batch, args.dim), unit(args.queue, args.dim)
    take = lambda m: lambda: contrastive_loss(q, k, queue, m).backward()
    print(json.dumps({"loss_ms_p50": statistics.median(times(take(mix), 3, args.iterations)),
                      "moco_ms_p50": statistics.median(times(take((0, 0, 0)), 3, args.iterations))}))


if __name__ == "__main__":
    main()
