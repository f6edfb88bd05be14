"""Whose turn it is: torch.export, while it follows a network, changes for the whole process what it means to call a
module, and has other tensors in the one it follows."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition, get_ident


class Turns:
    """One thread at a time follows a network (`with turns:`, in one another if need be), and meanwhile no other runs
    modules of an accelerated one (`with turns.passing():`). Those of a thread that waits to follow do not count: two
    that wait for each other would wait forever."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Forget all threads, as in a forked child, where those of the parent are not."""
        self._changed = Condition()
        self._follower: int | None = None
        self._paused: list[int] = []  # for each time the follower entered, its passes that began before
        self._passes: Counter[int] = Counter()  # by thread

    def __enter__(self) -> None:
        me = get_ident()
        with self._changed:
            mine = self._passes.pop(me, 0)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._follower == me or (self._follower is None and not self._passes))
            self._follower = me
            self._paused.append(mine)

    def __exit__(self, *_: object) -> None:
        me = get_ident()
        with self._changed:
            mine = self._paused.pop()
            if mine:
                self._passes[me] = mine
            if not self._paused:
                self._follower = None
            self._changed.notify_all()

    def wait(self) -> None:
        """Until no other thread follows a network."""
        me = get_ident()
        if self._follower not in (None, me):
            with self._changed:
                self._changed.wait_for(lambda: self._follower in (None, me))

    @contextmanager
    def passing(self) -> Iterator[None]:
        """A block that runs modules; it begins when no other thread follows a network."""
        me = get_ident()
        with self._changed:
            self._changed.wait_for(lambda: self._follower in (None, me))
            self._passes[me] += 1
        try:
            yield
        finally:
            with self._changed:
                self._passes[me] -= 1
                if not self._passes[me]:
                    del self._passes[me]
                self._changed.notify_all()
