"""PyTorch's own sample inputs, through the ops: equal to PyTorch's function, or refused by name.

``torch.testing._internal`` holds the inputs by which PyTorch tests its functions. Each of them goes
to the op that computes the same, reshaped to [N, C, H, W] where it has fewer dimensions. The
results and gradients must be as close to float64 as PyTorch's, or the op must refuse the sample
with a ``ValueError`` or ``TypeError`` for a reason that is listed here.
"""

import functools
import math
import re
from collections import Counter
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gioada_fast import ops
from tests.op_checks import DTYPES, TARGETS, assert_as_good_as_eager, require, roundoff_of

pytest.importorskip("expecttest", reason="PyTorch's samples need expecttest (extra test)")
common_methods_invocations = pytest.importorskip(
    "torch.testing._internal.common_methods_invocations"
)


def image(x: Tensor) -> Tensor:
    """[N, C] or [N, C, W] as [N, C, H, W]; more dimensions stay for the op to refuse."""
    return x if x.dim() > 3 else x.view(*x.shape[:2], *[1] * (4 - x.dim()), *x.shape[2:])


def cross_entropy(x: Tensor, target: Tensor, ignore_index: int = -100, **kwargs) -> Tensor:
    if target.dtype.is_floating_point:
        return ops.upsample_cross_entropy(image(x), target, ignore_index, **kwargs)
    labels = target.reshape(len(target), *image(x).shape[2:]) if x.dim() < 5 else target
    loss = ops.upsample_cross_entropy(image(x), labels, ignore_index, **kwargs)
    return loss if loss.dim() == 0 else loss.view_as(target)


def interpolate(
    x: Tensor,
    size: tuple[int, int] | None = None,
    scale_factor: float | None = None,
    mode: str = "bilinear",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
) -> Tensor:
    if recompute_scale_factor:
        size, scale_factor = [int(s * scale_factor) for s in x.shape[2:]], None
    n, c, h, w = x.shape
    depth = x.reshape(n * c, 1, h, w)
    joint = ops.semantic_depth_concat(
        torch.zeros_like(depth).detach(),
        depth,
        size,
        scale_factor=scale_factor,
        align_corners=bool(align_corners),
    )
    return joint[:, 1].reshape(n, c, *joint.shape[2:])


def instance_norm(
    x: Tensor, momentum: float = 0.1, use_input_stats: bool = True, **kwargs
) -> Tensor:
    # momentum acts on running statistics alone; every sample normalises by those of the input.
    assert use_input_stats
    return ops.instance_norm_act(image(x), "none", **kwargs).view_as(x)


def group_norm(x: Tensor, groups: int, **kwargs) -> Tensor:
    return ops.instance_norm_act(image(x), "none", groups=groups, **kwargs).view_as(x)


def softmax(x: Tensor, dim: int) -> Tensor:
    vectors = x.view(1) if x.dim() == 0 else x.movedim(dim, -1)
    logits = vectors.reshape(math.prod(vectors.shape[:-1]), vectors.shape[-1])
    out = ops.semantic_depth_concat(image(logits), None, (1, 1)).reshape(vectors.shape)
    return out.view_as(x) if x.dim() == 0 else out.movedim(-1, dim)


# Function of PyTorch -> (variant of its samples, ours, number of samples per dtype that ours must
# take, reasons for which it may refuse others)
CONTRACT: dict[str, tuple[str, Callable, int, tuple[str, ...]]] = {
    "nn.functional.cross_entropy": (
        "",
        cross_entropy,
        10,
        ("does not take probabilities", r"logits: \[2, 3, 1, 2, 3\], expected \[N, C, h"),
    ),
    "nn.functional.interpolate": ("bilinear", interpolate, 24, ()),
    "nn.functional.instance_norm": ("", instance_norm, 1, ("'running_mean'",)),
    "nn.functional.group_norm": ("", group_norm, 17, (r"eps is -0\.5",)),
    "softmax": ("", softmax, 6, (r"logits: \[.*\], expected \[N, C, h, w\] with all but N above",)),
}


def samples(name: str, variant: str, dtype: torch.dtype) -> list:
    (info,) = (
        info
        for info in common_methods_invocations.op_db
        if info.name == name and info.variant_test_name == variant
    )
    return list(info.sample_inputs("cpu", dtype, requires_grad=True))


def positional(function: Callable, sample) -> tuple[Callable, tuple]:
    """The function of the sample's tensors alone, and these tensors."""
    named = dict(enumerate([sample.input, *sample.args])) | sample.kwargs
    tensors = {k: v for k, v in named.items() if isinstance(v, Tensor)}
    others = {k: v for k, v in named.items() if k not in tensors}

    def call(*values: Tensor):
        given = others | dict(zip(tensors, values, strict=True))
        args = [given[k] for k in sorted(k for k in given if isinstance(k, int))]
        return function(*args, **{k: v for k, v in given.items() if isinstance(k, str)})

    return call, tuple(tensors.values())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", CONTRACT)
def test_samples_agree_or_are_refused(name, target, dtype, summarise):
    backend, device = require(*target)
    if target == ("triton", "cpu") and dtype != torch.float32:
        pytest.skip("slow in Triton's interpreter; the roster has these dtypes")
    variant, ours, minimum, reasons = CONTRACT[name]
    theirs = functools.reduce(getattr, name.split("."), torch)
    taken, refused = 0, Counter()
    for sample in samples(name, variant, dtype):
        fused, inputs = positional(ours, sample)
        reference, _ = positional(theirs, sample)
        inputs = tuple(x.detach().to(device).requires_grad_(x.requires_grad) for x in inputs)
        with ops.backend(backend):
            try:
                fused(*inputs)
            except (TypeError, ValueError) as error:
                reason = next((r for r in reasons if re.search(r, str(error))), None)
                assert reason is not None, f"refused without a listed reason: {error}"
                refused[reason] += 1
                continue
            # Twice: of the few values of a sample, eager may round all but exactly.
            assert_as_good_as_eager(fused, reference, inputs, 2 * roundoff_of(target, dtype))
        taken += 1
    why = ", ".join(f"{count} because of {reason}" for reason, count in refused.items())
    summarise(
        f"{name} {dtype}, {backend} on {device}: {taken} of PyTorch's samples agree, "
        f"{sum(refused.values())} refused{': ' if why else ''}{why}"
    )
    assert taken >= minimum


def test_cross_entropy_samples_with_other_options():
    """Options that the samples leave out: label smoothing, negative weights, all ignored."""
    x = torch.randn(2, 5, 3, 4)
    y = torch.randint(0, 5, (2, 3, 4))
    weight = torch.tensor([-1.0, 2.0, 0.0, -0.5, 1.5])
    for reduction in ("mean", "sum", "none"):
        for smoothing in (0.0, 0.1, 1.0):
            for w in (None, weight):
                options = dict(weight=w, reduction=reduction, label_smoothing=smoothing)
                found = ops.upsample_cross_entropy(x, y, -100, **options)
                expected = F.cross_entropy(x, y, ignore_index=-100, **options)
                torch.testing.assert_close(found, expected)
