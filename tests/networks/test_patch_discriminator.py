"""The patch discriminator learns grain, and gives its gradient to pictures without taking any itself."""
import torch

from s3dnerf.networks.patch_discriminator import PatchDiscriminator, feature_distance, hinge_loss


def test_shapes():
    verdict, features = PatchDiscriminator((4, 8, 16))(torch.rand(2, 3, 32, 48))
    assert verdict.shape == (2, 1, 4, 6)
    assert [x.shape[1] for x in features] == [4, 8, 16]


def test_it_learns_to_tell_grain_from_blur():
    torch.manual_seed(0)
    critic = PatchDiscriminator((8, 16, 16))
    optimizer = torch.optim.Adam(critic.parameters(), 5e-3)

    def pictures():
        sharp = torch.rand(8, 3, 32, 32)
        return sharp, torch.nn.functional.avg_pool2d(sharp, 3, 1, 1)

    for _ in range(60):
        sharp, blurred = pictures()
        loss = hinge_loss(critic(sharp)[0], critic(blurred)[0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    sharp, blurred = pictures()
    assert critic(sharp)[0].mean() > critic(blurred)[0].mean() + 0.5


def test_frozen_says_the_same_and_gives_a_gradient_to_the_picture_alone():
    torch.manual_seed(0)
    critic = PatchDiscriminator((4, 8, 8)).eval()
    picture = torch.rand(1, 3, 16, 16, requires_grad=True)
    verdict, _ = critic.frozen(picture)
    assert torch.equal(verdict, critic(picture)[0])
    verdict.mean().backward()
    assert picture.grad.abs().max() > 0 and all(p.grad is None for p in critic.parameters())


def test_hinge_and_feature_distance():
    assert hinge_loss(torch.tensor([2.0, 0.0]), torch.tensor([-3.0, 0.0])) == 1.0
    assert feature_distance([torch.ones(2), torch.zeros(3)], [torch.zeros(2), torch.zeros(3)]) == 0.5
