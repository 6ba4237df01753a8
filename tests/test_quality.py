"""Which quality keeps up, and what there is to choose from."""
from importlib.resources import files
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from s3dnerf.errors import InputError
from s3dnerf.inference import TalkingHead
from s3dnerf.media import read_sound
from s3dnerf.quality import SAMPLES, check_quality, keeping_up
from s3dnerf.workers import alone

ASSETS = files("s3dnerf") / "assets"


def test_what_is_no_quality_is_named():
    assert check_quality("auto") == "auto"
    with pytest.raises(InputError, match="best, balanced, fast, auto"):
        check_quality("good")


@pytest.fixture
def clock(monkeypatch):
    """A clock that nothing but the test moves, whatever else the machine does."""
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr("s3dnerf.quality.time", SimpleNamespace(perf_counter=lambda: now.seconds))
    return now


@pytest.mark.parametrize("seconds, chosen", [(dict(best=0, balanced=0, fast=0), "best"),
                                             (dict(best=0.07, balanced=0.06, fast=0), "balanced"),
                                             (dict(best=0.3, balanced=0.3, fast=0), "fast"),
                                             (dict(best=0.3, balanced=0.3, fast=0.3), "fast")])
def test_the_best_that_keeps_up_is_taken_and_else_the_fastest(seconds, chosen, clock):
    assert set(seconds) == set(SAMPLES)

    def frames(quality):
        clock.seconds += seconds[quality]
        return np.zeros((2, 4, 4, 3), np.uint8)

    assert keeping_up(frames, 1) == chosen


def test_twice_the_workers_may_take_twice_the_time(clock):
    def frames(quality):
        clock.seconds += 0.13
        return np.zeros((2, 4, 4, 3), np.uint8)

    assert keeping_up(frames, 1) == "fast" and keeping_up(frames, 2) == "best"


@pytest.fixture(scope="module")
def shown():
    """Makes two frames of the demonstration, a second in, in a quality."""
    head = TalkingHead.load()
    identity, sound = head.identify(str(ASSETS / "demo_photo.jpg")), read_sound(str(ASSETS / "demo_speech.wav"))
    made = {}

    def make(quality, pose):
        if (quality, pose) not in made:
            scene = head.speak(identity, sound, frame="face", quality=quality, pose=pose).scene
            with torch.inference_mode(), alone():
                made[quality, pose] = scene.model.render(scene.appearance, *scene.prepared(25, 2)).image.clamp(0, 1)
        return made[quality, pose]

    return make


@pytest.mark.parametrize("pose", ["natural", "still"])
@pytest.mark.parametrize("quality, least", [("best", 120), ("balanced", 45), ("fast", 40)])
def test_the_shipped_weights_look_the_same_in_every_quality(shown, quality, least, pose):
    square = ((shown(quality, pose) - shown("best", pose)) ** 2).mean((-3, -2, -1))
    assert set(SAMPLES) == {"best", "balanced", "fast"} and square.shape == (1, 2)
    assert (-10 * torch.log10(square.clamp_min(1e-15)) >= least).all()
    assert (shown(quality, "natural") - shown(quality, "still")).abs().max() > 0.1
