"""Shared by the tests of preparation."""
import pytest
import torch


def expert():
    """Matches the brightness of pictures and the loudness of sounds, in windows of nine frames less their mean."""
    def match(images, _landmarks, mel):
        rows = images.mean((2, 3, 4)), mel[..., 18:22].amax(2).mean(2)
        windows = [torch.nn.functional.normalize(row.unfold(1, 9, 1) - row.unfold(1, 9, 1).mean(-1, keepdim=True), dim=-1)
                   for row in rows]
        return windows[0] @ windows[1].transpose(1, 2)

    return match


@pytest.fixture(scope="session")
def brightness_expert():
    """A lip discriminator's maker for heads that are as bright as their voice is loud."""
    return expert
