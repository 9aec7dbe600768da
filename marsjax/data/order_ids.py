"""Order ids of exchanges: found when they come twice, and given small numbers where they do not fit in an int32."""

import uuid
from array import array

import numpy as np


class SeenIds:
    """All ids of a feed so far, 8 bytes each, to find those that come twice."""

    def __init__(self) -> None:
        self._runs: list[np.ndarray] = []  # sorted, each more than twice as long as the next

    def add(self, ids: np.ndarray) -> int | None:
        """Takes in ids, int64 or uint64 [N]; returns the first place at which one stands that came before, or None."""
        order = np.argsort(ids, kind="stable")
        run = ids[order]
        again = np.zeros(len(ids), bool)
        again[order[1:]] = run[1:] == run[:-1]
        for known in self._runs:
            place = np.minimum(np.searchsorted(known, run), len(known) - 1)
            again[order] |= known[place] == run
        if again.any():
            return int(np.argmax(again))
        while self._runs and len(self._runs[-1]) <= 2 * len(run):
            run = np.sort(np.concatenate([self._runs.pop(), run]), kind="stable")
        if len(run):
            self._runs.append(run)
        return None


class NumberedIds:
    """Whole numbers that stand for the orders of a feed, 0, 1, 2 and so on, and which order each stands for.

    An order that is sent in parts, or again after it was changed, has several numbers.
    """

    def __init__(self) -> None:
        self._names = array("Q")

    def add(self, name: int) -> int:
        """A new number that stands for an order."""
        self._names.append(name)
        return len(self._names) - 1

    def __len__(self) -> int:
        """Numbers given."""
        return len(self._names)

    def names(self, numbers: np.ndarray) -> np.ndarray:
        """The exchange's ids of numbers [N], uint64 [N]."""
        return np.frombuffer(self._names, np.uint64)[numbers] if len(self) else np.zeros(0, np.uint64)


class NumberedUuids:
    """As `NumberedIds`, of UUIDs: 16 bytes a number."""

    def __init__(self) -> None:
        self._names = bytearray()

    def add(self, name: bytes) -> int:
        """A new number that stands for the order with this UUID, 16 bytes."""
        self._names += name
        return len(self._names) // 16 - 1

    def __len__(self) -> int:
        """Numbers given."""
        return len(self._names) // 16

    def name(self, number: int) -> str:
        """The UUID of a number, as text."""
        return self.text(bytes(self._names[16 * number:16 * number + 16]))

    @staticmethod
    def text(name: bytes) -> str:
        """The 16 bytes of a UUID as text."""
        return str(uuid.UUID(bytes=name))
