"""Windows are squares of frames that are learned from, as wide and where they are said to be."""
import pytest
import torch

from s3dnerf.data.person_windows import PersonWindowModule
from s3dnerf.errors import DatasetError


def batches(folder, **options):
    data = PersonWindowModule(folder, window=32, steps_per_epoch=12, **options)
    data.setup()
    return data, list(data.train_dataloader())


def test_windows_show_the_recording(person_shards):
    data, found = batches(person_shards, shares=(0.4, 0.3))
    assert {batch.patch for batch in found} == {32, 64} and all(batch.frame.max() < data.learned for batch in found)
    for batch in found:
        left, top = (batch.pixels[0, 0] - 0.5).long().tolist()
        shown = data.video.frames[batch.frame, top:top + batch.patch, left:left + batch.patch] / 255
        assert torch.equal(batch.colour.view_as(shown), shown) and len(batch.frame) == (2 if batch.patch == 64 else 4)


def test_those_around_the_mouth_hold_it(person_shards):
    data, found = batches(person_shards, shares=(0.0, 1.0))
    for batch in found:
        middle = data.boxes[batch.frame, 1].view(-1, 2, 2).mean(1)
        assert ((batch.pixels[:, 0] < middle) & (batch.pixels[:, -1] > middle)).all()


def test_a_window_of_another_size_is_refused(person_shards):
    with pytest.raises(DatasetError, match="multiple of 4"):
        PersonWindowModule(person_shards, window=30)
