"""PyTorch's side of bench/training.py: the `compact` network, channels-last, bfloat16, both threads.

`python bench/torch_speed.py <classes> <batch> <steps> <width> …` prints images per second. It is run by an interpreter
that has torch==2.13.0, and imports nothing of this project.
"""

from __future__ import annotations

import json
import sys
import time

import torch
from torch import nn


def network(classes: int, widths: list[int]) -> nn.Sequential:
    """The layers of `networks.compact`, with a frozen first layer of random weights."""
    first = nn.Conv2d(3, 24, 2, bias=False)
    first.weight.requires_grad_(False)
    layers: list[nn.Module] = [first, nn.SiLU()]
    before = 24
    for width in widths:
        layers += [
            nn.Conv2d(before, width, 3, padding=1, bias=False),
            nn.MaxPool2d(2),
            nn.BatchNorm2d(width),
            nn.SiLU(),
        ]
        layers += [nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.SiLU()]
        before = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes, bias=False))


def main(classes: int, batch: int, steps: int, *widths: int) -> float:
    """Images per second over `steps` steps, after as many that do not count."""
    torch.manual_seed(0)
    model = network(classes, list(widths)).to(memory_format=torch.channels_last)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1, momentum=0.85, nesterov=True)
    images = torch.randint(0, 256, (8192, 3, 32, 32), dtype=torch.uint8).to(memory_format=torch.channels_last)
    labels = torch.arange(8192) % classes
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.2)
    for counted in (False, True):
        started = time.perf_counter()
        for step in range(steps):
            chosen = torch.arange(step * batch, (step + 1) * batch) % len(images)
            x = (images[chosen].float() / 128 - 1).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = loss_of(model(x), labels[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        if counted:
            return steps * batch / (time.perf_counter() - started)
    raise AssertionError


if __name__ == "__main__":
    print(json.dumps({"value": main(*map(int, sys.argv[1:])), "torch": torch.__version__}))
