"""``info --check``: every op on every live back end, and kernels that give wrong results."""

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gioada_fast import ops
from gioada_fast.ops import _native, comparison

from .commands import command
from .op_checks import require
from .ops.test_upsample_argmax import near_ties

OPS = comparison.public_ops()


@pytest.fixture
def checked(monkeypatch):
    """Call with back ends and ops: the command, which checks no others.

    Fresh memory is filled with NaN and the largest numbers, so that it never has the right result
    before a kernel has run.
    """

    def run(backends: tuple[str, ...], names: list[str] = OPS):
        live = {name: ops.backends()[name] for name in backends}
        monkeypatch.setattr(comparison, "backends", lambda: live)
        monkeypatch.setattr(comparison, "public_ops", lambda: names)
        return command("info", "--check", cwd=Path())

    torch.use_deterministic_algorithms(True)
    yield run
    torch.use_deterministic_algorithms(False)


def rows(text: str) -> dict[tuple[str, str], list[str]]:
    """Result and numbers by op and back end."""
    cells = [[cell.strip() for cell in line.split("│")] for line in text.splitlines()]
    return {(row[0], row[1]): row[2:] for row in cells if len(row) == 6}


def wrong_kernel(monkeypatch, launcher: str, named: str, change) -> None:
    """Let the kernels of a name change each tensor that they write."""
    original = getattr(_native, launcher)

    def launch(kernel):
        run = original(kernel)

        def changed(*arguments):
            lists = [x if isinstance(x, list | tuple) else [x] for x in arguments]
            tensors = [x for group in lists for x in group if isinstance(x, Tensor)]
            before = [x.clone() for x in tensors]
            result = run(*arguments)
            for x, old in zip(tensors, before, strict=True):
                if not torch.equal(x, old):
                    change(x)
            return result

        return changed if kernel == named else run

    monkeypatch.setattr(_native, launcher, launch)


def scale(x: Tensor) -> None:
    """A wrong number of each type: 1 % too large, or one more."""
    x.mul_(1.01) if x.is_floating_point() else x.add_(1)


def test_every_op_on_every_back_end(checked):
    done = checked(("reference", "cpp"))
    assert done.returncode == 0, done.stderr
    found = rows(done.stdout)
    live = [name for name in ("reference", "cpp") if "cpu" in ops.backends()[name].devices]
    assert [key for key in found if key[0] in OPS] == [(op, name) for op in OPS for name in live]
    for (op, _), (result, *numbers) in found.items():
        if op in OPS:
            assert result == "ok"
            bounds = 1e-6, 0.02, 2e-3
            assert all(float(x) < bound for x, bound in zip(numbers, bounds, strict=True))
    if not torch.cuda.is_available():
        assert "reference on cuda is not available: no CUDA device" in done.stdout


@pytest.mark.parametrize("op", OPS)
def test_a_wrong_kernel_differs(checked, monkeypatch, op):
    require("cpp", "cpu")
    wrong_kernel(monkeypatch, "_cpu_kernel", op, scale)
    done = checked(("reference", "cpp"))
    found = rows(done.stdout)
    assert done.returncode == 1
    assert [key for key, cells in found.items() if cells[0] == "differs"] == [(op, "cpp")]
    for dtype in ("float32", "float16"):  # bfloat16's own rounding may be as large as 1 %
        assert re.search(rf"{op} on cpp \(cpu\) differs by .* in {dtype}, allowed", done.stderr)
    assert "GIOADA_BACKEND=reference" in done.stderr


@pytest.mark.parametrize("op", ["gan_loss", "instance_norm_act", "semantic_depth_concat"])
def test_a_wrong_gradient_differs(checked, monkeypatch, op):
    require("cpp", "cpu")
    wrong_kernel(monkeypatch, "_cpu_kernel", f"{op}_backward", scale)
    done = checked(("cpp",), [op])
    assert done.returncode == 1 and rows(done.stdout)[op, "cpp"][0] == "differs"


@pytest.mark.parametrize(
    ("launcher", "backend"), [("_cpu_kernel", "cpp"), ("_triton_launcher", "triton")]
)
def test_nan_differs(checked, monkeypatch, launcher, backend):
    require(backend, "cpu", "gan_loss")
    wrong_kernel(monkeypatch, launcher, "gan_loss", lambda x: x.fill_(float("nan")))
    done = checked(("reference", backend), ["gan_loss"])
    found = rows(done.stdout)
    assert done.returncode == 1
    assert found["gan_loss", backend][:2] == ["differs", "inf"]
    assert found["gan_loss", "reference"][0] == "ok"


@pytest.mark.emulated
def test_cuda_kernels_are_checked(checked, monkeypatch):
    run = _native.run_cuda
    assert checked(("cuda",), ["upsample_argmax"]).returncode == 0

    def off_by_one(kernel, *arguments):
        run(kernel, *arguments)
        arguments[-1].add_(1)

    monkeypatch.setattr(_native, "run_cuda", off_by_one)
    done = checked(("cuda",), ["upsample_argmax"])
    assert done.returncode == 1 and rows(done.stdout)["upsample_argmax", "cuda"][0] == "differs"


def test_a_kernel_that_fails_is_reported(checked, monkeypatch):
    require("cpp", "cpu")

    def missing(kernel):
        raise AttributeError(f"module 'gioada_fast._C' has no attribute '{kernel}_cpu'")

    monkeypatch.setattr(_native, "_cpu_kernel", missing)
    done = checked(("cpp",), ["gan_loss"])
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "gan_loss on cpp (cpu) fails in float32: AttributeError: module" in done.stderr
    assert rows(done.stdout)["gan_loss", "cpp"] == ["differs", "-", "-", "-"]


def test_a_forced_back_end_changes_nothing(checked):
    with ops.backend("reference"):
        assert checked(("reference", "cpp"), ["gan_loss"]).returncode == 0


@pytest.mark.parametrize("flag", ["--chek", "--check=yes", "extra"])
def test_bad_input(flag):
    done = command("info", flag, cwd=Path())
    assert done.returncode == 2 and done.stderr.startswith("error: ")


@pytest.mark.parametrize("dtype", comparison.DTYPES, ids=str)
@pytest.mark.parametrize("op", ["upsample_argmax", "upsample_confusion_matrix"])
def test_samples_decide_on_a_class(op, dtype):
    """So that rounding cannot change a prediction."""
    sample = comparison.sample_of(op)
    size = sample["size"] if "size" in sample else sample["labels"].shape[1:]
    assert not near_ties(sample["logits"].to(dtype), size).any()
