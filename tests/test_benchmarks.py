"""The benchmarks' guards, records and plots; what they measure is theirs to check."""

import importlib
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import guards, harness, machine, report, scaling

ROOT = Path(__file__).resolve().parents[1]
CPUINFO = {
    "amd-avx512-bf16-2-threads": "vendor_id\t: AuthenticAMD\nflags\t\t: avx2 avx512f avx512_bf16\n",
    "intel-avx512-bf16-amx-2-threads": (
        "vendor_id\t: GenuineIntel\nflags\t\t: avx2 avx512f avx512_bf16 amx_bf16\n"
    ),
    "intel-avx2-2-threads": "vendor_id\t: GenuineIntel\nflags\t\t: sse2 avx2\n",
    "arm-sve-bf16-2-threads": "CPU implementer\t: 0x41\nFeatures\t: asimd sve bf16\n",
}


BENCHMARKS = sorted(path.stem for path in (ROOT / "benchmarks").glob("bench_*.py"))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_all_cases_of_a_benchmark_have_the_same_fields(name):
    shapes = getattr(importlib.import_module(f"benchmarks.{name}"), "SHAPES", {})
    fields = {tuple(type(field) for field in case) for case in shapes.values()}
    assert len(fields) <= 1


@pytest.mark.parametrize("kind", CPUINFO)
def test_the_kind_of_a_processor(kind, monkeypatch):
    monkeypatch.setattr(machine.torch, "get_num_threads", lambda: 2)
    assert machine.kind("cpu", CPUINFO[kind]) == kind


def test_an_unknown_processor_has_a_kind(monkeypatch):
    monkeypatch.setattr(machine.platform, "machine", lambda: "riscv64")
    monkeypatch.setattr(machine.torch, "get_num_threads", lambda: 4)
    assert machine.kind("cpu", "") == "riscv64-4-threads"


def test_records_lie_in_the_folder_of_their_machine_and_can_be_printed():
    paths = sorted(guards.RESULTS.rglob("*.json"))
    assert paths
    for path in paths:
        result = json.loads(path.read_text())
        assert result["environment"]["machine"] == path.parent.name
        assert {record["op"] for record in result["records"]} == {path.stem}
        assert report.table(result["records"]) and report.markdown(result["records"])


@pytest.mark.parametrize("mib", [2, 20])
def test_the_peak_of_a_call_is_that_of_its_tensor(mib):
    peak = harness.typical_peak_mib(lambda: torch.ones(mib * 2**20, dtype=torch.uint8), "cpu")
    if math.isnan(peak):
        pytest.skip("this system does not measure the peak of a process's memory")
    assert peak == pytest.approx(mib, abs=0.4)


def test_a_peak_that_is_not_measured_is_nan(monkeypatch):
    monkeypatch.setattr(harness, "_peak_rss_mib", lambda function: math.nan)
    assert math.isnan(harness.peak_mib(lambda: None, "cpu"))


OP = {"op": "gan_loss", "shape": "demo", "pass": "forward", "best_rival": "eager"}


def measured(time, fused=1.0):
    return OP | {"ratio": time, "peak_mib": {"fused": fused, "eager": 1.0}}


def guarded(record, device="cpu"):
    guards.add_guards(record, device, {"time": guards.ANY_TIME}, {"memory": guards.ANY_MEMORY})
    return {name: (guard["kind"], guard["guard"]) for name, guard in record["guards"].items()}


@pytest.fixture
def results(tmp_path, monkeypatch):
    """An empty folder of records, of a machine with a kind of its own."""
    monkeypatch.setattr(guards, "RESULTS", tmp_path)
    monkeypatch.setattr(machine, "kind", lambda device: f"this-{device}")
    return tmp_path


def test_without_a_record_the_guard_holds_on_any_machine(results):
    record = measured(0.9)
    assert guarded(record)["time"] == (guards.ANY, guards.ANY_TIME)
    guards.check(record)
    for slow in (measured(0.5), measured(2.0, fused=9.0), measured(float("inf"), fused=9.0)):
        guarded(slow)
        with pytest.raises(guards.GuardFailure, match="on any machine"):
            guards.check(slow)
    assert "any machine" in report.guards_table([record])


def test_with_a_record_the_stricter_guard_counts(results):
    report_ = {"environment": {}, "records": [measured(10.0), OP | {"shape": "other"}]}
    for device in ("cpu", "cuda"):
        (results / f"this-{device}").mkdir()
        (results / f"this-{device}" / "gan_loss.json").write_text(json.dumps(report_))
    record = measured(5.0)
    assert guarded(record)["time"] == (guards.RECORD, 10 * guards.OF_RECORD)
    assert guarded(record)["memory"][0] == guards.ANY  # of single ops it is noise
    with pytest.raises(guards.GuardFailure, match="by the record of this machine"):
        guards.check(record)
    assert "the record of this machine" in report.guards_table([record])
    assert guarded(OP | {"shape": "new", "ratio": 5.0, "peak_mib": {"fused": 1, "eager": 1}})[
        "time"
    ] == (guards.ANY, guards.ANY_TIME)


def test_a_gpu_is_compared_with_its_own_record_alone(results):
    assert "time" not in guarded(measured(0.5), "cuda")
    slow = {"environment": {}, "records": [measured(0.6)]}
    (results / "this-cuda").mkdir()
    (results / "this-cuda" / "gan_loss.json").write_text(json.dumps(slow))
    assert guarded(measured(0.5), "cuda")["time"] == (guards.RECORD, 0.6 * guards.OF_RECORD)


def test_records_are_written_without_their_guards(results, monkeypatch):
    record = measured(3.0)
    guarded(record)
    monkeypatch.setattr(report, "environment", lambda device: {"machine": "mine"})
    report.write([record], "cpu")
    (written,) = json.loads((results / "mine" / "gan_loss.json").read_text())["records"]
    assert written == measured(3.0)


def test_the_scaling_page_is_measured_and_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "peak_flops", lambda device, dtype: 1e11)  # takes seconds
    cases = {"classes": scaling.sweeps(quick=True)["classes"]}
    record = scaling.measure(cases, (), "cpu")
    few, many = record["scaling"]["classes"]
    assert 0 < few["model_mib"] < many["model_mib"] and 0 < few["flops"] < many["flops"]
    assert all(point["ms"] > 0 for point in (few, many))
    scaling.plot(record, "a machine", tmp_path / "scaling.svg")
    assert "measured" in (tmp_path / "scaling.svg").read_text()
    assert report.table([record]).count("classes") == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_device_that_is_missing_is_an_error_and_not_skipped(capfd):
    command = [sys.executable, "-m", "pytest", "benchmarks", "--device", "cuda"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert harness.NO_CUDA in done.stderr
    with pytest.raises(SystemExit, match="2"):
        scaling.main(["--device", "cuda"])
    assert harness.NO_CUDA in capfd.readouterr().err
