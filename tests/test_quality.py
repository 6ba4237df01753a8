"""Which quality keeps up, and what there is to choose from."""
import time

import numpy as np
import pytest

from s3dnerf.errors import InputError
from s3dnerf.quality import SAMPLES, check_quality, keeping_up


def test_what_is_no_quality_is_named():
    assert check_quality("auto") == "auto"
    with pytest.raises(InputError, match="best, balanced, fast, auto"):
        check_quality("good")


@pytest.mark.parametrize("seconds, chosen", [(dict(best=0, balanced=0, fast=0), "best"),
                                             (dict(best=0.3, balanced=0, fast=0), "balanced"),
                                             (dict(best=0.3, balanced=0.3, fast=0), "fast"),
                                             (dict(best=0.3, balanced=0.3, fast=0.3), "fast")])
def test_the_best_that_keeps_up_is_taken_and_else_the_fastest(seconds, chosen):
    assert set(seconds) == set(SAMPLES)

    def frames(quality):
        time.sleep(seconds[quality])
        return np.zeros((2, 4, 4, 3), np.uint8)

    assert keeping_up(frames, 1) == chosen


def test_twice_the_workers_may_take_twice_the_time():
    frames = lambda quality: time.sleep(0.1) or np.zeros((2, 4, 4, 3), np.uint8)
    assert keeping_up(frames, 1) == "fast" and keeping_up(frames, 4) == "best"
