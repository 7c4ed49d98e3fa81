"""The fused loss in a SegFormer of Hugging Face transformers: one line before training.

    pip install "gioada_fast[transformers]"
    python examples/transformers_model.py
    python examples/transformers_model.py --model nvidia/mit-b0      # or a folder: its weights

Prints the loss, the mIoU on new pictures, and the time of a training step with and without it.
"""

import argparse
import time

import torch
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from gioada_fast import ops
from gioada_fast.integrations.transformers import fuse_loss, unfuse_loss

CLASSES, SIZE = 32, 128  # the more classes, the more the fused loss saves


def draw(count):
    """Noisy pictures [N, 3, H, W] of coloured tiles; labels [N, H, W] are the tiles' colours."""
    tiles = torch.randint(0, CLASSES, (count, 4, 4))
    labels = tiles.repeat_interleave(SIZE // 4, 1).repeat_interleave(SIZE // 4, 2)
    base = torch.arange(CLASSES)
    colours = torch.stack([base % 4 / 3, base // 4 % 4 / 3, base // 16 / 1], dim=1)
    images = colours[labels].permute(0, 3, 1, 2) + 0.1 * torch.randn(count, 3, SIZE, SIZE)
    return {"pixel_values": 2 * images - 1, "labels": labels}


def train_step(model, optimiser, batch):
    optimiser.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    optimiser.step()
    return loss.item()


def seconds(model, optimiser, batch, repeats):
    """Fastest of some training steps."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        train_step(model, optimiser, batch)
        times.append(time.perf_counter() - start)
    return min(times)


parser = argparse.ArgumentParser()
parser.add_argument("--model", help="a name on the hub or a folder; unset: a small new model")
parser.add_argument("--steps", type=int, default=100)
options = parser.parse_args()
if options.steps < 2:
    parser.error(f"--steps is {options.steps}, expected at least 2")
if options.model:
    try:
        model = SegformerForSemanticSegmentation.from_pretrained(options.model, num_labels=CLASSES)
    except (OSError, ValueError) as error:  # no such folder, no network, other weights
        parser.error(f"--model {options.model}: {error}")
else:
    sizes = {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1], "decoder_hidden_size": 32}
    config = SegformerConfig(**sizes, num_labels=CLASSES, drop_path_rate=0.0)
    model = SegformerForSemanticSegmentation(config)
device = "cuda" if torch.cuda.is_available() else "cpu"
model = fuse_loss(model.to(device))  # this is all
optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
for step in range(1, options.steps + 1):
    loss = train_step(model, optimiser, {name: x.to(device) for name, x in draw(2).items()})
    if step in (1, options.steps):
        print(f"step {step}: loss {loss:.3f}")

batch = {name: x.to(device) for name, x in draw(4).items()}  # training never saw them
with torch.no_grad():
    logits = model.eval()(batch["pixel_values"]).logits  # a quarter of the size of the labels
counts = ops.upsample_confusion_matrix(logits, batch["labels"], align_corners=False)
union = counts.sum(0) + counts.sum(1) - counts.diag()
print(f"mIoU {100 * (counts.diag() / union)[union > 0].mean():.1f} %")

model.train()
fused = seconds(model, optimiser, batch, 3)
plain = seconds(unfuse_loss(model), optimiser, batch, 3)  # the model computes its loss itself again
print(f"a step takes {fused:.3f} s fused, {plain:.3f} s without: {plain / fused:.2f} times as fast")
