"""Stages, against a clock that is moved by hand."""
import threading

import pytest

from s3dnerf.stopwatch import Stopwatch, stage


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_a_stage_inside_another_is_taken_off_it(clock):
    watch = Stopwatch(clock=clock)
    for _ in range(2):
        with watch.stage("outer"):
            clock.now += 1
            with stage("inner"):
                clock.now += 10
                with stage("inmost"):
                    clock.now += 100
            clock.now += 1000
            with stage("inner"):
                clock.now += 10
    assert watch.seconds == {"inmost": 200, "inner": 40, "outer": 2002}


def test_a_whole_stage_is_not_divided_and_what_follows_is(clock):
    watch = Stopwatch(clock=clock)
    with watch.stage("before"):
        with watch.stage("whole", whole=True):
            with stage("inner"):
                clock.now += 3
        with stage("after"):
            clock.now += 5
    assert watch.seconds == {"whole": 3, "after": 5, "before": 0}


def test_what_fails_is_timed_and_what_is_not_timed_costs_nothing(clock):
    watch = Stopwatch(clock=clock)
    with pytest.raises(ValueError), watch.stage("broken"):
        clock.now += 2
        raise ValueError
    with stage("nobody listens"):
        clock.now += 7
    assert watch.seconds == {"broken": 2}


def test_threads_add_up_and_do_not_see_each_others_stages(clock):
    watch = Stopwatch(clock=clock)

    def other():
        with stage("theirs"):
            pass
        with watch.stage("shared"):
            clock.now += 4

    with watch.stage("mine"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        with stage("shared"):
            clock.now += 1
    assert watch.seconds == {"shared": 5, "mine": 4}


def test_a_gpu_is_waited_for_before_the_clock_is_read(clock):
    def settle():
        clock.now += 9

    watch = Stopwatch(settle, clock)
    with watch.stage("queued"):
        pass
    assert watch.seconds == {"queued": 9}
