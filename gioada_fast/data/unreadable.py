"""Counts files that cannot be read, up to the number that a run tolerates."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from ..errors import InputError

Frame = TypeVar("Frame", covariant=True)


class Unreadable:
    """Files that could not be read: each is reported once, and more than ``limit`` are an error."""

    def __init__(self, limit: int, report: Callable[[str], None]):
        self.limit, self.report = limit, report
        self._messages: set[str] = set()

    def add(self, message: str) -> None:
        """Count a file's error, unless it was counted before.

        Raises:
            InputError: more than ``limit`` files cannot be read.
        """
        if message in self._messages:
            return
        self._messages.add(message)
        if len(self._messages) > self.limit:
            raise InputError(
                f"{message}\n{len(self._messages)} files cannot be read, data.max_unreadable is "
                f"{self.limit}; python -m gioada_fast.data check names them all"
            )
        self.report(f"{message}: left out ({len(self._messages)} of at most {self.limit})")


class Frames(Protocol[Frame]):
    """Frames that are read by their index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Frame: ...


def first_readable(frames: Frames[Frame], count: int) -> list[Frame]:
    """The first ``count`` frames, without those that cannot be read."""
    readable: list[Frame] = []
    for index in range(len(frames)):
        if len(readable) == count:
            break
        try:
            readable.append(frames[index])
        except InputError:
            continue
    return readable
