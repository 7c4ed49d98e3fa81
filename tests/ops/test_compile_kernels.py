"""All GPU kernels compile for sm_80 and sm_90 (no GPU is needed), and spill no register."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CSRC = Path(__file__).resolve().parents[2] / "csrc"
ARCHS = (80, 90)

GELU = {"HAS_WEIGHT": True, "HAS_BIAS": True, "ACTIVATION": "gelu"}  # with all that it may have

# op -> kernel -> (types of the arguments, constants), as for the flagship shape. "*fp32:4" is a
# tuple of four pointers. Words after the kernel's name tell several cases apart.
TRITON = {
    "_common": {
        "total_kernel": ("*fp32 i32 *fp32 *fp32", {"REDUCTION": "mean", "BLOCK": 1024}),
        "gradient_kernel": ("*fp32 *fp32 *fp32" + " i32" * 6, {"HAS_SCALE": True, "BLOCK": 1024}),
    },
    "translation_input": {
        "fill_kernel": (
            "*u8 *fp32 *u8 *fp32" + " i32" * 11,
            {"BLOCK_P": 64, "BLOCK_C": 32},
        ),
    },
    "semantic_depth_concat": {
        "forward_kernel": (
            "*fp32 *fp32 *fp32 i32 i32 i32:5 i32:5" + " i32" * 7,
            {"HAS_DEPTH": True, "BLOCK_P": 64, "BLOCK_C": 16},
        ),
        "backward_kernel": (
            "*fp32 *fp32 *fp32 i32 i32:5 i32:5" + " i32" * 8,
            {"WANTS_LOGITS": True, "WANTS_DEPTH": True, "BLOCK_P": 64, "BLOCK_C": 16},
        ),
    },
    "upsample_argmax": {
        "argmax_kernel": (
            "*fp32 *i64 i32 i32:5 i32:5" + " i32" * 4,
            {"ROWS": 8, "COLUMNS": 64},
        ),
    },
    "upsample_confusion_matrix": {
        "count_kernel": (
            "*fp32 *u8 *i64 i32 i32 i32:5 i32:5" + " i32" * 6,
            {"ROWS": 8, "COLUMNS": 64, "BINS": 256},
        ),
    },
    "instance_norm_act": {
        "moments_kernel": (
            "*fp32 *fp64" + " i32" * 3,
            {"BLOCK_P": 16, "BLOCK_C": 64, "CHUNK": 128},
        ),
        "statistics_kernel": (
            "*fp64 *fp32 *fp32 i32 i32 i32 i32 fp32",
            {"GROUPED": True, "CHUNK": 128, "BLOCK_C": 32, "BLOCK_CHUNKS": 16},
        ),
        "normalize_kernel": (
            "*fp32 *fp32 *fp32 *fp32 *fp32 *fp32 *fp32 fp32" + " i32" * 6,
            {"HAS_RESIDUAL": True, **GELU, "PAD": 1, "BLOCK_P": 16, "BLOCK_C": 64},
        ),
        "sums_kernel": (
            "*fp32 *fp32 *fp32 *fp32 *fp32 *fp32 *fp32 *fp64 fp32" + " i32" * 4,
            {
                "WANTS_RESIDUAL": True,
                **GELU,
                "PAD": 1,
                "BLOCK_P": 16,
                "BLOCK_C": 64,
                "CHUNK": 128,
            },
        ),
        "totals_kernel": (
            "*fp64 *fp32 *fp32 *fp32 *fp64" + " i32" * 4,
            {
                "GROUPED": True,
                "HAS_WEIGHT": True,
                "WANTS_AFFINE": True,
                "BLOCK_C": 32,
                "BLOCK_CHUNKS": 16,
            },
        ),
        "affine_kernel": (
            "*fp64 *fp32 i32 i32",
            {"BLOCK_C": 32},
        ),
        "gradient_kernel": (
            "*fp32 *fp32 *fp32 *fp32 *fp32 *fp32 *fp32 *fp32 fp32" + " i32" * 4,
            {**GELU, "PAD": 1, "BLOCK_P": 16, "BLOCK_C": 64},
        ),
    },
    "gan_loss": {
        "loss_kernel": (
            "*fp32:4 i32:4 fp32:4 *fp32",
            {"KIND": "bce", "PART": 32768, "BLOCK": 4096, "num_warps": 16},
        ),
        "backward_kernel": (
            "*bf16:4 i32:4 fp32:4 *fp32 *bf16:4",
            {"KIND": "bce", "BLOCK": 4096, "num_warps": 16},
        ),
    },
    "upsample_cross_entropy": {
        "cells_kernel": (
            "*fp32 *u8 *fp32 *fp32 *fp32 *fp32 i32 fp32 i32 i32:5 i32:5" + " i32" * 4,
            {
                "HAS_WEIGHT": True,
                "HAS_PIXEL_WEIGHT": True,
                "SMOOTH": True,
                "REDUCTION": "mean",
                "MEAN_OVER": "valid",
                "WANTS_GRAD": True,
                "BLOCK_P": 64,
                "BLOCK_C": 16,
            },
        ),
    },
    "upsample_depth_loss": {
        **{
            f"cells_kernel {kind} {name}{' weighted' * weighted}": (
                "*fp32 *fp32 *u8" + " *fp32" * 5 + " fp32 i32:5 i32:5" + " i32" * 3,
                {
                    "KIND": kind,
                    "PASS": name,
                    "HAS_VALID": True,
                    "HAS_WEIGHT": weighted,
                    "CELLS": 16,
                    "PIXELS": 16,
                },
            )
            for kind, name in (
                ("l1", "gradient"),
                ("berhu", "gradient"),
                ("berhu", "map"),
                ("silog", "statistic"),
                ("silog", "gradient"),
            )
            for weighted in (False, True)
        },
        "threshold_kernel": ("*fp32 i32 *fp32", {"BLOCK": 1024}),
    },
}

COMPILE = """
import importlib, json, subprocess, sys, tempfile
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas, sm_arch_from_capability
from triton.compiler import ASTSource

def signature_of(type):
    name, _, length = type.partition(":")
    return (name,) * int(length) if length else name

def ptxas(op, kernel, types, constants, arch):
    options = {"num_warps": constants.pop("num_warps")} if "num_warps" in constants else {}
    function = getattr(importlib.import_module(f"gioada_fast.ops.triton.{op}"), kernel.split()[0])
    arguments = [name for name in function.arg_names if name not in constants]
    signature = dict(zip(arguments, map(signature_of, types.split()), strict=True))
    signature |= {name: "constexpr" for name in constants}
    source = ASTSource(fn=function, signature=signature, constexprs=constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    assert compiled.asm["cubin"]
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(compiled.asm["ptx"])
        file.flush()
        name = sm_arch_from_capability(arch)
        command = [get_ptxas(arch).path, "-v", f"--gpu-name={name}", file.name, "-o", "/dev/null"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stderr

print(json.dumps([ptxas(*job) for job in json.loads(sys.argv[1])]))
"""


def usage(ptxas_output: str) -> list[tuple[int, int]]:
    """(registers, bytes spilled) of each kernel, from the output of ``ptxas -v``."""
    spilled = [
        int(stores) + int(loads)
        for stores, loads in re.findall(
            r"(\d+) bytes spill stores, (\d+) bytes spill loads", ptxas_output
        )
    ]
    registers = [int(n) for n in re.findall(r"Used (\d+) registers", ptxas_output)]
    return list(zip(registers, spilled, strict=True))


@pytest.fixture(scope="module")
def compiled_triton() -> dict[tuple[str, str, int], str]:
    """Output of ptxas for each (op, kernel, arch); one process compiles all of them."""
    pytest.importorskip("triton")
    jobs = [(op, k, *TRITON[op][k], arch) for op in TRITON for k in TRITON[op] for arch in ARCHS]
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    result = subprocess.run(
        [sys.executable, "-c", COMPILE, json.dumps(jobs)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    outputs = json.loads(result.stdout.splitlines()[-1])
    return {(job[0], job[1], job[4]): output for job, output in zip(jobs, outputs, strict=True)}


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize(("op", "kernel"), [(op, k) for op in TRITON for k in TRITON[op]])
def test_triton_kernel_compiles_without_spills(op, kernel, arch, compiled_triton):
    ((registers, spilled),) = usage(compiled_triton[op, kernel, arch])
    print(f"{op}.{kernel} sm_{arch}: {registers} registers, {spilled} bytes spilled")
    assert spilled == 0


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("source", sorted(CSRC.glob("cuda/*.cu")), ids=lambda p: p.stem)
def test_cuda_kernel_compiles_without_spills(source, arch, tmp_path):
    options = ["-std=c++17", "-O3", f"-I{CSRC}", f"-arch=sm_{arch}", "-Xptxas", "-v", "-cubin"]
    result = subprocess.run(
        ["nvcc", *options, str(source), "-o", str(tmp_path / "kernels.cubin")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    usages = usage(result.stderr)
    print(f"{source.stem} sm_{arch}: (registers, bytes spilled) {usages}")
    assert usages and not any(spilled for _, spilled in usages)
