"""One update of all networks: first the generators, then the discriminators.

First the generators' loss is computed with the discriminators frozen, then the discriminators' loss
on the tensors that the generators computed. Each loss is wrapped in a module, so that
``torch.compile`` compiles it as one graph and DistributedDataParallel reduces the gradients of the
networks that the loss trains.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..adaptation import Batch, GeneratorStep, LossScale, TwoLevelAdaptation, frozen
from . import distributed
from .device import autocast


class Step:
    """Computes the gradients of the networks that a phase trains, and updates them.

    Args:
        adaptation: the networks, on their device.
        optimisers: optimisers of the networks that the phase trains, by name.
        precision: see ``device.autocast``.
        compile: whether to compile both losses with ``torch.compile(fullgraph=True)``.
        adapts: whether batches have a target. If not, only the task network is trained.
        clip_norm: maximum norm of the task network's gradient; None: any.
        micro_batch: number of pairs in memory at once; larger batches are cut, and the gradients of
            their parts accumulated. None: any.

    With several processes, each rank computes gradients for its own batches. DDP averages them once
    per update, weighted so that the result is the mean over all pixels and pairs of all ranks.
    """

    def __init__(
        self,
        adaptation: TwoLevelAdaptation,
        optimisers: dict[str, torch.optim.Optimizer],
        precision: str = "auto",
        compile: bool = False,
        adapts: bool = True,
        clip_norm: float | None = None,
        micro_batch: int | None = None,
    ):
        self.clip_norm, self.micro_batch = clip_norm, micro_batch
        self.adaptation, self.optimisers, self.precision = adaptation, optimisers, precision
        self.device = next(adaptation.parameters()).device
        self._adapts = adapts
        trained = [adaptation.task, *([adaptation.translation] if adapts else [])]
        discriminators = [adaptation.image_discriminator, adaptation.output_discriminator]
        self._discriminators = discriminators
        self._generators_loss = _loss_module(adaptation.generators_loss, trained, compile)
        self._discriminators_loss: nn.Module | None = None
        if adapts and any(network is not None for network in discriminators):
            loss = adaptation.discriminators_loss
            self._discriminators_loss = _loss_module(loss, discriminators, compile)

    def __call__(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Update every network once and return this process's losses, still on the device.

        Args:
            batches: batches whose gradients are accumulated into the mean over their pixels and
                pairs.
        """
        for optimiser in self.optimisers.values():
            optimiser.zero_grad(set_to_none=True)
        losses = self.gradients(batches)
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.adaptation.task.parameters(), self.clip_norm)
        for optimiser in self.optimisers.values():
            optimiser.step()
        if self._adapts:
            self.adaptation.update_teacher()
        return losses

    def gradients(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Accumulate the gradients in the weights' ``grad`` and return the losses, detached."""
        totals: dict[str, Tensor] = {}
        parts = [part for batch in batches for part in self._parts(batch)]
        # stable: the order of the pairs, except that DDP reduces with the last part
        parts.sort(key=self._trains_every_network)
        scales = self._scales(parts)
        for i, (part, scale) in enumerate(zip(parts, scales, strict=True)):
            with ExitStack() as stack:
                if i < len(parts) - 1:
                    for module in (self._generators_loss, self._discriminators_loss):
                        if isinstance(module, DistributedDataParallel):
                            stack.enter_context(module.no_sync())
                losses = self._gradients_of(part, scale)
            for name, loss in losses.items():
                loss = loss.detach()
                totals[name] = totals[name] + loss if name in totals else loss
        return totals

    def _parts(self, batch: Batch) -> list["_Part"]:
        pairs = len(batch.source_image)
        size = self.micro_batch or pairs
        if size >= pairs:
            return [_Part(batch, 0)]
        slices = (slice(first, first + size) for first in range(0, pairs, size))
        return [
            _Part(Batch._make(x if x is None else x[s] for x in batch), s.start) for s in slices
        ]

    def _roles(self, part: "_Part") -> tuple[int, int]:
        """Numbers of pairs whose source is translated, and that self-training uses."""
        pairs, adaptation = range(len(part.batch.source_image)), self.adaptation
        translated = pairs[adaptation.translated(part.first)]
        return len(translated), len(pairs[adaptation.self_trained(part.first)])

    def _trains_every_network(self, part: "_Part") -> bool:
        """Whether the translation network and its discriminator get a gradient, if they train."""
        is_on = self._adapts and self.adaptation.translation is not None
        return not is_on or self._roles(part)[0] > 0

    def _gradients_of(self, part: "_Part", scale: LossScale | None) -> dict[str, Tensor]:
        with frozen(*self._discriminators):
            with autocast(self.device, self.precision):
                # compiled code depends on whether the first pair's index is odd, no more
                generated: GeneratorStep = self._generators_loss(part.batch, scale, part.first % 2)
            generated.losses["total"].backward()
        if self._discriminators_loss is None or generated.is_empty:
            return generated.losses
        with autocast(self.device, self.precision):
            losses = self._discriminators_loss(generated._replace(losses={}), scale)
        sum(losses.values()).backward()
        return generated.losses | losses

    def _scales(self, parts: Sequence["_Part"]) -> list[LossScale | None]:
        processes = distributed.world_size()
        if len(parts) == processes == 1:
            return [None]
        weights = torch.stack([self.adaptation.pixel_weights(part.batch) for part in parts])
        total = distributed.sum_over_processes(weights.sum(0))
        # DDP divides the sum of the gradients by the number of processes
        pixels = (weights / total.clamp(min=1e-12) * processes).float()
        # the same in every process, unlike pixels
        counts = [(len(part.batch.source_image), *self._roles(part)) for part in parts]
        totals = [sum(column) for column in zip(*counts, strict=True)]
        return [
            LossScale(*of_part, *(n / all_n for n, all_n in zip(pairs, totals, strict=True)))
            for of_part, pairs in zip(pixels, counts, strict=True)
        ]


class _Part(NamedTuple):
    """A batch, or a micro-batch of one."""

    batch: Batch
    first: int
    """Index of its first pair in the batch."""


class GraphedStep:
    """A step as one CUDA graph: the host launches all kernels of an update at once.

    The first ``warmup`` updates run eagerly. The next update is recorded, and all later updates
    replay the recording on their own batches, which must have the same sizes. The learning rates of
    the optimisers must be tensors: numbers would become constants of the recording.

    Args:
        step: step of a single process on a CUDA device.
        warmup: eager updates before the recording, in which libraries choose kernels and allocate
            workspaces.
    """

    def __init__(self, step: Step, warmup: int = 3):
        self.step, self.warmup = step, warmup
        self._stream = torch.cuda.Stream(step.device)
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Like ``Step``, but the next call overwrites the losses that this call returns."""
        if self.warmup > 0:
            self.warmup -= 1
            # on the stream of the recording, because autograd ties gradients to their stream
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                losses = self.step(batches)
            torch.cuda.current_stream().wait_stream(self._stream)
            return losses
        if self._graph is None:
            self._batches = [batch.map(torch.clone) for batch in batches]
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, stream=self._stream):
                self._losses = self.step(self._batches)
        for recorded, batch in zip(self._batches, batches, strict=True):
            for to, tensor in zip(recorded, batch, strict=True):
                if to is not None:
                    assert tensor is not None
                    to.copy_(tensor, non_blocking=True)
        self._graph.replay()
        return self._losses


class LossModule(nn.Module):
    """A loss function as a module, whose parameters are the weights that the loss trains."""

    def __init__(self, loss: Callable, networks: Sequence[nn.Module | None]):
        super().__init__()
        self.networks = nn.ModuleList(network for network in networks if network is not None)
        self.loss = loss

    def forward(self, *args):
        return self.loss(*args)


def _loss_module(loss: Callable, networks: Sequence[nn.Module | None], compile: bool) -> nn.Module:
    module: nn.Module = LossModule(loss, networks)
    if compile:
        module = cast(nn.Module, torch.compile(module, fullgraph=True, dynamic=False))
    if distributed.world_size() == 1:
        return module
    device = next(module.parameters()).device
    return DistributedDataParallel(
        module,
        device_ids=[device] if device.type == "cuda" else None,
        broadcast_buffers=False,  # training changes no buffer
        gradient_as_bucket_view=True,
    )
