"""The offset of sound and lips: found where there is evidence, left alone where there is none; sound cut where it is due."""
import numpy as np
import pytest
import torch

from s3dnerf.commands.options import lip_matcher
from s3dnerf.data.module import read_cameras
from s3dnerf.data.shards import decode_sample
from s3dnerf.data.sync import FARTHEST, SURE, SyncProfile, cut_sound, sync_profile
from s3dnerf.geometry import project

SHORT, LONG = 17, 350
"""windows of a second, and of fourteen"""


def table(offset, windows, draw, height=0.45, noise=0.35):
    """Cosines whose lips w go with sound w + offset, within two frames, under noise that neighbouring windows share."""
    apart = np.arange(windows) - np.arange(windows)[:, None] - offset
    cells = draw.standard_normal((windows + 8, windows + 8))
    smooth = sum(cells[k:k + windows, k:k + windows] for k in range(9)) / 3
    return height * np.exp(-(apart / 2.0) ** 2) + noise * smooth


@pytest.mark.parametrize("offset", [*range(-8, 9)])
def test_long_recordings_tell_their_offset(offset):
    found = SyncProfile.of(table(offset, LONG, np.random.default_rng(offset + 50), noise=0.15)).estimate()
    assert found.offset == offset
    assert found.confidence >= SURE if offset else found.confidence < SURE


def test_short_recordings_in_step_are_left_alone():
    """Their best offset is hardly ever 0, and yet at most one of a hundred is moved."""
    profiles = [SyncProfile.of(table(0, SHORT, np.random.default_rng(seed))) for seed in range(300)]
    assert np.mean([profile.posterior().argmax() != FARTHEST for profile in profiles]) > 0.3
    assert sum(profile.estimate().offset != 0 for profile in profiles) <= 3


def test_pieces_that_are_unsure_alone_are_sure_together():
    pieces = [SyncProfile.of(table(2, SHORT, np.random.default_rng(seed), noise=0.15)) for seed in range(20)]
    assert sum(piece.estimate().offset == 0 for piece in pieces) > 10
    together = sum(pieces, SyncProfile())
    assert together.estimate().offset == 2 and together.estimate().confidence >= SURE
    assert together.pairs[FARTHEST] == 20 * SHORT


@pytest.mark.parametrize("cosine", [np.zeros((LONG, LONG)), np.full((LONG, LONG), 0.9), np.ones((2, 2))],
                         ids=["nothing", "everything alike", "two windows"])
def test_without_evidence_every_offset_is_as_likely(cosine):
    profile = SyncProfile.of(cosine)
    assert np.allclose(profile.posterior(), 1 / (2 * FARTHEST + 1))
    assert profile.estimate().offset == 0 and profile.estimate().confidence == pytest.approx(10 / 21, abs=1e-4)


def test_profile_is_sums_over_diagonals():
    cosine = np.random.default_rng(0).uniform(-1, 1, (30, 30))
    profile = SyncProfile.of(cosine)
    for shift in (-10, -3, 0, 7):
        pairs = [cosine[w, w + shift] for w in range(30) if 0 <= w + shift < 30]
        assert profile.cosines[FARTHEST + shift] == pytest.approx(sum(pairs))
        assert profile.pairs[FARTHEST + shift] == len(pairs)


def test_offsets_that_few_pairs_tell_of_do_not_count():
    """The corner of a small table, three pairs at most, says what it likes."""
    cosine = np.where(np.subtract.outer(np.arange(12), np.arange(12)) < -8, 1.0, 0.0)
    assert SyncProfile.of(cosine).posterior()[FARTHEST + 9:].max() == 0


def test_sound_is_cut_where_it_is_due():
    sound = np.arange(1, 5 * 640 + 1, dtype=np.float32)
    assert np.array_equal(cut_sound(sound, 1, 3), sound[640:4 * 640])
    early, late = cut_sound(sound, -2, 4), cut_sound(sound, 3, 4)
    assert np.array_equal(early[2 * 640:], sound[:2 * 640]) and not early[:2 * 640].any()
    assert np.array_equal(late[:2 * 640], sound[3 * 640:]) and not late[2 * 640:].any()
    for first in (-9, 9):
        assert len(cut_sound(sound, first, 4)) == 4 * 640 and not cut_sound(sound, first, 4).any()


def test_the_shipped_expert_follows_sound_that_is_moved(shards):
    """What it believes of synthetic heads, whose lips move with the voice and not before it, moves by as many frames."""
    import webdataset

    paths, match = [str(path) for path in sorted(shards.glob("*.tar"))], lip_matcher("one-shot-256")
    clips = [decode_sample(sample) for sample in webdataset.WebDataset(paths, shardshuffle=False)]
    best = []
    for late in (0, 4):
        profile = SyncProfile()
        for clip in clips:
            pixels = project(torch.from_numpy(clip.mesh), read_cameras(clip.cameras, 64))[0].numpy()
            profile += sync_profile(clip.frames, pixels, cut_sound(clip.speech, -late, len(clip.frames)), match)
        best.append(int(profile.posterior().argmax()))
    assert 3 <= best[1] - best[0] <= 5
