"""The tests that every fused op must pass: subclass ``OpChecks`` in the op's test module.

``gioada_fast.ops.comparison`` has the rule for results and gradients. An op with other results,
such as counts, overrides ``assert_right``.
"""

import functools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gioada_fast import ops
from gioada_fast.ops.comparison import DTYPES, cast, compare, roundoff_of, run

TARGETS = [  # back end, device
    pytest.param(("cpp", "cpu"), id="cpp"),
    pytest.param(("triton", "cpu"), id="triton-interpreter"),
    pytest.param(("cuda", "cpu"), id="cuda-emulated", marks=pytest.mark.emulated),
    pytest.param(("triton", "cuda"), id="triton-gpu", marks=pytest.mark.gpu),
    pytest.param(("cuda", "cuda"), id="cuda-gpu", marks=pytest.mark.gpu),
]


def require(backend: str, device: str, op: str | None = None) -> tuple[str, str]:
    """Skip, with the reason, unless the back end runs (the op) on the device; returns both."""
    found = ops.backends()[backend]
    if device not in found.devices:
        pytest.skip(f"{backend} does not run on {device}: {found.detail}")
    if op is not None and backend not in ops.registered()[op].backends_on(device):
        pytest.skip(f"{op} has no {backend} kernel")
    return backend, device


def assert_as_good_as_eager(
    fused: Callable, reference: Callable, inputs: tuple, roundoff: float = 0.0
) -> None:
    """The rule of ``gioada_fast.ops.comparison``, for one set of inputs.

    ``roundoff`` is an extra error that the back end may have, relative to the largest value.
    """
    for difference in compare(fused, reference, inputs, roundoff):
        assert difference.right


class OpChecks:
    """Base class of an op's tests: the subclass states the attributes and inherits the tests.

    Attributes:
        name: name of the operator in ``torch.ops.gioada_fast``.
        fused: the public function; it returns a single tensor.
        reference: the same function in plain PyTorch.
        shapes: id of a case -> argument of ``inputs``.
        options: id of a case -> keyword arguments of both functions, for cases that have any.
        alignments: values of ``align_corners`` that are tested; (None,) for an op without it.
        interpreted: ids of the cases that are small enough for Triton's interpreter.
        bad_inputs: id -> (function that changes the inputs, exception, part of its message).
    """

    name: str
    fused: Callable
    reference: Callable
    shapes: dict[str, object]
    options: dict[str, dict[str, object]] = {}  # noqa: RUF012 (subclasses replace it)
    alignments: tuple[bool | None, ...] = (None,)
    interpreted: tuple[str, ...] = ()
    bad_inputs: dict[str, tuple[Callable, type[Exception], str]]

    def inputs(self, shape: object) -> tuple:
        """Positional arguments for a case: float32 on CPU, requires_grad set for gradients."""
        raise NotImplementedError

    def assert_right(
        self, fused: Callable, reference: Callable, inputs: tuple, roundoff: float = 0.0
    ) -> None:
        """Compare the results for these inputs with float64; see the top of this file."""
        assert_as_good_as_eager(fused, reference, inputs, roundoff)

    def case(
        self, shape_id: str = "small", align_corners: bool | None = None
    ) -> tuple[Callable, Callable]:
        """``fused`` and ``reference`` with the keyword arguments of a case."""
        keywords = dict(self.options.get(shape_id, {}))
        if align_corners is not None:
            keywords["align_corners"] = align_corners
        bind = functools.partial
        return bind(self.fused, **keywords), bind(self.reference, **keywords)

    def small(self) -> tuple:
        """Inputs for tests that need only one case."""
        return self.inputs(self.shapes["small"])

    def seeded(self, shape_id: str) -> tuple:
        torch.manual_seed(0)
        return self.inputs(self.shapes[shape_id])

    def pytest_generate_tests(self, metafunc):
        """One test for each case of this op's lists."""
        cls = metafunc.cls
        if "shape_id" in metafunc.fixturenames:
            metafunc.parametrize("shape_id", list(cls.shapes))
        if "align_corners" in metafunc.fixturenames:
            names = {None: "", True: "aligned corners", False: "half pixels"}
            metafunc.parametrize("align_corners", cls.alignments, ids=names.get)
        if "bad_id" in metafunc.fixturenames:
            metafunc.parametrize("bad_id", list(cls.bad_inputs))

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("target", TARGETS)
    def test_as_good_as_eager(self, target, dtype, align_corners, shape_id, count_case):
        backend, device = require(*target, self.name)
        if target == ("triton", "cpu") and shape_id not in self.interpreted:
            pytest.skip("too large for Triton's interpreter")
        inputs = cast(self.seeded(shape_id), dtype, device)
        with ops.backend(backend):
            self.assert_right(
                *self.case(shape_id, align_corners), inputs, roundoff_of(target, dtype)
            )
        count_case(self.name, f"{backend} on {device}", str(dtype), align_corners, shape_id)

    @pytest.mark.parametrize("target", TARGETS)
    def test_any_memory_format(self, target):
        """Layout changes no bit; results and gradients are channels-last, gradients in x.dtype."""
        backend, device = require(*target, self.name)
        inputs = cast(self.small(), torch.float32, device)
        with ops.backend(backend):
            fused, _ = self.case()
            expected = run(fused, inputs)
            for layout in (_channels_last, _transposed, _sliced):
                changed = tuple(layout(x) if isinstance(x, Tensor) else x for x in inputs)
                found = run(fused, changed)
                assert all(torch.equal(f, e) for f, e in zip(found, expected, strict=True))
                for f in found:
                    assert f.dim() != 4 or f.is_contiguous(memory_format=torch.channels_last)
                for x, f in zip(_leaves(changed), found[1:], strict=True):
                    assert f.dtype == x.dtype

    @pytest.mark.parametrize("target", TARGETS)
    def test_deterministic(self, target, shape_id):
        """The same bits every run, for any number of threads."""
        backend, device = require(*target, self.name)
        if target == ("triton", "cpu"):
            pytest.skip("the interpreter is sequential")
        # Emulated threads run in another order each time; PyTorch's have no part in it.
        counts = (1,) if target == ("cuda", "cpu") else (1, 2, 3, 7, torch.get_num_threads())
        inputs = cast(self.seeded(shape_id), torch.float32, device)
        threads = torch.get_num_threads()
        try:
            with ops.backend(backend):
                fused, _ = self.case(shape_id)
                expected = run(fused, inputs)
                for count in counts:
                    torch.set_num_threads(count)
                    found = run(fused, inputs)
                    assert all(torch.equal(f, e) for f, e in zip(found, expected, strict=True))
        finally:
            torch.set_num_threads(threads)

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_every_instruction_set(self, dtype, align_corners, shape_id, count_case):
        require("cpp", "cpu")
        from gioada_fast import _C

        inputs = cast(self.seeded(shape_id), dtype)
        for isa in _C.instruction_sets():
            before = _C.use_instruction_set(isa)
            try:
                with ops.backend("cpp"):
                    self.assert_right(*self.case(shape_id, align_corners), inputs)
            finally:
                _C.use_instruction_set(before)
            count_case(self.name, f"cpp {isa}", str(dtype), align_corners, shape_id)

    @pytest.mark.parametrize("target", TARGETS)
    def test_without_gradient(self, target):
        """no_grad and detached inputs give the same value, without a graph."""
        backend, device = require(*target, self.name)
        inputs = cast(self.small(), torch.float32, device)
        with ops.backend(backend):
            expected = self.fused(*inputs)
            with torch.no_grad():
                found = self.fused(*inputs)
            detached = self.fused(*(x.detach() if isinstance(x, Tensor) else x for x in inputs))
        assert not found.requires_grad and not detached.requires_grad
        torch.testing.assert_close(found, expected.detach(), rtol=1e-6, atol=0)
        assert torch.equal(found, detached)

    def test_gradcheck(self):
        inputs = cast(self.small(), torch.float64)
        if not _leaves(inputs):
            pytest.skip("has no gradient")
        assert torch.autograd.gradcheck(lambda *x: self.fused(*x), inputs)

    @pytest.mark.parametrize("target", TARGETS)
    def test_opcheck(self, target):
        """Schema, fake tensors, autograd registration and AOT dispatch, by PyTorch's own checks."""
        backend, device = require(*target, self.name)
        operator = getattr(torch.ops.gioada_fast, self.name).default
        torch.library.opcheck(operator, self.operator_inputs(backend, device))

    def operator_inputs(self, backend: str, device: str) -> tuple:
        """Positional arguments of the raw operator, for ``opcheck``."""
        raise NotImplementedError

    @pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
    def test_compile_whole_graph(self, compiler):
        """The op compiles to one graph and gives the results of eager mode."""
        require("cpp", "cpu")
        torch.compiler.reset()

        def step(*inputs):
            scaled = [x * 1.5 if isinstance(x, Tensor) and x.requires_grad else x for x in inputs]
            return self.fused(*scaled) * 2.0

        dynamic = compiler == "aot_eager"
        compiled = torch.compile(step, fullgraph=True, dynamic=dynamic, backend=compiler)
        for shape_id in ("small", "odd") if dynamic else ("small",):
            inputs = self.seeded(shape_id)
            with ops.backend("cpp"):
                for found, expected in zip(run(compiled, inputs), run(step, inputs), strict=True):
                    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_under_autocast(self, dtype):
        """Autocast changes neither the kernel's results nor the gradients' dtypes."""
        require("cpp", "cpu")
        inputs = cast(self.small(), dtype)
        with ops.backend("cpp"):
            expected = run(self.fused, inputs)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                found = run(self.fused, inputs)
        assert all(torch.equal(f, e) for f, e in zip(found, expected, strict=True))
        with ops.backend("reference"), torch.autocast("cpu", dtype=torch.bfloat16):
            reference = run(self.fused, inputs)
        assert [r.dtype for r in reference] == [e.dtype for e in expected]

    @pytest.mark.parametrize("value", [None, 1, "no"])
    def test_align_corners_is_a_bool(self, value):
        if None in self.alignments:
            pytest.skip("does not resize")
        with pytest.raises(TypeError, match=f"align_corners is {value!r}, expected True or False"):
            self.fused(*self.small(), align_corners=value)

    def test_bad_input(self, bad_id):
        """The op raises before it runs a kernel, and names the value found."""
        change, exception, message = self.bad_inputs[bad_id]
        with pytest.raises(exception, match=message):
            self.fused(*change(*self.small()))


def _leaves(inputs: tuple) -> list[Tensor]:
    return [x for x in inputs if isinstance(x, Tensor) and x.requires_grad]


def _like(x: Tensor, y: Tensor) -> Tensor:
    return y.detach().requires_grad_(x.requires_grad)


def _channels_last(x: Tensor) -> Tensor:
    return _like(x, x.to(memory_format=torch.channels_last) if x.dim() == 4 else x)


def _transposed(x: Tensor) -> Tensor:
    if x.dim() < 2:
        return x
    return _like(x, x.transpose(-1, -2).contiguous().transpose(-1, -2))


def _sliced(x: Tensor) -> Tensor:
    wide = x.new_zeros([2 * s for s in x.shape])
    view = wide[tuple(slice(None, None, 2) for _ in x.shape)]
    view.copy_(x.detach())
    return _like(x, view)
