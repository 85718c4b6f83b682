"""Read-ahead and write-behind: the same results in the same order, at most a few steps apart."""

import threading
import time

import pytest

from pipeline.workers.prefetch import ahead, behind


def test_values_come_in_order_and_no_more_are_read_than_the_depth_ahead() -> None:
    read: list[int] = []

    def note(key: int) -> int:
        read.append(key)
        return 10 * key

    for position, value in enumerate(ahead(note, range(20), depth=2)):
        assert value == 10 * position
        time.sleep(0.001)
        assert len(read) <= position + 3


def test_the_next_value_is_read_while_the_caller_uses_this_one() -> None:
    reading = threading.Event()

    def read(key: int) -> int:
        if key == 1:
            reading.set()
        return key

    values = ahead(read, range(3))
    assert next(values) == 0
    assert reading.wait(timeout=10)
    assert list(values) == [1, 2]


def test_each_thread_reads_a_value_at_the_same_time_and_values_come_in_order() -> None:
    together = threading.Barrier(4)

    def read(key: int) -> int:
        together.wait(timeout=10)
        time.sleep(0.01 * (key % 3))
        return key

    assert list(ahead(read, range(12), depth=4, threads=4)) == list(range(12))


def test_what_reading_raises_is_raised_in_its_values_place() -> None:
    def read(key: int) -> int:
        if key == 2:
            raise ValueError("key 2")
        return key

    values = ahead(read, range(5), depth=3)
    assert [next(values), next(values)] == [0, 1]
    with pytest.raises(ValueError, match="key 2"):
        next(values)


def test_a_caller_who_stops_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    values = ahead(str, range(100))
    assert next(values) == "0"
    values.close()
    assert threading.active_count() == before


def test_no_keys_give_no_values() -> None:
    assert list(ahead(str, [])) == []


def test_steps_are_done_in_order_and_all_of_them_when_the_block_ends() -> None:
    done: list[int] = []
    with behind(depth=3) as later:
        for number in range(50):
            later(done.append, number)
    assert done == list(range(50))


def test_a_step_is_done_while_the_caller_goes_on_and_a_caller_too_far_ahead_waits() -> None:
    may_go, done = threading.Event(), threading.Event()

    def wait() -> None:
        assert may_go.wait(timeout=10)
        done.set()

    with behind(depth=1) as later:
        later(wait)  # returns at once, though the step waits
        assert not done.is_set()
        threading.Timer(0.05, may_go.set).start()
        later(int)  # one too many: it waits for the first
        assert done.is_set()


@pytest.mark.parametrize("steps", [1, 5])
def test_what_a_step_raises_reaches_the_caller(steps: int) -> None:
    def fail() -> None:
        raise OSError("disk")

    def run() -> None:
        with behind() as later:
            for _ in range(steps):
                later(fail)

    with pytest.raises(OSError, match="disk"):
        run()


def test_what_the_block_raises_is_raised_and_leaves_no_thread_behind() -> None:
    def run() -> None:
        with behind() as later:
            later(int)
            raise ValueError("mine")

    before = threading.active_count()
    with pytest.raises(ValueError, match="mine"):
        run()
    assert threading.active_count() == before
