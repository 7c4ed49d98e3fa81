"""Back ends, the choice between them, and the registration of ops with ``torch.library``.

An op is a ``FusedOp``: a signature, a kernel and a backward formula. The public function chooses
the back end when it is called, and passes it as the operator's last argument. ``torch.compile``
chooses while it traces and guards the choice, so a switch of back end recompiles.
"""

import functools
import importlib.util
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, is_grad_enabled
from torch._C import _are_functorch_transforms_active
from torch._C._functorch import is_dead_tensor_wrapper  # type: ignore[attr-defined]
from torch.compiler import is_compiling
from torch.nn import Parameter
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from gioada_fast.ops._native import native, native_error

NAMESPACE = "gioada_fast"
BACKENDS = ("reference", "cpp", "triton", "cuda")

# Best first. On CUDA devices C++ comes before Triton: its launch costs less host time.
PREFERENCE = {"cpu": ("cpp", "reference"), "cuda": ("cuda", "triton", "reference")}


@dataclass(frozen=True)
class Backend:
    """A back end and the devices on which it runs in this process.

    Attributes:
        name: one of ``BACKENDS``.
        devices: device types on which it runs in this process; empty if it is not live.
        detail: its version or instruction set, or the reason why it is not live.
    """

    name: str
    devices: tuple[str, ...]
    detail: str

    @property
    def live(self) -> bool:
        """Whether it runs on any device."""
        return bool(self.devices)


def _probe_cpp() -> tuple[tuple[str, ...], str]:
    if native is None:
        return (), f"{native_error}; install with a C++17 compiler"
    return ("cpu",), f"{native.instruction_set()} of {', '.join(native.instruction_sets())}"


def _probe_triton() -> tuple[tuple[str, ...], str]:
    if importlib.util.find_spec("triton") is None:
        return (), "triton is not installed"
    import triton

    if triton.knobs.runtime.interpret:
        return ("cpu",), f"triton {triton.__version__}, interpreter (TRITON_INTERPRET=1)"
    if not torch.cuda.is_available():
        return (), f"triton {triton.__version__}, but no CUDA device"
    return ("cuda",), f"triton {triton.__version__}"


def _probe_cuda() -> tuple[tuple[str, ...], str]:
    if native is None:
        return (), native_error
    if not native.has_cuda:
        return (), "gioada_fast._C was built without nvcc"
    if torch.version.cuda is None:
        return (), "this PyTorch has no CUDA"
    if not torch.cuda.is_available():
        return (), "compiled, but no CUDA device"
    return ("cuda",), f"compiled kernels, torch CUDA {torch.version.cuda}"


@functools.cache
def backends() -> dict[str, Backend]:
    """All back ends by name, live or not. Probed once per process."""
    return {
        "reference": Backend("reference", ("cpu", "cuda"), f"PyTorch {torch.__version__}"),
        "cpp": Backend("cpp", *_probe_cpp()),
        "triton": Backend("triton", *_probe_triton()),
        "cuda": Backend("cuda", *_probe_cuda()),
    }


def _runs_on(name: str, device_type: str) -> bool:
    return device_type in backends()[name].devices


# Makes torch.compile evaluate the call instead of tracing into the probes: the result is a constant
# of the process. torch.compiler.assume_constant_result sets the same attribute, but it imports
# torch._dynamo, which adds a second to the start of every process.
_runs_on._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _checked(name: str | None, origin: str) -> str | None:
    if name is not None and name not in BACKENDS:
        raise ValueError(f"{origin}: {name!r} is not a back end, expected one of {BACKENDS}")
    return name


_forced: str | None = _checked(os.environ.get("GIOADA_BACKEND") or None, "GIOADA_BACKEND")


class backend:
    """Context in which all ops use one back end; ``None`` restores the automatic choice.

    Applies to the whole process, not to one thread. Overrides the environment variable
    ``GIOADA_BACKEND``.

    Raises:
        ValueError: no back end has this name.
        RuntimeError: raised by an op if the back end has no kernel for the op or for the device.
    """

    def __init__(self, name: str | None):
        self.name = _checked(name, "ops.backend")

    def __enter__(self) -> None:
        global _forced
        self.before, _forced = _forced, self.name

    def __exit__(self, *exc_info: object) -> None:
        global _forced
        _forced = self.before


@functools.cache
def _warn_slow(reason: str) -> None:
    warnings.warn(
        f"gioada_fast.ops runs on plain PyTorch, which is slower: {reason} "
        "(GIOADA_BACKEND=reference silences this)",
        RuntimeWarning,
        stacklevel=4,
    )


_ops: dict[str, "FusedOp"] = {}


def registered() -> dict[str, "FusedOp"]:
    """All ops by name."""
    return dict(_ops)


_library = torch.library.Library(NAMESPACE, "FRAGMENT")


class FusedOp:
    """An operator ``torch.ops.gioada_fast.<name>`` and the back ends that can compute it.

    Tracing and transforms see the registered operator. Plain eager mode bypasses the dispatcher: it
    runs the kernel under a ``torch.autograd.Function`` of the same formulas, see ``__call__``.

    Args:
        name: name of the operator.
        fake: returns empty results of the right shape and dtype. Its annotated signature is the
            operator's schema. The last argument is ``backend: str``. An operator may take one list
            of tensors, as its first argument.
        kernel: computes the results, with the signature of ``fake``. The tensors are on a device on
            which the back end is live.
        backends: the back ends that have a kernel.
        setup_context: ``(ctx, inputs, output)``, as in ``torch.library.register_autograd``.
        backward: ``(ctx, *grads)``; None for an op without gradient.
    """

    def __init__(
        self,
        name: str,
        fake: Callable,
        kernel: Callable,
        backends: tuple[str, ...],
        setup_context: Callable | None = None,
        backward: Callable | None = None,
    ):
        self.name = name
        self.kernel = kernel
        self.kernels = backends
        qualified = f"{NAMESPACE}::{name}"
        schema = torch.library.infer_schema(fake, mutates_args=())
        _library.define(name + schema, tags=torch.Tag.pt2_compliant_tag)
        _library.impl(name, kernel, "CompositeExplicitAutograd")
        torch.library.register_fake(qualified, fake, lib=_library)
        self.operator = getattr(getattr(torch.ops, NAMESPACE), name).default
        self._takes_list = schema.startswith("(Tensor[]")
        self._automatic: dict[str, str] = {}
        self._apply: Callable | None = None
        if backward is not None and setup_context is not None:
            torch.library.register_autograd(
                qualified, backward, setup_context=setup_context, lib=_library
            )
            # The base class's apply: Function.apply spends 2 us of Python on functorch
            # transforms, which __call__ has excluded.
            function = self._autograd_function(setup_context, backward)
            self._apply = super(torch.autograd.Function, function).apply  # type: ignore[misc]
        _ops[name] = self

    def __call__(self, *args: Any) -> Any:
        """Run the operator; the last argument is the back end that ``choose`` named.

        Returns a tensor, or several, as ``fake`` does.
        """
        # Plain eager mode bypasses the dispatcher: its round trip through Python costs more than a
        # small kernel. Microseconds of one forward and backward, minimum of many calls; what an
        # update of the demo (0.53 s in `make train`) saves, from the calls on tiny tensors, since
        # in the demo's the kernels' own times vary by more:
        #
        #                              the demo's tensors    tiny tensors         calls in
        #                              bypass  dispatcher    bypass  dispatcher   an update  saved
        #   gan_loss (four maps)           77         160        56         147           2  0.03 %
        #   upsample_cross_entropy       1191        1269        56          96           1  0.01 %
        #   upsample_depth_loss           152         191        57          98           1  0.01 %
        #   semantic_depth_concat        5103        5295        74         118           1  0.01 %
        #   instance_norm_act            4014        4370        76         125          44  0.4 %
        #   translation_input             367         372        10          13           1  0.00 %
        #   upsample_confusion_matrix     320         324         8          10           0  0
        #
        # So the bypass hardly matters to training. It pays for programs that call a single op:
        # without it, gan_loss takes longer than plain PyTorch (147 us against 132 for the maps of
        # the demo; with the bypass 74).
        #
        # Dispatch modes and functorch transforms such as vmap must see the operator. PyTorch has
        # only private functions that detect them (0.07 us for both).
        #
        # Measured on one thread of an AMD EPYC with PyTorch 2.13.0+cpu and Python 3.11.7. To repeat
        # it, with op.operator in place of op for the dispatcher:
        #   python -m timeit -s "import torch; from gioada_fast import ops
        #   x, op = torch.randn(1, 1, 2, 2, requires_grad=True), ops.registered()['gan_loss']" \
        #   "torch.autograd.grad(op([x] * 4, [True] * 4, 'lsgan', 'cpp').sum(), x)"
        if is_compiling() or is_in_torch_dispatch_mode() or _are_functorch_transforms_active():
            return self.operator(*args)
        may_want_grad = self._apply is not None and is_grad_enabled()
        wants_grad = False
        for x in args[0] if self._takes_list else args:
            if type(x) is Tensor or type(x) is Parameter:
                if may_want_grad and x.requires_grad:
                    wants_grad = True
                    if is_dead_tensor_wrapper(x):  # escaped from a functorch transform
                        return self.operator(*args)
            elif isinstance(x, Tensor):
                return self.operator(*args)
        if not wants_grad or self._apply is None:
            return self.kernel(*args)
        if self._takes_list:
            return self._apply(args[1:], *args[0])
        return self._apply(*args)

    def _autograd_function(
        self, setup_context: Callable, backward: Callable
    ) -> type[torch.autograd.Function]:
        kernel = self.kernel

        def forward(ctx, *args):
            result = kernel(*args)
            setup_context(ctx, args, result)
            return result

        # Autograd sees tensors that are arguments, but not tensors in a list.
        def forward_list(ctx, others, *tensors):
            return forward(ctx, tensors, *others)

        def backward_list(ctx, *grads):
            return None, *backward(ctx, *grads)[0]

        methods = (forward_list, backward_list) if self._takes_list else (forward, backward)
        named = zip(("forward", "backward"), map(staticmethod, methods), strict=True)
        return type(self.name, (torch.autograd.Function,), dict(named))

    def backends_on(self, device_type: str) -> list[str]:
        """Back ends that can run this op on a device type now, best first; reference is last."""
        order = PREFERENCE.get(device_type, ("reference",))
        # A forced choice may name back ends that are never chosen automatically, such as Triton's
        # interpreter.
        others = [b for b in BACKENDS if b not in order]
        return [
            name
            for name in (*order, *others)
            if name == "reference" or (name in self.kernels and _runs_on(name, device_type))
        ]

    def obstacle(self, name: str, device_type: str) -> str | None:
        """Why a back end cannot run this op on a device type now; None if it can."""
        if name == "reference":
            missing = device_type == "cuda" and not torch.cuda.is_available()
            return "no CUDA device" if missing else None
        if name not in self.kernels:
            return "no kernel for this op"
        if _runs_on(name, device_type):
            return None
        if name in PREFERENCE.get(device_type, ()):
            return backends()[name].detail
        if name == "triton" and device_type == "cpu":
            return "runs on cpu in its interpreter only (TRITON_INTERPRET=1)"
        return f"no kernel for {device_type}"

    def explain(self, device_type: str) -> tuple[str | None, dict[str, str]]:
        """The back end that runs this op on a device type now, and why the others do not.

        Returns:
            Its name, None if a call would fail; and the reason of each other back end, by name.
        """
        order = (_forced,) if _forced else PREFERENCE.get(device_type, ("reference",))
        obstacles = {name: self.obstacle(name, device_type) for name in BACKENDS}
        chosen = next((name for name in order if obstacles[name] is None), None)
        idle = f"{_forced} is forced" if _forced else f"{chosen} is preferred"
        reasons = {
            name: obstacle or (idle if _forced or name in order else "runs only if it is forced")
            for name, obstacle in obstacles.items()
            if name != chosen
        }
        return chosen, reasons

    def choose(self, tensor: Tensor) -> str:
        """Name of the back end for a call with this tensor.

        float64 uses the reference: no kernel computes in float64.

        Raises:
            RuntimeError: the requested back end cannot run this op on this device.
        """
        if tensor.dtype is torch.float64:
            return "reference"
        device_type = "cpu" if tensor.is_cpu else tensor.device.type
        if _forced is None:
            return self._automatic.get(device_type) or self._choose_automatically(device_type)
        if _forced == "reference" or _forced in self.backends_on(device_type):
            return _forced
        reason = self.obstacle(_forced, device_type)
        raise RuntimeError(f"{self.name}: back end {_forced!r} cannot run: {reason}")

    def _choose_automatically(self, device_type: str) -> str:
        for name in PREFERENCE.get(device_type, ()):
            if name in self.kernels and _runs_on(name, device_type):
                self._automatic[device_type] = name
                return name
        if device_type in PREFERENCE and not is_compiling():
            best = PREFERENCE[device_type][0]
            _warn_slow(f"back end {best!r} is not live: {backends()[best].detail}")
        return "reference"


def loss_gradient(
    name: str, arguments: int, of_each: Callable[..., Tensor]
) -> tuple[Callable, Callable]:
    """``setup_context`` and ``backward`` of a loss whose forward also computes the gradient.

    Only the operator's first input has a gradient. The outputs are the loss and that gradient in
    float32, empty if not needed. If the loss is a scalar, the backward only scales the gradient.
    Losses of single pixels (``reduction="none"``) come without a gradient, since it depends on
    theirs: the backward calls ``of_each``. Second derivatives are refused.

    Args:
        name: name of the op, for error messages.
        arguments: number of the operator's arguments, the back end included.
        of_each: ``(grad_losses, *inputs)``, the operator's inputs; returns the gradient of the
            first one, in any dtype. It is the gradient of a sum with ``grad_losses`` as weights of
            the pixels.
    """

    def setup_context(ctx, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
        loss, grad = output
        ctx.mark_non_differentiable(grad)
        ctx.set_materialize_grads(False)  # else grad gets a gradient of zeros
        ctx.dtype = inputs[0].dtype
        ctx.inputs = None
        if loss.dim() == 0:
            ctx.save_for_backward(grad)
        else:
            ctx.save_for_backward(*(x for x in inputs if isinstance(x, Tensor)))
            ctx.inputs = [_SAVED if isinstance(x, Tensor) else x for x in inputs]

    def backward(ctx, grad_loss: Tensor | None, _: None) -> tuple:
        refuse_second_derivative(name)
        if grad_loss is None:
            return (None,) * arguments
        if ctx.inputs is None:
            (grad,) = ctx.saved_tensors
            grad = grad * grad_loss
        else:
            saved = iter(ctx.saved_tensors)
            grad = of_each(grad_loss, *(next(saved) if x is _SAVED else x for x in ctx.inputs))
        return grad.to(ctx.dtype), *[None] * (arguments - 1)

    return setup_context, backward


_SAVED = object()  # the place of a tensor among the inputs that a context keeps


def refuse_second_derivative(name: str) -> None:
    """Reject double backward: the saved gradient would be treated as a constant."""
    if torch.is_grad_enabled():
        raise RuntimeError(
            f"{name} has no second derivative: "
            'with create_graph=True, compute it under ops.backend("reference")'
        )


def empty_gradient(x: Tensor, needed: bool) -> Tensor:
    """Uninitialised float32 tensor for the gradient of ``x`` [N, C, h, w]; empty if not needed.

    Has the shape of ``x`` and is channels-last.
    """
    if not needed:
        return x.new_empty(0, dtype=torch.float32)
    n, c, h, w = x.shape
    return x.new_empty((n, h, w, c), dtype=torch.float32).permute(0, 3, 1, 2)
