"""Many tensors as they were, looked at together: a network has hundreds, and every call asks for all of them."""

from collections.abc import Iterable, Sequence
from itertools import compress
from math import ceil
from operator import attrgetter, call, is_
from typing import Any
from weakref import ref

import torch
from torch import Tensor, UntypedStorage

from lrw import unchanged
from lrw.unchanged import extent, rate, writes

Form = tuple[list[Any], ...]
"""Where and how tensors lie: lists of addresses, sizes, strides, types, and of bytes of their memory."""


class _Look:
    """What is read at every `rate`-th use, as pieces of memory, and what it `held`; None: nobody knows. Of what the
    system notes writes to, `watched`, only what is left is read, the `rest`, where nothing was written."""

    def __init__(self, at: int, places: Sequence[range], held: bytes | None) -> None:
        from lrw_kernels.codegen.written import watched
        from lrw_kernels.cpu.digest import pieces  # loads a kernel

        self.rate, self.held, self.pieces = at, held, pieces(places)
        self.watched = watched(places)
        self.rest = pieces(_without(places, self.watched.ranges))
        # When all was read: the protection's number, and the digest of the rest.
        self._seen: tuple[int, bytes] | None = None

    def same(self) -> bool:
        """Whether memory holds what it held."""
        from lrw_kernels.cpu.digest import digest  # loads a kernel

        seen, threads = self._seen, torch.get_num_threads()
        if seen is not None and not self.watched.written(seen[0]):
            return digest(self.rest, threads) == seen[1]
        since = self.watched.protect()  # before all is read: what is written from here on is read again
        rest = digest(self.rest, threads)
        if self.held is None or digest(self.pieces, threads) != self.held:
            return False
        self._seen = since, rest
        return True


class Marks:
    """Tensors as they were: their memory and form, the writes torch had counted, what they held. See `unchanged`."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self.tensors = (*tensors,)
        storages = _storages(self.tensors)
        self._memory: list[ref[UntypedStorage]] = [*map(ref, storages)]
        self._form, self._writes = _form(self.tensors, storages), [*map(writes, self.tensors)]
        asked = [t if t.is_cpu and rate(t) > 0 else None for t in self.tensors]
        found = iter(_held([t for t in asked if t is not None]))
        self._held = [None if t is None else next(found) for t in asked]
        self._looks: list[_Look] = []
        self._uses: dict[int, int] = {}  # by rate: since the tensors were looked at
        self._grouped: object = None  # by which state of trust
        self._forgotten = unchanged.forgotten()

    def those(self, taken: Sequence[bool]) -> "Marks":
        """The marks of those tensors that are `taken`."""
        some = Marks(())
        some.tensors = (*compress(self.tensors, taken),)
        some._form = (*([*compress(column, taken)] for column in self._form),)
        some._memory, some._writes = [*compress(self._memory, taken)], [*compress(self._writes, taken)]
        some._held = [*compress(self._held, taken)]
        return some

    def lie(self) -> bool:
        """Whether all tensors lie where they lay, in their form."""
        storages = _storages(self.tensors)
        there: Iterable[UntypedStorage | None] = map(call, self._memory)
        return all(map(is_, there, storages)) and self._form == _form(self.tensors, storages)

    def hold(self) -> bool:
        """Whether all tensors lie where they lay, in their form, and hold what they held, written anew or not."""
        if not self.lie():
            return False
        if self._forgotten != unchanged.forgotten():
            if _held(self.tensors) != self._held:
                return False
            self._forgotten = unchanged.forgotten()
        now = [*map(writes, self.tensors)]
        if now != self._writes:
            of = [i for i, (count, before) in enumerate(zip(now, self._writes, strict=True)) if count != before]
            if _held([self.tensors[i] for i in of if self._held[i] is not None]) != [self._held[i] for i in of]:
                return False
            self._writes = now
        return all(map(self._seen, self._due()))

    def _due(self) -> list[_Look]:
        """What is looked at, as things are trusted now."""
        state = unchanged.trust_state()
        if self._grouped is not state:
            rates = [*map(rate, self.tensors)]
            self._looks = [self._look(each, rates) for each in sorted({*rates} - {0})]
            self._grouped = state
        return self._looks

    def _look(self, at: int, rates: Sequence[int]) -> _Look:
        taken = [each == at for each in rates]
        held = [*compress(self._held, taken)]
        known = [each for each in held if each is not None]
        places = [extent(t) for t in compress(self.tensors, taken)]
        return _Look(at, places, b"".join(known) if len(known) == len(held) else None)

    def _seen(self, look: _Look) -> bool:
        """Whether what is due now holds what it held."""
        uses = self._uses.get(look.rate, 0) + 1
        if uses < look.rate and look.held is not None:
            self._uses[look.rate] = uses
            return True
        if not look.same():
            return False  # and so it stays: the next use looks too
        self._uses[look.rate] = 0
        return True


def _without(places: Sequence[range], ranges: Sequence[tuple[int, int]]) -> list[range]:
    """What is left of `places` without those of their parts that are among `ranges`."""
    left = []
    for place in places:
        inner = next((at for at in ranges if place.start <= at[0] and at[1] <= place.stop), (place.stop, place.stop))
        left += [range(place.start, inner[0]), range(inner[1], place.stop)]
    return [place for place in left if place]


def _form(tensors: Sequence[Tensor], storages: Sequence[UntypedStorage]) -> Form:
    """The form of `tensors` in these storages, asked for at the speed of C."""
    of_tensors = (Tensor.data_ptr, Tensor.size, Tensor.stride, attrgetter("dtype"))
    return *([*map(ask, tensors)] for ask in of_tensors), [*map(UntypedStorage.nbytes, storages)]


def _storages(tensors: Sequence[Tensor]) -> list[UntypedStorage]:
    return [*map(Tensor.untyped_storage, tensors)]


def _held(tensors: Sequence[Tensor]) -> list[bytes]:
    """What each tensor in host memory holds, in a few bytes."""
    from lrw_kernels.cpu.digest import PIECE, digest, pieces  # these load a kernel

    places = [extent(t) for t in tensors]
    if not places:
        return []
    found, at, each = digest(pieces(places), torch.get_num_threads()), 0, list[bytes]()
    for place in places:
        count = 8 * ceil(len(place) / PIECE)
        each.append(found[at : at + count])
        at += count
    return each
