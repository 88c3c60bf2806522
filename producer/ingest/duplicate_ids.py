"""The line on which each id of an input first appears; a million ids take about 24 MB."""

from array import array

SMALLEST = 1024
FREE = 0
BITS_64 = (1 << 64) - 1


class FirstLines:
    """A hash table with open addressing in two flat arrays: 64 bits of an id's hash, and its line.

    Two ids with the same hash would count as duplicates. The hash is salted per process, so collisions cannot be
    provoked; by chance they affect one in about 30 million inputs of a million lines.
    """

    def __init__(self, expected: int = 0) -> None:
        self._count = 0
        self._make(1 << max(SMALLEST, expected * 3 // 2).bit_length())

    def first(self, id_: str, line: int) -> int:
        """The line on which the id first appeared: an earlier one, or this one, which is then recorded."""
        hashed = (hash(id_) & BITS_64) or 1
        slot = self._slot(hashed)
        if self._hashes[slot] == FREE:
            self._hashes[slot], self._lines[slot] = hashed, line
            self._count += 1
            if self._count * 3 > len(self._hashes) * 2:
                self._grow()
            return line
        return self._lines[slot]

    def _make(self, slots: int) -> None:
        self._mask = slots - 1
        self._hashes = array("Q", bytes(8 * slots))
        self._lines = array("I", bytes(4 * slots))

    def _slot(self, hashed: int) -> int:
        """The slot of this hash, or the free slot for it."""
        hashes, mask = self._hashes, self._mask
        slot = hashed & mask
        while hashes[slot] not in (FREE, hashed):
            slot = (slot + 1) & mask
        return slot

    def _grow(self) -> None:
        known = zip(self._hashes, self._lines, strict=True)
        self._make(2 * len(self._hashes))
        for hashed, line in known:
            if hashed != FREE:
                slot = self._slot(hashed)
                self._hashes[slot], self._lines[slot] = hashed, line
