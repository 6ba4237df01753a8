"""A response that is known is found again, from flow between pictures as from places."""
import numpy as np
import pytest
import torch

from s3dnerf.networks.surroundings import ACROSS, PACE, Surroundings


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("fit_surroundings")


def test_a_known_response_is_found_again_in_spite_of_strays(script):
    torch.manual_seed(0)
    part, lefts = Surroundings(size=(4, 3)), []
    torch.nn.init.normal_(part.response, std=0.05)
    unit = torch.eye(12).reshape(1, 12, 4, 3) / PACE
    for _ in range(30):
        points, motion = torch.rand(120, 3) * 4 - 2, torch.randn(6) * torch.tensor(script.USUAL)
        with torch.no_grad():
            wrong = part.remainder(points[None, None], motion[None, None])[0, 0].numpy() * 128
        wrong[::10] = 20  # flow that went astray
        lefts.append(script.Left(Surroundings._read(unit, points).numpy(), (points[:, :1] * 2 / ACROSS).clamp(-1, 1).numpy(),
                                 motion.numpy(), wrong, np.full((120, 2), 1e4)))
    found = script.solve(lefts, (4, 3), 256, rounds=12)
    visible = torch.ones_like(part.response).bool()
    visible[:, [0, 3, 5, 7, 8, 10], :, 0] = False  # what is mirrored is nothing in the middle
    wrong = (found - part.response)[visible].detach().abs()
    assert wrong.mean() < 0.1 * part.response[visible].abs().mean()


def test_flow_tells_by_how_much_places_are_wrong(script):
    """A picture that shows everything four pixels too far to the left, and a wall that nobody asks about."""
    noise = torch.nn.functional.interpolate(torch.rand(1, 3, 16, 16), size=128, mode="bicubic").clamp(0, 1)[0]
    grid = (torch.arange(128) + 0.5) / 64 - 1
    places = torch.stack(torch.meshgrid(grid, grid, indexing="xy"))
    person = torch.ones(1, 128, 128)
    person[..., 90:] = 0
    wrong, weight = script.misplaced(noise.roll(-4, -1), noise, places, person)
    believed = weight[..., 0] > 0
    assert believed[20:-20, 20:80].mean() > 0.8 and not believed[:, 100:].any()
    assert np.allclose(np.median(wrong[believed], 0), (-4 / 64, 0), atol=0.01)
