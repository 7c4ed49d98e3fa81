"""Runs emulated CUDA kernels on CPU tensors, and makes them the ops' back end ``cuda``."""

import ctypes
import importlib.util
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gioada_fast.ops import _native, _registry


class EmulationError(AssertionError):
    """A kernel did what CUDA forbids; the message names kernel, access, thread and source line."""


class Library:
    """A library made by ``build``, with the checks of memory."""

    def __init__(self, path: Path):
        self.path = path
        self.functions = ctypes.CDLL(str(path))
        self.functions.emulation_finish.restype = ctypes.c_char_p

    def add(self, name: str, x: Tensor, initialised: bool = True) -> None:
        """Let kernels access the bytes from the first to the last element of a tensor."""
        if x.numel() == 0:
            return
        last = sum((n - 1) * stride for n, stride in zip(x.shape, x.stride(), strict=True))
        name = f"{name} ({str(x.dtype).removeprefix('torch.')} {list(x.shape)})"
        self.functions.emulation_add(
            name.encode(),
            ctypes.c_void_p(x.data_ptr()),
            ctypes.c_size_t((last + 1) * x.element_size()),
            ctypes.c_size_t(x.element_size()),
            initialised,
        )

    def finish(self) -> None:
        """Forget all tensors.

        Raises:
            EmulationError: the kernels since the last call did something wrong.
        """
        finding, _, offset = self.functions.emulation_finish().decode().partition("@")
        if not finding:
            return
        if offset:  # of the code; the innermost of inlined functions comes first
            command = ["addr2line", "-i", "-e", self.path, hex(int(offset))]
            places = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
            places = [p.split(" ")[0] for p in places if "cuda_runtime.h" not in p]
            finding = ", ".join([finding, *places])
        raise EmulationError(finding.replace(f"{self.path.parent}/csrc/", ""))


class Emulator(Library):
    """The module ``_C`` with emulated CUDA kernels."""

    def __init__(self, path: Path):
        super().__init__(path)
        # pybind11 has one module for each full name.
        spec = importlib.util.spec_from_file_location(f"{path.parent.name}._C", path)
        self.module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.module)
        self.module.read_tensors_of(Tensor)

    def run(self, kernel: str, *arguments: Any) -> None:
        """Takes the place of ``_native.run_cuda``."""
        for i, argument in enumerate(arguments):
            for x in argument if isinstance(argument, list | tuple) else [argument]:
                if isinstance(x, Tensor):
                    self.add(f"argument {i}", x)
        size = getattr(self.module, f"{kernel}_cuda_workspace")(*arguments)
        workspace = torch.full((size,), float("nan"))
        self.add("workspace", workspace, initialised=False)
        getattr(self.module, f"{kernel}_cuda")(workspace, 0, *arguments)
        self.finish()

    @contextmanager
    def live(self) -> Iterator[None]:
        """Inside, the back end ``cuda`` runs on CPU tensors, and on no others."""
        self.functions.emulation_seed(ctypes.c_uint64(0))
        backends = _registry.backends()
        before = backends["cuda"], _native.run_cuda, torch.are_deterministic_algorithms_enabled()
        backends["cuda"] = _registry.Backend("cuda", ("cpu",), "emulated")
        _native.run_cuda = self.run
        torch.use_deterministic_algorithms(True)  # fills new tensors with NaN
        try:
            yield
        finally:
            backends["cuda"], _native.run_cuda, deterministic = before
            torch.use_deterministic_algorithms(deterministic)
