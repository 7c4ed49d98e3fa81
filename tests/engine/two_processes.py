"""Run by ``torchrun``: each process computes gradients for one frame; the writer saves them."""

import sys

import torch

from gioada_fast.engine import distributed
from gioada_fast.engine.step import Step
from tests.engine.test_step import make_trained, unequal_batch


def main(path: str, how: str) -> None:
    with distributed.joined("cpu"):
        rank = distributed.rank()
        adaptation = make_trained(keep_half_untranslated=how == "micro_batch")
        with torch.no_grad():  # the writer's weights are the ones that count
            adaptation.task.segmentation.branches[0].weight.add_(rank)
        batch = unequal_batch(labelled=True).map(lambda x: x[rank : rank + 1])
        batches = [batch]
        if how == "accumulate":  # the frame once more, mirrored
            batches.append(batch.map(lambda x: x.flip(-1)))
        elif how == "micro_batch":
            batches = [batch.map(lambda x: torch.cat([x, x.flip(-1)]))]
        micro_batch = 1 if how == "micro_batch" else None
        losses = Step(adaptation, {}, "fp32", micro_batch=micro_batch).gradients(batches)
        names = sorted(losses)
        values = torch.stack([losses[name] for name in names])
        values = distributed.sum_over_processes(values) / distributed.world_size()
        if distributed.is_writer():
            grads = {name: p.grad for name, p in adaptation.named_parameters()}
            losses = dict(zip(names, values.unbind(), strict=True))
            torch.save({"losses": losses, "gradients": grads}, path)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
