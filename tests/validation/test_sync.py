"""Figures of lips and sound against tables of cosines that are known."""
import copy
from types import SimpleNamespace

import pytest
import torch

from s3dnerf.networks.lip_sync import LipSyncDiscriminator
from s3dnerf.validation import sync
from s3dnerf.validation.scenes import Subject
from s3dnerf.validation.suite import examine


def late(shift, count=21):
    """Cosines of lips (rows) whose sound (columns) comes `shift` frames late."""
    time = torch.arange(count)
    return torch.exp(-(time[:, None] + shift - time).float() ** 2 / 8)


def lines(monkeypatch, check, recorded, rendered):
    monkeypatch.setattr(sync, "match", lambda _expert, scene, what: scene.tables[what])
    scenes = [SimpleNamespace(tables={"recorded": recorded, "rendered": rendered})] * 2
    expert = LipSyncDiscriminator(width=8, embedding=16)
    return {line.name: line for line in examine(Subject(None, scenes, judge=expert), (check,))}


@pytest.mark.parametrize("shift, word", [(0, "pass"), (1, "pass"), (-3, "FAIL"), (4, "FAIL")])
def test_a_late_sound_is_found(shift, word, monkeypatch):
    found = lines(monkeypatch, sync.sync_knows_the_offset, late(0), late(shift))
    assert found["judging expert: offset that fits best, recorded, frames"].verdict == "pass"
    line = found["judging expert: offset that fits best, rendered, frames"]
    assert line.figure == shift and line.verdict == word
    assert found["training expert: offset that fits best, recorded, frames"].verdict == "missing"


def test_lips_that_go_with_any_sound_are_caught(monkeypatch):
    found = lines(monkeypatch, sync.sync_knows_the_offset, late(0), torch.full((21, 21), 0.4))
    rise = "judging expert: distance rises with sound shifted by 5 frames, "
    assert found[rise + "recorded"].verdict == "pass" and found[rise + "rendered"].verdict == "FAIL"


def test_the_rise_is_the_smaller_one_of_both_directions():
    profile = sync.mean_profile([late(1), late(1, 30)])
    assert len(profile) == 15 and profile.argmax() == 8
    assert profile[7 - 5] < profile[7 + 5] < profile[7]
    assert len(sync.mean_profile([late(0, 5)])) == 5 and len(sync.mean_profile([late(0, 2)])) == 1


def test_an_expert_that_knows_the_speaker_alone_is_caught(monkeypatch):
    title = "judging expert: AUC, negatives of the same clip"
    speaker = torch.full((21, 21), 0.9)  # every sound of the clip fits every lips
    assert lines(monkeypatch, sync.experts_tell_lips_from_shifted_lips, speaker, speaker)[title].figure == 0.5
    assert lines(monkeypatch, sync.experts_tell_lips_from_shifted_lips, late(0), late(0))[title].verdict == "pass"


def test_right_and_wrong_pairs_of_a_clip():
    right, wrong = sync.right_and_wrong([late(0, 6), late(0, 5)])
    assert len(right) == 11 and len(wrong) == 2 * (3 + 2 + 1) + 2 * (2 + 1) and wrong.max() < right.min()


def test_a_judge_that_is_the_teacher_is_caught(monkeypatch):
    monkeypatch.setattr(sync, "match", lambda *_: late(0))
    one, other = LipSyncDiscriminator(width=8, embedding=16), LipSyncDiscriminator(width=8, embedding=16)
    later = copy.deepcopy(one)  # another checkpoint of the same training
    with torch.no_grad():
        for parameter in later.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    words = lambda judge: [line.verdict for line in examine(Subject(None, [None], one, judge), (sync.judge_is_not_the_teacher,))]
    assert [words(judge)[:2] for judge in (other, one, later, None)] == [
        ["pass", "pass"], ["FAIL", "FAIL"], ["pass", "FAIL"], ["missing", "missing"]]
    assert sync.digest(one) == sync.digest(one) != sync.digest(other)
    assert sync.likeness(one, LipSyncDiscriminator(width=16, embedding=16)) == 0
