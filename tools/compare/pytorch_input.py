#!/usr/bin/python3
"""Two augmented views of each JPEG by torchvision, PIL and a DataLoader, timed:
the pipeline of facebookresearch/moco (moco-v2) and of its CIFAR-10
demonstration (cifar).

    python3 tools/compare/pytorch_input.py --data DIR --recipe cifar --size 32
"""
import argparse
import os
import random
import time

import worker


class Blur:
    """MoCo-v2's augmentation of SimCLR: PIL's Gaussian blur, random sigma."""

    def __call__(self, image):
        from PIL import ImageFilter

        return image.filter(ImageFilter.GaussianBlur(radius=random.uniform(0.1, 2.0)))


class TwoViews:
    def __init__(self, transform):
        self.transform = transform

    def __call__(self, image):
        return [self.transform(image), self.transform(image)]


def transform(recipe, size):
    from torchvision import transforms as T

    jitter = T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8)
    finish = [T.ToTensor(), T.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    if recipe == "moco-v2":
        return T.Compose([T.RandomResizedCrop(size, scale=(0.2, 1)), jitter, T.RandomGrayscale(0.2),
                          T.RandomApply([Blur()], p=0.5), T.RandomHorizontalFlip(), *finish])
    return T.Compose([T.RandomResizedCrop(size), T.RandomHorizontalFlip(), jitter, T.RandomGrayscale(0.2), *finish])


def batches(torch, data, recipe, size, batch, workers):
    """Endless batches [query views, key views]; no pause between epochs."""
    from torchvision.datasets import ImageFolder

    train = os.path.join(data, "train")
    images = ImageFolder(train if os.path.isdir(train) else data, TwoViews(transform(recipe, size)))
    order = torch.utils.data.RandomSampler(images, replacement=True, num_samples=1 << 30)
    loader = torch.utils.data.DataLoader(images, batch, sampler=order, num_workers=workers, drop_last=True,
                                         worker_init_fn=lambda i: random.seed(i))
    return (views for views, _ in loader)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", required=True, help="folder of <class>/*.jpg, or with such a train/")
    p.add_argument("--recipe", default="moco-v2", choices=["moco-v2", "cifar"])
    p.add_argument("--size", type=int, default=224)
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--workers", type=int, default=2)
    p.add_argument("--seconds", type=float, default=5)
    args = p.parse_args()
    torch = worker.start_torch(1)
    source = batches(torch, args.data, args.recipe, args.size, args.batch, args.workers)
    # What the workers have made ahead is not of the timed span.
    for _ in range(1 + 2 * args.workers):
        next(source)
    start, n = time.perf_counter(), 0
    while time.perf_counter() - start < args.seconds:
        next(source)
        n += 1
    worker.say({**worker.describe(torch), "images_per_s": n * args.batch / (time.perf_counter() - start)})
    os._exit(0)  # without waiting for the workers to finish what nobody wants


if __name__ == "__main__":
    main()
