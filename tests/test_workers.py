"""Parts done side by side come out in order, and no faster than they are asked for."""
import threading
import time

import pytest
import torch

from s3dnerf.workers import MOST, Workers, alone


@pytest.mark.parametrize("cores", [1, 2, 5])
def test_results_come_in_the_order_of_the_parts_whoever_is_faster(cores):
    def slow(part):
        time.sleep(0.02 * (part % 3 == 0))
        return part, torch.is_inference_mode_enabled()

    assert list(Workers(cores).map(slow, range(12))) == [(part, True) for part in range(12)]
    assert not torch.is_inference_mode_enabled()


def test_threads_share_the_cores_and_this_one_keeps_its_own():
    assert Workers(3).count == 3 and Workers(64).count == MOST and Workers(0).count == 1
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        found = list(Workers(2).map(lambda _: (torch.get_num_threads(), threading.current_thread().name), range(6)))
        assert {threads for threads, _ in found} == {1} and threading.current_thread().name not in dict(found).values()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("cores", [1, 3])
def test_nothing_is_begun_long_before_it_is_asked_for(cores):
    begun = []
    results = Workers(cores).map(begun.append, iter(range(100)))
    assert not begun
    next(results)
    assert len(begun) <= cores + 1
    for _ in range(9):
        next(results)
    assert len(begun) <= cores + 10
    results.close()
    assert len(begun) <= cores + 10


@pytest.mark.parametrize("cores", [1, 3])
def test_what_fails_is_told_and_ends_the_others(cores):
    begun = []

    def fail(part):
        begun.append(part)
        return 1 / (part - 4)

    with pytest.raises(ZeroDivisionError):
        list(Workers(cores).map(fail, range(100)))
    assert len(begun) <= 4 + cores + 2


def test_what_is_done_alone_is_not_shared_and_what_comes_after_is():
    before = torch.get_num_threads()
    with alone():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
    with pytest.raises(KeyError), alone():
        raise KeyError
    assert torch.get_num_threads() == before
