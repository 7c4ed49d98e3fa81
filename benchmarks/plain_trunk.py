"""Rebuilds a trunk from PyTorch's own modules, for the yardstick.

Each module of ``gioada_fast`` is replaced according to its type; the layout of the trunk stays. A
new trunk needs no change here, unless it has a new type of fused module.
"""

import copy
from collections.abc import Callable
from functools import cache
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from gioada_fast.models.layers import (
    GROUP_SIZE,
    ActivationPool,
    GroupNormAct,
    GroupNormReLU,
    InstanceNormAct,
)
from gioada_fast.models.trunks import Trunk
from gioada_fast.models.trunks.resnet import FrozenBatchNorm2d


class PlainGroupNormReLU(nn.Module):
    """Group norm over adjacent channels, then ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(F.group_norm(x, x.shape[1] // GROUP_SIZE), inplace=True)


class PlainInstanceNormAct(nn.Module):
    """Instance norm, activation, residual and reflection padding, one after the other."""

    def __init__(self, fused: InstanceNormAct):
        super().__init__()
        self.pad = fused.pad
        self.activation = {
            "none": nn.Identity(),
            "relu": nn.ReLU(inplace=True),
            "leaky_relu": nn.LeakyReLU(0.2, inplace=True),
        }[fused.activation]

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        x = self.activation(F.instance_norm(x))
        x = x if residual is None else x + residual
        return F.pad(x, (self.pad,) * 4, mode="reflect") if self.pad else x


class PlainNormAct(nn.Module):
    """Makes a norm of PyTorch into the norm, an activation and a residual, one after the other."""

    activation: str

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        x = super().forward(x)
        x = F.relu(x, inplace=True) if self.activation == "relu" else x
        return x if residual is None else x + residual


class PlainGroupNormAct(PlainNormAct, nn.GroupNorm):
    def __init__(self, fused: GroupNormAct):
        super().__init__(fused.num_groups, fused.num_channels, fused.eps)
        self.activation = fused.activation


class PlainBatchNormAct(PlainNormAct, nn.BatchNorm2d):
    def __init__(self, frozen: FrozenBatchNorm2d):
        super().__init__(len(frozen.weight), frozen.eps)
        self.activation = frozen.activation
        self.eval().requires_grad_(False)


def _inplace(layer: nn.Module) -> nn.Module:
    if isinstance(layer, nn.ReLU):
        layer.inplace = True  # safe, because only the ReLU reads the result of the convolution
    return layer


PLAIN: dict[type[nn.Module], Callable[..., nn.Module]] = {
    GroupNormAct: PlainGroupNormAct,
    GroupNormReLU: lambda fused: PlainGroupNormReLU(),
    InstanceNormAct: PlainInstanceNormAct,
    FrozenBatchNorm2d: PlainBatchNormAct,
    ActivationPool: lambda fused: nn.Sequential(
        *(PLAIN.get(type(layer), _inplace)(layer) for layer in fused)
    ),
}
"""Type of a module -> function that builds its replacement, without the weights."""


def plain_trunk(trunk: Trunk) -> nn.Module:
    """A copy of the trunk from PyTorch's own modules.

    The keys of the weights are the same. The caller copies the weights, see ``channel_orders``.
    """
    plain = copy.deepcopy(trunk)
    for parent in list(plain.modules()):
        for name, child in list(parent.named_children()):
            if type(child) in PLAIN:
                setattr(parent, name, PLAIN[type(child)](child))
    for parent in plain.modules():
        if isinstance(parent, nn.Sequential):
            for layer, following in pairwise(parent):
                if isinstance(layer, nn.Conv2d):
                    _inplace(following)
    return plain


Order = Tensor | slice
"""Index that puts a dimension of our channels into the order of ``plain_trunk``."""
IN_ORDER = slice(None)


@cache
def _groups_side_by_side(num_channels: int) -> Tensor:
    """Our group g of G is channels g, g + G, g + 2 G, ...; PyTorch's groups are contiguous."""
    return torch.arange(num_channels).view(GROUP_SIZE, -1).t().flatten()


def channel_orders(trunk: Trunk) -> tuple[dict[str, tuple[Order, ...]], Order]:
    """How to reorder the channels of our trunk's weights for ``plain_trunk``.

    The output channels of a convolution are reordered if a ``GroupNormReLU`` follows, and with them
    the input channels of the convolutions that read the result.

    Returns:
        ((output, input) channels of the weights by key, channels of the features). A weight whose
        key is missing keeps its order.
    """
    layers = dict(trunk.named_modules())
    orders: dict[str, tuple[Order, ...]] = {}
    if not any(isinstance(layer, GroupNormReLU) for layer in layers.values()):
        return orders, IN_ORDER
    order_of: dict[fx.Node, Order] = {}
    order: Order = IN_ORDER
    with torch.no_grad():  # recomputed() then is a plain call
        nodes = _Tracer().trace(trunk).nodes
    for node in nodes:  # in the order of execution; the output comes last
        order, *others = [order_of[x] for x in node.all_input_nodes] or [IN_ORDER]
        if any(other is not order for other in others):
            raise NotImplementedError(f"{node}: the channels of its inputs differ in their order")
        layer = layers[str(node.target)] if node.op == "call_module" else None
        if isinstance(layer, nn.Conv2d) and layer.groups == 1:
            readers = [layers.get(str(user.target)) for user in node.users]
            grouped = any(isinstance(reader, GroupNormReLU) for reader in readers)
            order_in, order = order, IN_ORDER
            if grouped:
                order = _groups_side_by_side(layer.out_channels)
            orders |= {f"{node.target}.weight": (order, order_in), f"{node.target}.bias": (order,)}
        elif order is not IN_ORDER and layer is not None and any(layer.state_dict()):
            raise NotImplementedError(
                f"{node.target}: cannot reorder the weights of a {type(layer).__name__}"
            )
        order_of[node] = order
    return orders, order


class _Tracer(fx.Tracer):
    """Treats our fused modules as leaves, like PyTorch's own, but not sequences of modules."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        if isinstance(module, nn.Sequential):
            return False
        return type(module) in PLAIN or super().is_leaf_module(module, name)
