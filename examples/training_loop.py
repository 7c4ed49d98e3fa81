"""The fused losses in a plain PyTorch training loop: one network for segmentation and depth.

    python examples/training_loop.py

Prints the loss, the IoU on new pictures, and a comparison with the same loss in plain PyTorch.
Runs on a GPU if there is one, in float16; otherwise in bfloat16.
"""

import argparse

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.benchmark import Timer

from gioada_fast import ops

CLASSES, IGNORED = ("wall", "floor", "ball"), 255


def draw(count, height=96, width=128):
    """Balls in a room: images [N, 3, H, W], labels [N, H, W], depth in metres [N, 1, H, W]."""
    y, x = torch.arange(height).view(1, -1, 1), torch.arange(width)
    centre_y, centre_x = height * torch.rand(count, 1, 1), width * torch.rand(count, 1, 1)
    labels = (y > height / 2).long().expand(count, height, width).clone()
    labels[(y - centre_y) ** 2 + (x - centre_x) ** 2 < (height / 5) ** 2] = 2
    images = 0.5 * torch.eye(3)[labels].permute(0, 3, 1, 2)
    images += 0.2 * torch.randn(count, 3, height, width)
    depth = torch.where(labels == 2, 1.5, (height / (y + 1)).clamp(max=4.0)).unsqueeze(1)
    depth[:, :, :4], labels[:, :4] = 0, IGNORED  # no measurement there
    return images, labels, depth


def fused_loss(out, labels, depth):
    loss = ops.upsample_cross_entropy(out[:, :-1], labels, IGNORED, align_corners=False)
    return loss + ops.upsample_depth_loss(out[:, -1:], depth, "l1", depth > 0, align_corners=False)


def plain_loss(out, labels, depth):
    z = F.interpolate(out, labels.shape[1:], mode="bilinear", align_corners=False)
    valid = depth > 0
    loss = F.cross_entropy(z[:, :-1], labels, ignore_index=IGNORED)
    return loss + ((z[:, -1:] - depth).abs() * valid).sum() / valid.sum()


parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=100)
steps = parser.parse_args().steps
if steps < 2:
    parser.error(f"--steps is {steps}, expected at least 2")
device = "cuda" if torch.cuda.is_available() else "cpu"
half = torch.float16 if device == "cuda" else torch.bfloat16
layers = [nn.Conv2d(i, o, 5, 2, 2) for i, o in ((3, 16), (16, 32), (32, 64))]  # an eighth in size
layers = [m for c in layers for m in (c, nn.BatchNorm2d(c.out_channels), nn.ReLU())]
model = nn.Sequential(*layers, nn.Conv2d(64, len(CLASSES) + 1, 3, padding=1)).to(device)
optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
scaler = torch.amp.GradScaler(device, enabled=half == torch.float16)
for step in range(1, steps + 1):
    images, labels, depth = (x.to(device) for x in draw(4))
    with torch.autocast(device, half):
        loss = fused_loss(model(images), labels, depth)
    optimiser.zero_grad()
    scaler.scale(loss).backward()
    scaler.step(optimiser)
    scaler.update()
    if step in (1, steps):
        print(f"step {step}: loss {loss.item():.3f}")

images, labels, depth = (x.to(device) for x in draw(8))  # training never saw them
out = model.eval()(images).detach().requires_grad_()
counts = ops.upsample_confusion_matrix(out[:, :-1], labels, IGNORED, align_corners=False)
iou = counts.diag() / (counts.sum(0) + counts.sum(1) - counts.diag())  # rows are labels
print("IoU", ", ".join(f"{name} {100 * x:.0f} %" for name, x in zip(CLASSES, iou, strict=True)))
for loss in (fused_loss, plain_loss):
    timer = Timer("torch.autograd.grad(loss(out, labels, depth), out)", globals=globals())
    time, value = 1000 * timer.timeit(20).median, loss(out, labels, depth).item()
    print(f"{loss.__name__}: {value:.6f}, {time:.2f} ms with its gradient on one thread")
