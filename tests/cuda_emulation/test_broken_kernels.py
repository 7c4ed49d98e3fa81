"""A kernel without one of its barriers or bounds fails: the emulator or a wrong result shows it.

All barriers and bounds of ``csrc/cuda`` were tried. Those that no case notices do no harm:

    bilinear.h   min in at.last              more points get partial sums, of 0; nothing reads them
    gradient.h   point < points - 1          `stop` also ends at x_end
                 x_end in `stop`             `to` also ends at x_end
    instance_norm_act.cu
                 column < half, row == 0 && column == 0    the other threads' values are not read
    semantic_depth_concat.cu
                 return if warp_x >= width   the row has no pixels to write
                 min in x                    a column beyond the row is computed, but not written
    upsample_confusion_matrix.cu
                 label >= 0                  without it, the element is negative too
    upsample_depth_loss.cu
                 min in `last`               more points get partial sums, of 0; nothing reads them
                 min and max in column_of    min(column, x_end) and max(..., 0) do the same
                 thread < rows               the last elements of fracs_y are not read
"""

import functools
import importlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from gioada_fast import ops
from tests.cuda_emulation.build import CSRC, KERNELS, build, require_compiler
from tests.cuda_emulation.emulator import EmulationError, Emulator
from tests.op_checks import OpChecks

# File -> bounds, marked by « and » in their context, and what replaces them. If the context occurs
# several times in the file, each of the bounds is replaced in turn.
BOUNDS = {
    "argmax.h": [
        ("«tile < tiles.total»;", "tile <= tiles.total"),
        ("if («x >= op.width()») continue;", "false"),
        ("«min(y_end - y, int64_t(kRowsAtOnce))»", "int64_t(kRowsAtOnce)"),
    ],
    "bilinear.h": [
        ("corners.right = «x.shape[3] > 1» ?", "true"),
        ("corners.down = «x.shape[2] > 1» ?", "true"),
    ],
    "gradient.h": [
        ("columns.begin_of(at.first + point - 1), «max(chunk, at.x_begin)»)", "at.x_begin"),
        ("min(to, «min(at.x_end, chunk + blockDim.x)»)", "at.x_end"),
        ("if («i >= elements») return;", "false"),
        ("if («cell_row < 0» ||", "false"),
        ("|| «cell_row >= strips.cell_rows») continue;", "false"),
        ("s = «max((x - 1) / strips.cells, int64_t(0))»;", "(x - 1) / strips.cells"),
        ("if («s >= strips.in_row») continue;", "false"),
    ],
    "reduce.h": [
        ("if («threadIdx.x < half») {", "true"),
    ],
    "instance_norm_act.cu": [
        ("end = «min(begin + plan.chunk, plan.pixels)»;", "begin + plan.chunk"),
        ("if («vector_index < plan.vectors» && first < end) {", "true"),
        ("if (vector_index < plan.vectors && «first < end») {", "true"),
        ("if («threadIdx.x == 0») counts", "true"),
        ("if («threadIdx.y < half» && other", "true"),
        ("«other < plan.height» && counts", "true"),
        ("&& «counts[other] > 0.f») {", "true"),
        ("if («threadIdx.x == 0» && both", "true"),
        ("«threadIdx.y == 0» && vector_index < plan.vectors", "true"),
        ("threadIdx.y == 0 && «vector_index < plan.vectors»", "true"),
        ("end = «min(begin + size, op.channels())»;", "begin + size"),
        ("if («c < span.end») {", "true"),
        ("if («row == 0» && c < span.end) {", "true"),
        ("if (row == 0 && «c < span.end») {", "true"),
        ("if («row == 0») put();", "true"),
        ("size = «min(plan.chunk, plan.pixels - chunk * plan.chunk)»;", "plan.chunk"),
        ("if («row > 0») return;", "false"),
        ("if («c >= op.channels()») return;", "false"),
        ("if («vector_index >= plan.vectors») return;", "false"),
        ("if («out_x >= out_width») return;", "false"),
        ("if («row < 0») continue;", "false"),
        ("if («column < 0») continue;", "false"),
        ("if («vector_index < plan.vectors») {", "true"),
        ("if («threadIdx.y < half» && threadIdx.y + half", "true"),
        ("&& «threadIdx.y + half < plan.height») {", "true"),
        ("if («column >= op.width()») return;", "false"),
    ],
    "semantic_depth_concat.cu": [
        ("y_end = «min(y_begin + kRows, op.height())»;", "y_begin + kRows"),
        ("«min(static_cast<int64_t>(kWarp), op.width() - warp_x)»", "static_cast<int64_t>(kWarp)"),
        ("members = «min(kClasses, classes - group)»;", "kClasses"),
        ("if («c < members») corners.interpolate(", "true"),
        ("if («c < members») tile[", "true"),
        ("if («pixel < pixels») convert(", "true"),
        ("if («channel >= channels») {", "false"),
        ("«i < size»;", "i <= size"),
        ("bool inside = «x < at.x_end»;", "true"),
        ("«min(int64_t(kWarp), at.x_end - warp_x)»", "int64_t(kWarp)"),
        ("«i < 2 * points * group_channels»;", "true"),
        ("if («c < members») mean +=", "true"),
        ("«c < members» ? softmax_gradient(", "true"),
        ("other = «inside» ?", "true"),
        ("if («c >= classes») break;", "false"),
    ],
    "upsample_argmax.cu": [
        ("if («r < rows») predictions", "true"),
    ],
    "upsample_confusion_matrix.cu": [
        ("pixels == 0 || «element < 0») return;", "false"),
        ("«i < matrix * copies»;", "i <= matrix * copies"),
        ("«i < matrix»; i +=", "i <= matrix"),
    ],
    "upsample_cross_entropy.cu": [
        ("«i < size»;", "i <= size"),
        ("bool inside = «x < at.x_end»;", "true"),
        ("if («group + c < classes») {", "true"),
        ("label = «inside» ?", "true"),
        ("if («label >= 0» && op.weight)", "true"),
        ("if («group + c >= classes») continue;", "false"),
        ("«i < 2 * points * kClasses»;", "i <= 2 * points * kClasses"),
        ("if («threadIdx.x == 0») {", "true"),
    ],
    "upsample_depth_loss.cu": [
        ("«i < blocks»;", "i <= blocks"),
        ("x_end = «min(x_begin + kThreads, column_of(last))»;", "column_of(last)"),
        ("x_end = «min(x_begin + kThreads, column_of(last))»;", "x_begin + kThreads"),
        ("bool inside = «x_begin + thread < x_end»;", "true"),
        ("right = «in_width > 1» ?", "true"),
        ("below_row = «in_height > 1» ?", "true"),
        ("return «max(min(column, x_end) - x_begin, 0)»;", "min(column, x_end) - x_begin"),
        ("return «max(min(column, x_end) - x_begin, 0)»;", "max(column - x_begin, 0)"),
        (
            "last_row = «min(first_row + grid.block_rows, grid.rows)»;",
            "first_row + grid.block_rows",
        ),
        ("rows = «min(y_end - top, kThreads)»;", "y_end - top"),
        ("bool valid = «inside» &&", "true"),
        ("if («point <= last - first») {", "true"),
        ("if («thread == 0»)", "true"),
        ("if («blockIdx.x == 0» && threadIdx.x == 0)", "true"),
        ("if (blockIdx.x == 0 && «threadIdx.x == 0»)", "true"),
        ("«i < elements»;", "i < elements + step"),
        ("first = «max(x - 1, 0)» /", "(x - 1)"),
        (
            "last = «min((x / grid.cells + 1) * grid.pieces, grid.strips)»;",
            "(x / grid.cells + 1) * grid.pieces",
        ),
        ("if («cell_row < 0» ||", "false"),
        ("|| «cell_row >= grid.cell_rows») continue;", "false"),
    ],
}


@dataclass(frozen=True)
class Change:
    """Replaces an expression in a file. Its place is None if the file has no such context."""

    file: str
    context: str
    new: str
    span: tuple[int, int] | None
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {re.sub('[«»]', '', self.context)}"


def _changes() -> Iterator[Change]:
    """Every barrier of every kernel, and the bounds."""
    for file in sorted({path.name for path in CSRC.glob("cuda/*.*")} | BOUNDS.keys()):
        text = (CSRC / "cuda" / file).read_text()
        barriers = [
            (f"«{barrier}()»;", "void()")
            for barrier in ("__syncthreads", "__syncwarp")
            if f"{barrier}();" in text
        ]
        for context, new in barriers + BOUNDS.get(file, []):
            before, old, after = (
                re.sub(r"(\\\s)+", r"\\s+", re.escape(part)) for part in re.split("[«»]", context)
            )
            places = list(re.finditer(f"{before}({old}){after}", text))
            for place in places:
                line = text.count("\n", 0, place.start(1)) + 1
                yield Change(file, context, new, place.span(1), line)
            if not places:
                yield Change(file, context, new, None, 0)


CHANGES = list(_changes())


def _edit(name: str, text: str) -> str:
    """Make every change depend on ``emulation_break(its number)``."""
    choices: dict[tuple[int, int], str] = {}
    for number, change in enumerate(CHANGES):
        if change.file == name and change.span is not None:
            otherwise = choices.get(change.span, f"({text[slice(*change.span)]})")
            choice = f"::emulation::broken({number}) ? ({change.new}) : {otherwise}"
            choices[change.span] = choice
    for (begin, end), choice in sorted(choices.items(), reverse=True):
        text = f"{text[:begin]}({choice}){text[end:]}"
    return text


@pytest.fixture(scope="module")
def breakable(pytestconfig):
    """The kernels with all changes, of which none is in force."""
    require_compiler()
    return Emulator(build(pytestconfig.cache.mkdir("cuda_emulation_broken"), edit=_edit))


def _files_of(path: Path) -> set[str]:
    """Names of a file of ``csrc/cuda`` and of the files there that it includes."""
    included = re.findall(r'#include "cuda/(.+)"', path.read_text())
    return {path.name}.union(*(_files_of(path.with_name(name)) for name in included))


def _ops_of(file: str) -> Iterator[str]:
    """Names of the ops whose kernels are in a file of ``csrc/cuda`` or include it."""
    for test in sorted(CSRC.parent.glob("tests/ops/test_*.py")):
        op = test.stem.removeprefix("test_")
        for path in KERNELS:
            if f"{op}_workspace(" in path.read_text() and file in _files_of(path):
                yield op


def _channels_last_gradient(function: Callable) -> Callable:
    """The same function, whose gradient arrives in another memory format."""

    def wrapped(*inputs):
        out = function(*inputs)
        if out.requires_grad and out.dim() == 4:
            out.register_hook(lambda grad: grad.contiguous(memory_format=torch.channels_last))
        return out

    return wrapped


@functools.cache
def _cases(op: str) -> list[Callable[[], None]]:
    """All cases of the op's roster; each checks the results. Small ones come first."""
    module = importlib.import_module(f"tests.ops.test_{op}")
    (checks,) = (
        cls()
        for cls in vars(module).values()
        if isinstance(cls, type) and issubclass(cls, OpChecks) and cls is not OpChecks
    )
    inputs = {shape_id: checks.seeded(shape_id) for shape_id in checks.shapes}

    def elements(shape_id: str) -> int:
        return sum(x.numel() for x in inputs[shape_id] if isinstance(x, torch.Tensor))

    cases = []
    for shape_id in sorted(inputs, key=elements):
        for align_corners in checks.alignments:
            fused, reference = checks.case(shape_id, align_corners)
            for function in (fused, _channels_last_gradient(fused)):
                check = functools.partial(checks.assert_right, function, reference)
                cases.append(functools.partial(check, inputs[shape_id]))
    return cases


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_broken_kernel_fails(breakable, change):
    assert change.span is not None, f"csrc/cuda/{change.file} has no such text: {change.context}"
    breakable.functions.emulation_break(CHANGES.index(change))
    try:
        with breakable.live(), ops.backend("cuda"), pytest.raises(AssertionError) as caught:
            for op in _ops_of(change.file):
                for case in _cases(op):
                    case()
    finally:
        breakable.functions.emulation_break(-1)
    if isinstance(caught.value, EmulationError):
        assert re.match(r"\w*kernel.*: [\w ]+: .*; block \(.*(cu|h):\d+", str(caught.value))
