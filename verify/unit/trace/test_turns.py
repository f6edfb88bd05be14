"""Turns of threads: one follows a network, others run modules before or after."""

import threading
from collections.abc import Callable

import pytest

from lrw.trace.turns import Turns

SECONDS = 30.0


def started(do: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=do, daemon=True)
    thread.start()
    return thread


def ended(thread: threading.Thread) -> bool:
    thread.join(SECONDS)
    return not thread.is_alive()


def waits(thread: threading.Thread) -> bool:
    thread.join(0.05)
    return thread.is_alive()


def following(turns: Turns, said: list[str]) -> None:
    with turns:
        said.append("followed")


def passing(turns: Turns, said: list[str]) -> None:
    with turns.passing():
        said.append("passed")


def waiting(turns: Turns, said: list[str]) -> None:
    turns.wait()
    said.append("waited")


@pytest.mark.parametrize("do", [following, passing, waiting])
def test_others_wait_until_a_network_was_followed(do: Callable[[Turns, list[str]], None]) -> None:
    turns, said = Turns(), list[str]()
    with turns:
        with turns, turns.passing():
            turns.wait()  # for nobody: it is this thread that follows
        other = started(lambda: do(turns, said))
        assert waits(other)
        said.append("mine")
    assert ended(other)
    assert said[0] == "mine"
    assert len(said) == 2


def test_who_follows_waits_for_passes_of_others_alone() -> None:
    turns, said = Turns(), list[str]()
    with turns.passing():
        passing(turns, said)
        assert ended(started(lambda: passing(turns, said)))
        assert ended(started(lambda: waiting(turns, said)))
        other = started(lambda: following(turns, said))
        assert waits(other)
        said.append("mine")
    assert ended(other)
    assert said == ["passed", "passed", "waited", "mine", "followed"]


def test_two_that_want_to_follow_amid_their_passes_do_not_wait_for_each_other() -> None:
    turns, said, both = Turns(), list[str](), threading.Barrier(2, timeout=SECONDS)

    def run() -> None:
        with turns.passing():
            both.wait()
            with turns, turns.passing():
                following(turns, said)
        passing(turns, said)

    threads = [started(run) for _ in range(2)]
    assert [ended(thread) for thread in threads] == [True, True]
    assert sorted(said) == ["followed"] * 2 + ["passed"] * 2
    assert ended(started(lambda: following(turns, said)))


def test_a_pass_goes_on_after_its_thread_followed() -> None:
    turns, said = Turns(), list[str]()
    with turns.passing():
        following(turns, said)
        other = started(lambda: following(turns, said))
        assert waits(other)
    assert ended(other)


def test_a_forked_child_waits_for_none_of_its_parents_threads() -> None:
    turns, said, held, done = Turns(), list[str](), threading.Event(), threading.Event()

    def hold() -> None:
        with turns.passing():
            held.set()
            assert done.wait(SECONDS)

    parent = started(hold)
    assert held.wait(SECONDS)
    child = Turns()
    vars(child).update(vars(turns))
    child.renew()
    assert ended(started(lambda: following(child, said)))
    done.set()
    assert ended(parent)
