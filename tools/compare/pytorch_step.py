#!/usr/bin/python3
"""A whole training step of MoCHi on MoCo-v2 in PyTorch, timed: key forward,
query forward and backward, loss, SGD, momentum encoder, enqueue.

Written as a careful user would: channels-last, foreach SGD and momentum
update, gradients set to None, torchvision's networks. bf16 is autocast around
the encoders (bf16 working weights beside fp32 masters were tried and were
within 3 %); the loss is fp32. BatchNorm sees the whole batch at once.

    python3 tools/compare/pytorch_step.py --arch resnet18-cifar --image-size 32 --batch 512 --iterations 3
"""
import argparse
import contextlib

import worker
from pytorch_loss import contrastive_loss


def encoder(torch, arch, dim):
    """torchvision's network with the head of MoCo-v2, or, for
    resnet18-cifar, a 3×3 stem without max-pool and a linear head."""
    import torchvision

    nn = torch.nn
    if arch == "resnet18-cifar":
        net = torchvision.models.resnet18(num_classes=dim)
        net.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        net.maxpool = nn.Identity()
        return net
    net = getattr(torchvision.models, arch)()
    width = net.fc.in_features
    net.fc = nn.Sequential(nn.Linear(width, width), nn.ReLU(inplace=True), nn.Linear(width, dim))
    return net


class Trainer:
    """One replica's step on batches of views [B,3,S,S], channels-last."""

    def __init__(self, torch, arch, batch, queue, dim, mix, precision, tau=0.2, m=0.999, lr=0.03):
        self.torch, self.mix, self.tau, self.m, self.dim = torch, mix, tau, m, dim
        last = dict(memory_format=torch.channels_last)
        self.query, self.key = (encoder(torch, arch, dim).to(**last).train() for _ in range(2))
        self.key.load_state_dict(self.query.state_dict())
        self.theta_q, self.theta_k = (list(net.parameters()) for net in (self.query, self.key))
        self.autocast = precision == "bf16"
        self.sgd = torch.optim.SGD(self.theta_q, lr, momentum=0.9, weight_decay=1e-4, foreach=True)
        self.queue = torch.nn.functional.normalize(torch.randn(queue, dim), dim=1)
        self.pointer = 0

    def embed(self, net, views):
        torch = self.torch
        with torch.autocast("cpu", torch.bfloat16) if self.autocast else contextlib.nullcontext():
            out = net(views)
        return torch.nn.functional.normalize(out.float(), dim=1)

    def step(self, views_q, views_k):
        torch = self.torch
        with torch.no_grad():
            k = self.embed(self.key, views_k)
        q = self.embed(self.query, views_q)
        loss = contrastive_loss(torch, q, k, self.queue, self.mix, self.tau)
        self.sgd.zero_grad(set_to_none=True)
        loss.backward()
        with torch.no_grad():
            self.sgd.step()
            torch._foreach_mul_(self.theta_k, self.m)
            torch._foreach_add_(self.theta_k, self.theta_q, alpha=1 - self.m)
            end = self.pointer + len(k)
            if end <= len(self.queue):
                self.queue[self.pointer:end] = k
            else:
                self.queue[(self.pointer + torch.arange(len(k))) % len(self.queue)] = k
            self.pointer = end % len(self.queue)
        return loss.item()


def step_arguments(p):
    p.add_argument("--arch", default="resnet50", help="resnet18, resnet34, resnet50, resnet18-cifar")
    p.add_argument("--image-size", type=int, default=224)
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--queue", type=int, default=65536)
    p.add_argument("--dim", type=int, default=128)
    p.add_argument("--mochi", default="1024,1024,128", help="N,s,s2")
    p.add_argument("--precision", default="bf16", choices=["fp32", "bf16"])


def make_trainer(torch, args):
    return Trainer(torch, args.arch, args.batch, args.queue, args.dim,
                   tuple(int(x) for x in args.mochi.split(",")), args.precision)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    step_arguments(p)
    args = worker.arguments(p)
    worker.serve(args, lambda: setup(args))


def setup(args):
    torch = worker.start_torch(args.threads)
    trainer = make_trainer(torch, args)
    shape = (args.batch, 3, args.image_size, args.image_size)
    views = [torch.randn(shape).to(memory_format=torch.channels_last) for _ in range(2)]

    def measure(n):
        ms = worker.times(lambda: trainer.step(*views), n)
        return {"step_ms": worker.median(ms), "images_per_s": args.batch / worker.median(ms) * 1e3,
                "peak_rss_mb": worker.peak_rss_mb()}

    measure(2)
    return worker.describe(torch), measure


if __name__ == "__main__":
    main()
