"""Encoders in PyTorch, from the tensors of a checkpoint under torchvision's names."""

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock

STAGES = {"resnet8": (1, 1, 1), "resnet20": (3, 3, 3)}


class Small(nn.Module):
    """A ResNet for small images: 3×3 stem of 16 channels, three stages."""

    def __init__(self, blocks):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        width = 16
        for stage, count in enumerate(blocks):
            made = []
            for i in range(count):
                out, stride = 16 << stage, 2 if stage > 0 and i == 0 else 1
                shortcut = None
                if stride != 1 or width != out:
                    shortcut = nn.Sequential(nn.Conv2d(width, out, 1, stride, bias=False), nn.BatchNorm2d(out))
                made.append(BasicBlock(width, out, stride, shortcut))
                width = out
            setattr(self, f"layer{stage + 1}", nn.Sequential(*made))
        self.relu, self.fc = nn.ReLU(), nn.Linear(width, 1)

    def forward(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean((2, 3)))


def encoder(arch, dim, head):
    """An encoder with a head to dim, its weights as PyTorch draws them."""
    if arch in STAGES:
        net = Small(STAGES[arch])
    else:
        net = getattr(torchvision.models, arch.removesuffix("-cifar"))()
        if arch.endswith("-cifar"):
            net.conv1, net.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    width = net.fc.in_features
    net.fc = nn.Linear(width, dim) if head == "linear" else nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, dim))
    return net


def loaded(tensors, prefix, settings, dtype):
    """The encoder of a checkpoint: every tensor must have its place."""
    net = encoder(settings["arch"], settings["dim"], settings["head"])
    state = {k.removeprefix(prefix): torch.from_numpy(v.copy()) for k, v in tensors.items() if k.startswith(prefix)}
    missing, extra = net.load_state_dict(state, strict=False)
    missing = [m for m in missing if not m.endswith("num_batches_tracked")]
    if missing or extra:
        raise ValueError(f"{prefix}: the checkpoint lacks {missing}, PyTorch's network {extra}")
    return observable(net).to(dtype)


def norms(net):
    return {name: m for name, m in net.named_modules() if isinstance(m, nn.BatchNorm2d)}


class Rectified(torch.autograd.Function):
    """ReLU, whose gradient can be taken as an engine in float32 might: an input so near 0 that it may round to the
    other side lets the gradient through or not, by chance."""

    uncertain = 0.0  # how near, in parts of the layer's scale; then the next gradients are drawn

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        through = x > 0
        if Rectified.uncertain:
            near = x.abs() < Rectified.uncertain * x.square().mean().sqrt()
            through = torch.where(near, torch.rand_like(x) < 0.5, through)
        return grad * through


class Rectifier(nn.Module):
    def forward(self, x):
        return Rectified.apply(x)


def observable(net):
    """The network with Rectifier for every ReLU."""
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, Rectifier())
    return net


class Statistics:
    """Records the mean and the unbiased variance of what every BatchNorm layer is given."""

    def __init__(self, net):
        self.sums, self.groups, self.hooks = {}, {}, []
        for name, module in norms(net).items():
            self.hooks.append(module.register_forward_pre_hook(self.hook(name)))

    def hook(self, name):
        def record(_, inputs):
            x = inputs[0].detach().double()
            for part, value in (("running_mean", x.mean((0, 2, 3))), ("running_var", x.var((0, 2, 3), unbiased=True))):
                key = f"{name}.{part}"
                self.sums[key] = self.sums.get(key, 0) + value
                self.groups[key] = self.groups.get(key, 0) + 1

        return record

    def means(self):
        """The means over all groups, and no more recording."""
        for hook in self.hooks:
            hook.remove()
        return {k: (v / self.groups[k]).numpy() for k, v in self.sums.items()}


def embed(net, images, group, dtype):
    """Rows of length 1, group by group: each with its own batch statistics."""
    out = []
    for at in range(0, len(images), group):
        out.append(F.normalize(net(torch.from_numpy(images[at : at + group].copy()).to(dtype)), dim=1))
    return torch.cat(out)


def features(net, images, batch=256):
    """Backbone features and embeddings in evaluation mode, rows of length 1."""
    net.eval()
    seen = []
    hook = net.fc.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        embeddings = torch.cat([net(torch.from_numpy(images[at : at + batch].copy())) for at in range(0, len(images), batch)])
    hook.remove()
    return F.normalize(torch.cat(seen), dim=1).numpy().astype(np.float64), F.normalize(embeddings, dim=1).numpy().astype(np.float64)
