"""Measures where the time of an update goes, by operator and by network."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from torch import nn
from torch.autograd.profiler_util import EventList, FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

from ..atomic_files import write_atomically

OTHER = "losses and others"
_BACKWARD = "autograd::engine::evaluate_function: "
_OPTIMISERS = "Optimizer.step"


@dataclass(frozen=True)
class UpdateProfile:
    """Time of one update in milliseconds; on a GPU, the time of its kernels."""

    milliseconds: float
    """Time of all operators."""
    operators: dict[str, tuple[float, float]]
    """By operator, longest first: (time without the operators that it calls, number of calls)."""
    networks: dict[str, tuple[float, float]]
    """By network: (forward time, backward time); the optimisers' time counts as forward."""

    @property
    def convolution_share(self) -> float:
        """Fraction of the time spent in convolutions and their gradients."""
        inside = sum(time for name, (time, _) in self.operators.items() if "conv" in name.lower())
        return inside / self.milliseconds

    def tables(self, rows: int = 20) -> list[Table]:
        """Tables for the terminal.

        Args:
            rows: number of operators shown.
        """
        total = self.milliseconds
        by_network = Table("network", "forward, ms", "backward, ms", "share", title="By network")
        for name, times in self.networks.items():
            by_network.add_row(name, *(f"{t:.1f}" for t in times), f"{sum(times) / total:.1%}")
        by_operator = Table("operator", "ms", "calls", "share", title="By operator")
        for name, (time, calls) in list(self.operators.items())[:rows]:
            by_operator.add_row(name, f"{time:.1f}", f"{calls:.0f}", f"{time / total:.1%}")
        share = self.convolution_share
        by_operator.add_row("all convolutions", f"{share * total:.1f}", "", f"{share:.1%}")
        for table in (by_network, by_operator):
            for column in table.columns[1:]:
                column.justify = "right"
        return [by_network, by_operator]


def profile_updates(
    update: Callable[[], object],
    networks: dict[str, nn.Module],
    updates: int,
    trace: Path | None,
    on_cuda: bool = False,
) -> UpdateProfile:
    """Run some updates under ``torch.profiler``.

    Args:
        update: runs one update, already warmed up.
        networks: networks by their names in the table. Compiled networks cannot be distinguished;
            their time counts as ``losses and others``.
        updates: number of updates.
        trace: file for chrome://tracing or Perfetto, ``.json`` or ``.json.gz``, or None.
        on_cuda: whether to measure the time on the GPU.
    """
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]
    with profile(activities=activities) as profiler, _marked(networks):
        for _ in range(updates):
            update()
    if trace is not None:
        zipped = trace.suffix == ".gz"
        write_atomically(trace, lambda temporary: _export(profiler, temporary, zipped))
    own = "self_device_time_total" if on_cuda else "self_cpu_time_total"
    operators = {
        average.key: (getattr(average, own) / 1e3 / updates, average.count / updates)
        for average in profiler.key_averages()
        if getattr(average, own) > 0 and not average.key.startswith(_MARK)
    }
    operators = dict(sorted(operators.items(), key=lambda item: -item[1][0]))
    return UpdateProfile(
        milliseconds=sum(time for time, _ in operators.values()),
        operators=operators,
        networks=_by_network(profiler.events(), list(networks), updates, on_cuda),
    )


_MARK = "network "


@contextmanager
def _marked(networks: dict[str, nn.Module]) -> Iterator[None]:
    """Record every call of a network as a range with its name."""
    hooks, ranges = [], []

    def enter(name: str) -> None:
        ranges.append(record_function(_MARK + name))
        ranges[-1].__enter__()

    for name, network in networks.items():
        hooks += [
            network.register_forward_pre_hook(lambda *_, name=name: enter(name)),
            network.register_forward_hook(lambda *_: ranges.pop().__exit__(None, None, None)),
        ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _by_network(
    events: EventList, names: list[str], updates: int, on_cuda: bool
) -> dict[str, tuple[float, float]]:
    """Forward time inside each network's ranges, and backward time of the operators in them.

    Autograd numbers the nodes of its graph in the order of their creation, and the profiler records
    the next number with every operator. So the last operator that starts with a number has created
    the node with this number.
    """
    total = "device_time_total" if on_cuda else "cpu_time_total"
    forward: dict[str, float] = defaultdict(float)
    backward: dict[str, float] = defaultdict(float)
    made_by: dict[int, str] = {}
    for event in sorted(events, key=lambda event: event.time_range.start):
        if event.name.startswith(_BACKWARD):
            continue
        owner = _owner(event)
        if event.sequence_nr >= 0 and owner is not None:
            made_by[event.sequence_nr] = owner
    for event in events:
        time = getattr(event, total) / 1e3 / updates
        if event.name.startswith(_BACKWARD):
            backward[made_by.get(event.sequence_nr, OTHER)] += time
        elif event.cpu_parent is None:
            forward[_owner(event) or OTHER] += time
        elif event.name.startswith(_MARK):  # its time is part of the caller's, which is counted
            forward[event.name.removeprefix(_MARK)] += time
            forward[_owner(_root(event)) or OTHER] -= time
    rows = [*names, "optimisers", OTHER]
    return {row: (forward[row], backward[row]) for row in rows}


def _root(event: FunctionEvent) -> FunctionEvent:
    while event.cpu_parent is not None:
        event = event.cpu_parent
    return event


def _owner(event: FunctionEvent | None) -> str | None:
    """The row of the table that a forward operator belongs to; None in a backward pass."""
    while event is not None:
        if event.name.startswith(_MARK):
            return event.name.removeprefix(_MARK)
        if event.name.startswith(_OPTIMISERS):
            return "optimisers"
        if event.name.startswith(_BACKWARD):
            return None
        event = event.cpu_parent
    return OTHER


def _export(profiler: profile, temporary: Path, zipped: bool) -> None:
    # the exporter compresses only files with this suffix
    name = temporary.with_name(temporary.name + (".gz" if zipped else ""))
    profiler.export_chrome_trace(str(name))
    name.rename(temporary)
