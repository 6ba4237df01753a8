"""Pairs of whole frames of a recording."""
import torch

from s3dnerf.data.person_frames import PersonFrameModule


def test_pairs_are_whole_frames_in_a_row_of_the_learned_part(person_shards, person_video):
    data = PersonFrameModule(person_shards, pairs=2, steps_per_epoch=30)
    data.setup()
    for batch in data.train_dataloader():
        assert torch.equal(batch.frame[2:], batch.frame[:2] + 1) and batch.frame.max() < data.learned
        assert batch.patch == 64 and batch.pixels.shape == (4, 64 * 64, 2)
    image = batch.colour.unflatten(1, (64, 64))
    assert torch.allclose(image, person_video.frames[batch.frame] / 255)
