"""The choice of back ends, their probes, the dispatcher, and threads."""

import os
import subprocess
import sys
import warnings

import pytest
import torch
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from gioada_fast import ops
from gioada_fast.ops import _registry
from gioada_fast.ops.upsample_cross_entropy import upsample_cross_entropy
from tests.op_checks import require

op = ops.registered()["upsample_cross_entropy"]
CPU = torch.zeros(1, 3, 2, 2)
LABELS = torch.zeros(1, 4, 4, dtype=torch.int64)


def python(code: str, **environment: str) -> str:
    """Output of a new Python process, in which no back end has been probed."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_every_back_end_is_described():
    found = ops.backends()
    assert tuple(found) == ops.BACKENDS
    assert all(b.detail for b in found.values())
    assert found["reference"].live


def test_automatic_choice():
    require("cpp", "cpu")
    with ops.backend(None):
        assert op.choose(CPU) == "cpp"
        assert op.choose(CPU.double()) == "reference"
        assert op.choose(CPU.to("meta")) == "reference"


def test_context_nests_and_ends_after_an_exception():
    with ops.backend("cpp"):
        with pytest.raises(KeyError), ops.backend("reference"):
            assert op.choose(CPU) == "reference"
            raise KeyError
        assert _registry._forced == "cpp"


def test_unknown_back_end_raises():
    with pytest.raises(ValueError, match="'cpu' is not a back end, expected one of"):
        ops.backend("cpu")


def test_back_end_that_cannot_run_raises():
    with ops.backend("cuda"), pytest.raises(RuntimeError, match="back end 'cuda' cannot run"):
        op.choose(CPU)


@pytest.mark.parametrize("forced", [None, *ops.BACKENDS])
def test_explanation_agrees_with_the_choice(forced):
    """For every op: the back end that runs, or the reason that a call's error gives."""
    with ops.backend(forced):
        for op in ops.registered().values():
            chosen, reasons = op.explain("cpu")
            assert {chosen, *reasons} - {None} == set(ops.BACKENDS)
            assert all(reasons.values())
            if chosen is not None:
                assert op.choose(CPU) == chosen
            else:
                with pytest.raises(RuntimeError) as failure:
                    op.choose(CPU)
                assert str(failure.value).endswith(f"cannot run: {reasons[forced]}")


def test_reasons():
    require("cpp", "cpu")
    gan_loss = ops.registered()["gan_loss"]
    with ops.backend(None):
        chosen, reasons = gan_loss.explain("cpu")
        assert chosen == "cpp" and reasons["reference"] == "cpp is preferred"
        assert reasons["cuda"] == "no kernel for this op"
        assert op.explain("cpu")[1]["cuda"] == "no kernel for cpu"
        assert op.explain("cuda")[1]["cpp"] == "no kernel for cuda"
        assert op.explain("mps")[0] == "reference"
    with ops.backend("reference"):
        assert op.explain("cpu")[1]["cpp"] == "reference is forced"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_reasons_without_a_cuda_device():
    with ops.backend(None):
        chosen, reasons = op.explain("cuda")
    assert chosen is None and reasons["reference"] == "no CUDA device"
    assert reasons["cuda"] == ops.backends()["cuda"].detail


@pytest.mark.parametrize(
    ("interpret", "reason"),
    [("1", "runs only if it is forced"), ("0", "runs on cpu in its interpreter only")],
)
def test_reason_of_the_interpreter(interpret, reason):
    pytest.importorskip("triton")
    code = "from gioada_fast import ops; "
    code += "print(ops.registered()['gan_loss'].explain('cpu')[1]['triton'])"
    assert python(code, TRITON_INTERPRET=interpret, GIOADA_BACKEND="").startswith(reason)


def test_environment_variable_forces_a_back_end():
    code = "from gioada_fast import ops; print(ops.registered()['upsample_cross_entropy'].choose("
    code += "__import__('torch').zeros(1)))"
    assert python(code, GIOADA_BACKEND="reference").strip() == "reference"


def test_misspelt_environment_variable_raises():
    with pytest.raises(AssertionError, match="GIOADA_BACKEND: 'refrence' is not a back end"):
        python("import gioada_fast.ops", GIOADA_BACKEND="refrence")


def test_warns_once_without_extension_and_triton():
    """The package runs on plain PyTorch and warns once."""
    code = """
import sys, warnings
sys.modules["gioada_fast._C"] = None
sys.modules["triton"] = None
import torch
from gioada_fast import ops
labels = torch.zeros(1, 4, 4, dtype=torch.int64)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(3):
        ops.upsample_cross_entropy(torch.zeros(1, 3, 2, 2), labels)
print([str(w.message) for w in caught if "plain PyTorch" in str(w.message)])
print([b.name for b in ops.backends().values() if b.live])
print(ops.registered()["gan_loss"].explain("cpu"))
"""
    messages, live, explanation = python(code, GIOADA_BACKEND="").splitlines()
    assert messages.count("plain PyTorch") == 1
    assert live == "['reference']"
    assert explanation.startswith("('reference', {'cpp': 'gioada_fast._C cannot be imported")


def test_compiled_function_follows_the_switch():
    """torch.compile chooses while it traces and guards the choice."""
    require("cpp", "cpu")
    seen = []

    def spy(graph, _):
        seen.append(any("upsample_cross_entropy" in str(n.target) for n in graph.graph.nodes))
        return graph.forward

    torch.compiler.reset()
    step = torch.compile(upsample_cross_entropy, fullgraph=True, backend=spy)
    for name in ("cpp", "reference", "cpp"):
        with ops.backend(name):
            step(CPU, LABELS)
    assert seen == [True, False]


def test_import_does_not_import_the_compiler():
    """torch._dynamo takes longer to import than torch itself; the first torch.compile does it."""
    code = "import sys, torch; before = set(sys.modules); import gioada_fast.ops; "
    assert python(code + "print('torch._dynamo' in set(sys.modules) - before)").strip() == "False"


def test_eager_mode_bypasses_the_dispatcher():
    """In plain eager mode the kernel runs without the operator, with or without a gradient."""
    require("cpp", "cpu")
    with torch.profiler.profile() as profile, ops.backend("cpp"):
        upsample_cross_entropy(CPU, LABELS)
        upsample_cross_entropy(CPU.clone().requires_grad_(), LABELS).backward()
    names = {event.name for event in profile.events()}
    assert "upsample_cross_entropy" in names  # the autograd function
    assert "gioada_fast::upsample_cross_entropy" not in names


class Recorder(TorchDispatchMode):
    """Names of all operators that run inside."""

    def __enter__(self):
        self.names = []
        return super().__enter__()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.name())
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("requires_grad", [False, True])
def test_modes_see_the_operator(requires_grad):
    require("cpp", "cpu")
    logits = CPU.clone().requires_grad_(requires_grad)
    with ops.backend("cpp"), Recorder() as recorder:
        upsample_cross_entropy(logits, LABELS)
        ops.gan_loss([logits, logits], True)
    assert "gioada_fast::upsample_cross_entropy" in recorder.names
    assert "gioada_fast::gan_loss" in recorder.names


def test_fake_tensors_see_the_operator():
    """Fake tensors reach the operator even after their mode has ended."""
    require("cpp", "cpu")
    with ops.backend("cpp"):
        with FakeTensorMode() as mode:
            logits, labels = mode.from_tensor(CPU), mode.from_tensor(LABELS)
        for loss in (upsample_cross_entropy(logits, labels), ops.gan_loss([logits], True)[0]):
            assert isinstance(loss, FakeTensor) and loss.shape == ()


def test_vmap_equals_a_loop():
    require("cpp", "cpu")
    logits = torch.randn(3, 1, 3, 2, 2)
    with ops.backend("cpp"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # vmap warns that it calls the op once per example
        found = torch.vmap(lambda x: upsample_cross_entropy(x, LABELS))(logits)
        expected = torch.stack([upsample_cross_entropy(x, LABELS) for x in logits])
    assert torch.equal(found, expected)


def test_tensor_that_escaped_from_a_transform():
    """It still has the type Tensor, but no data: the operator unwraps it."""
    require("cpp", "cpu")
    escaped = []

    def square(x):
        escaped.append(x * 2)
        return escaped[0].square().sum()

    x = torch.randn(1, 1, 3, 4)
    torch.func.grad(square)(x)
    y = x.clone().requires_grad_()
    with ops.backend("cpp"):
        assert torch.equal(ops.gan_loss(escaped, True), ops.gan_loss(2 * x, True))
        (grad,) = torch.autograd.grad(ops.gan_loss([*escaped, y], True)[1], y)
        (expected,) = torch.autograd.grad(ops.gan_loss(y, True)[0], y)
    assert torch.equal(grad, expected)


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="needs Linux")
def test_one_openmp_runtime():
    """The kernels use PyTorch's OpenMP runtime, and so its threads."""
    require("cpp", "cpu")
    code = """
from gioada_fast import ops
print(len({line.split()[-1] for line in open("/proc/self/maps") if "omp" in line.split("/")[-1]}))
"""
    assert python(code).strip() == "1"


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="needs Linux")
def test_kernels_use_the_number_of_threads_that_was_set():
    """set_num_threads(1) starts no thread; a larger number starts that many."""
    require("cpp", "cpu")
    code = """
import os, torch
from gioada_fast import ops
logits, labels = torch.zeros(1, 3, 9, 9), torch.zeros(1, 64, 64, dtype=torch.int64)
def started(threads):
    torch.set_num_threads(threads)
    before = len(os.listdir("/proc/self/task"))
    ops.upsample_cross_entropy(logits, labels)
    return len(os.listdir("/proc/self/task")) - before
print(started(1), started(3))
"""
    assert python(code, GIOADA_BACKEND="cpp").split() == ["0", "2"]
