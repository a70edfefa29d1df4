#!/usr/bin/python3
"""The whole job in PyTorch, from JPEG files: DataLoader, two views, training
step (pytorch_input.py and pytorch_step.py together) on the same cores.

    python3 tools/compare/pytorch_job.py --data DIR --iterations 6
"""
import argparse
import os
import time

import pytorch_input
import pytorch_step
import worker


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", required=True)
    p.add_argument("--recipe", default="moco-v2", choices=["moco-v2", "cifar"])
    p.add_argument("--workers", type=int, default=2)
    pytorch_step.step_arguments(p)
    args = worker.arguments(p)
    torch = worker.start_torch(args.threads)
    trainer = pytorch_step.make_trainer(torch, args)
    source = pytorch_input.batches(torch, args.data, args.recipe, args.image_size, args.batch, args.workers)

    def step():
        trainer.step(*(v.to(memory_format=torch.channels_last) for v in next(source)))

    # By then the workers' stock of batches has settled.
    worker.times(step, 2 + 2 * args.workers)
    n = args.iterations or 6
    start = time.perf_counter()
    worker.times(step, n)
    seconds = time.perf_counter() - start
    worker.say({**worker.describe(torch), "images_per_s": n * args.batch / seconds,
                "step_ms": seconds / n * 1e3, "peak_rss_mb": worker.peak_rss_mb()})
    os._exit(0)  # without waiting for the workers to finish what nobody wants


if __name__ == "__main__":
    main()
