"""Figures of pictures against pictures that are known; names of people."""
import pytest
import torch

from s3dnerf.validation.picture import high_frequencies, identity_ratio, people_are_apart, person_stem, shared_people
from s3dnerf.validation.scenes import Subject


def test_own_faces_a_mean_face_and_half_a_mean_face():
    photos, masks = list(torch.rand(3, 3, 32, 32)), list(torch.ones(3, 1, 32, 32))
    mean = sum(photos) / 3
    assert identity_ratio(photos, photos, masks) == pytest.approx(1)
    assert identity_ratio(photos, [mean] * 3, masks) == 0
    assert identity_ratio(photos, [(photo + mean) / 2 for photo in photos], masks) == pytest.approx(0.5, abs=1e-4)


def test_backgrounds_tell_nobody_apart():
    photos = list(torch.rand(2, 3, 32, 32))
    mask = torch.zeros(1, 32, 32)
    mask[:, 8:24, 8:24] = 1
    outputs = [torch.where(mask > 0, torch.tensor(0.5), photo) for photo in photos]
    assert identity_ratio(photos, outputs, [mask, mask]) == 0


def test_energy_of_a_known_wave_and_of_a_blurred_one():
    x = torch.arange(64).float()
    waves = lambda high: (0.5 + 0.2 * torch.sin(0.2 * x) + high * torch.sin(2.4 * x)).expand(1, 2, 3, 64, 64)
    mask = torch.ones(1, 2, 1, 64, 64)
    assert high_frequencies(waves(0.1), waves(0.1), mask) == pytest.approx(1)
    assert high_frequencies(waves(0.05), waves(0.1), mask) == pytest.approx(0.25, abs=0.01)
    assert high_frequencies(waves(0.0), waves(0.1), mask) < 0.01


def test_people_by_their_names_without_the_recordings_number():
    assert person_stem("WRA_EricCantor0") == person_stem("EricCantor1") == "EricCantor"
    assert [person_stem(name) for name in ("news_p07", "grid_s1", "synthetic_p000_001")] == ["news_p07", "grid_s1",
                                                                                             "synthetic_p000_001"]
    assert shared_people(["EricCantor0", "grid_s1"], ["RD_EricCantor3", "grid_s2"]) == ["EricCantor"]


def test_a_person_on_both_sides_fails():
    line = lambda trained_on: people_are_apart(Subject(None, [], people=("a", "JohnDoe0"), trained_on=trained_on))[0]
    assert line(("JohnDoe1", "b")).verdict == "FAIL" and line(("b",)).verdict == "pass" and line(None).verdict == "missing"
