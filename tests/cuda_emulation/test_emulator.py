"""The emulator finds each mistake of ``samples.cu``, and none where there is none."""

import ctypes

import pytest
import torch

from tests.cuda_emulation.build import HERE, build, require_compiler
from tests.cuda_emulation.emulator import EmulationError, Library

FINDINGS = {
    "race_of_threads": r"race: .* shared, element \d+, after a .* by thread \d+ of this block",
    "race_of_warps": r"race: .* shared, element \d+, after a .* by thread \d+ of this block",
    "race_of_blocks": r"race: write of data .*, element 0, after a write by thread 0 of another",
    "race_after_reads": r"race: .* element 63, after a .* by thread",
    "outside_of_tensor": r"out of bounds: write of 4 bytes, \d+ bytes behind data \(float32",
    "outside_of_shared": r"out of bounds: read of 4 bytes, \d+ bytes behind first",
    "misaligned": r"misaligned: write of 4 bytes of data .*, element 0",
    "unwritten": r"unwritten: read of shared, element \d+",
    "diverging": r"divergent barrier: not all threads wait at .*samples.cu:\d+",
    "returning": r"divergent barrier: threads returned before .*samples.cu:\d+",
    "waiting": r"divergent barrier: threads wait for ever at .*samples.cu:\d+",
}


@pytest.fixture(scope="module")
def launch(pytestconfig):
    """Runs a sample on a tensor."""
    require_compiler()
    cache = pytestconfig.cache.mkdir("cuda_emulation_samples")
    library = Library(build(cache, [HERE / "samples.cu"], module=None))

    def run(name, data):
        library.add("data", data)
        library.functions.launch_sample(name.encode(), ctypes.c_void_p(data.data_ptr()))
        library.finish()

    return run


def test_correct_kernel(launch):
    data = torch.arange(128.0)
    launch("correct", data)
    assert torch.equal(data, torch.arange(128.0).view(2, 64).flip(1).flatten())


@pytest.mark.parametrize("name", FINDINGS)
def test_mistakes_are_found(launch, name):
    data = torch.zeros(128)
    with pytest.raises(EmulationError, match=f"^{name}: {FINDINGS[name]}.*; block"):
        launch(name, data)
    launch("correct", data)  # no trace is left
