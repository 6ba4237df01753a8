"""What is at a point of the head."""
import torch

from s3dnerf.networks.radiance import BACK, RadianceField


def test_before_learning_the_front_of_the_head_is_full_and_nothing_else():
    field = RadianceField(feature_channels=6, modulation_channels=4, width=8, out_channels=5)
    places = torch.tensor([[0.0, 0.0, 0.0], [0.9, -0.1, 0.3], [0.9, -0.1, BACK + 0.2], [0.0, 0.0, 0.9], [2.0, 0.0, 0.0]])
    density, _ = field(torch.zeros(5, 6), places, torch.zeros(5, 4), torch.zeros(5, 1))
    assert (density[:2] > 5).all()
    assert (density[2:] < 0.01).all()  # behind the ears, at the back of the head, beside it


def test_inside_of_the_mouth_does_not_look_at_the_photo():
    field = RadianceField(feature_channels=6, modulation_channels=4, width=8, out_channels=5)
    place, modulation = torch.zeros(1, 3), torch.randn(1, 4)
    one, other = (torch.randn(1, 6) for _ in range(2))
    look = lambda features, inside: field(features, place, modulation, torch.full((1, 1), inside))[1]
    assert torch.equal(look(one, 1.0), look(other, 1.0)) and not torch.allclose(look(one, 0.0), look(other, 0.0))
    louder = field(one, place, modulation * 3, torch.ones(1, 1))[1]
    assert not torch.allclose(louder, look(one, 1.0))


def test_speech_is_asked_about_the_inside_of_the_mouth_alone_and_it_is_all_the_same():
    field = RadianceField(feature_channels=6, modulation_channels=4, width=8, out_channels=5)
    inside = torch.cat([torch.zeros(30, 1), torch.rand(10, 1)]).view(2, 20, 1)
    parts = torch.randn(2, 20, 6), torch.randn(2, 20, 3) * 0.3, torch.randn(2, 20, 4), inside
    whole = field(*parts)
    asked = []
    field.inside.register_forward_hook(lambda _, given, __: asked.append(given[0].flatten(0, -2).shape[0]))
    with torch.inference_mode():
        for found, expected in zip(field(*parts), whole):
            torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    assert asked == [10]
