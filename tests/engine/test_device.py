"""Batches reach the device complete and in order; which precision a processor gets."""

import pytest
import torch

from gioada_fast.engine import device
from gioada_fast.engine.device import to_device


def numbered(count, pin=False):
    for k in range(count):
        batch = {"image": torch.full((2, 3, 64, 64), k, dtype=torch.uint8), "k": torch.tensor([k])}
        yield {name: tensor.pin_memory() if pin else tensor for name, tensor in batch.items()}


def test_on_the_cpu_no_batch_is_read_ahead():
    batches = numbered(3)
    first = next(to_device(batches, torch.device("cpu")))
    assert int(first["k"]) == 0 and int(next(batches)["k"]) == 1


@pytest.mark.gpu
@pytest.mark.parametrize("count", [0, 1, 5])
def test_on_a_gpu_batches_are_copied_ahead_and_complete(count):
    gpu, found = torch.device("cuda"), []
    for batch in to_device(numbered(count, pin=True), gpu):
        torch.cuda._sleep(1_000_000)  # during this time the next batch is copied
        found.append((batch["image"].float().mean(), batch["k"]))
    torch.cuda.synchronize()
    assert [int(k) for _, k in found] == list(range(count))
    assert [float(mean) for mean, _ in found] == list(range(count))


@pytest.mark.parametrize(
    "vendor, avx512_bf16, amx, fast",
    [
        ("GenuineIntel", True, True, True),
        ("GenuineIntel", True, False, False),  # a hypervisor that hides AMX
        ("GenuineIntel", False, False, False),
        ("AuthenticAMD", True, False, True),
        ("AuthenticAMD", False, False, False),
    ],
)
def test_auto_takes_bf16_only_where_it_is_faster(monkeypatch, vendor, avx512_bf16, amx, fast):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(device, "_cpuinfo", {"vendor_id": vendor}.get)
    cpu = torch.device("cpu")
    assert device.has_fast_bf16(cpu) == fast
    with device.autocast(cpu, "auto"):
        assert torch.is_autocast_enabled("cpu") == fast
