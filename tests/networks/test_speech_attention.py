"""Speech attention: the paper's sizes, what a code may depend on, and that attention weighs."""
import pytest
import torch

from s3dnerf.networks.speech_attention import SpeechAttention, neighbours, smooth


def test_the_paper_s_sizes():
    net = SpeechAttention(29)
    count = lambda *parts: sum(p.numel() for part in parts for p in part.parameters())
    assert count(net.convolutions, net.code) == 32_800 and count(net.attention, net.weights) == 3_685


def test_neighbours_are_in_time_order_and_zero_beyond_the_ends():
    sequence = torch.arange(1.0, 11)[:, None]
    found = neighbours(sequence, torch.tensor([5, 0, 9]))[..., 0]
    assert found[0].tolist() == [2, 3, 4, 5, 6, 7, 8, 9]
    assert found[1].tolist() == [0, 0, 0, 0, 1, 2, 3, 4] and found[2].tolist() == [6, 7, 8, 9, 10, 0, 0, 0]


def test_every_neighbour_and_every_time_step_counts():
    net = SpeechAttention(12, 6, 16).eval()
    windows = torch.randn(2, 8, 12, 8, requires_grad=True)
    net(windows).square().sum().backward()
    share = windows.grad.abs().sum((0, 2))
    assert (share > 1e-3 * share.max()).all()


def test_attention_is_a_mean_whose_weights_follow_the_codes():
    net = SpeechAttention(12, 6, 16).eval()
    same = torch.randn(1, 1, 6).expand(1, 8, 6)
    assert torch.allclose(net.attend(same), same[:, 0], atol=1e-6)
    codes = torch.randn(1, 8, 6)
    shift = torch.zeros(1, 8, 6)
    shift[:, 2] = 5
    weights = torch.linalg.lstsq(codes[0].T, net.attend(codes)[0])  # some mean of them
    assert weights.residuals.numel() == 0 or weights.residuals.max() < 1e-4
    assert not torch.allclose(net.attend(codes + shift) - net.attend(codes), shift.mean(1), atol=1e-3)


def test_levels_do_not_matter_where_features_are_normalised():
    windows = torch.randn(3, 8, 12, 8)
    for normalise, same in ((True, True), (False, False)):
        net = SpeechAttention(12, 6, 16, normalise=normalise).eval()
        assert torch.allclose(net(windows), net(3 * windows + 1), atol=1e-3) == same


def test_smoothing_keeps_constants_and_the_length():
    ramp = torch.arange(6.0)[:, None].expand(6, 2)
    assert torch.allclose(smooth(ramp, 3)[1:-1], ramp[1:-1]) and torch.equal(smooth(ramp, 1), ramp)
    assert torch.allclose(smooth(torch.ones(4, 3, 3), 3), torch.ones(4, 3, 3))


def test_a_linear_map_is_found_in_closed_form_and_does_not_learn_noise_by_heart():
    net = SpeechAttention(6, 3, linear=8)
    windows = torch.randn(400, 6, 8) * torch.linspace(0.1, 3, 6)[:, None] + 2
    truth = torch.randn(48, 3) / windows.flatten(1).std(0)[:, None]
    codes = windows.flatten(1) @ truth + 6 * torch.randn(400, 3) + 1
    error = {}
    for strength in (1e-6, 30.0):
        net.fit(windows[:100], codes[:100], strength)
        error[strength] = (net.frame_codes(windows[100:]) - (windows[100:].flatten(1) @ truth + 1)).square().mean()
    assert error[30.0] < 0.8 * error[1e-6]
    assert sorted(name.split(".")[0] for name, _ in net.named_parameters())[0] == "attention"
    net.fit(windows, windows.flatten(1) @ truth, 1e-6)
    assert torch.allclose(net.frame_codes(windows), windows.flatten(1) @ truth, atol=1e-3)


def test_a_kernel_finds_what_no_line_tells_and_weighs_kinds_of_features_alike():
    torch.manual_seed(0)
    few, many = torch.randn(900, 1, 2), torch.randn(900, 40, 2)  # noise in most channels
    windows, codes = torch.cat([few, 5 * many], 1), (few[:, 0, :1] * few[:, 0, 1:]).expand(-1, 3) + 2
    miss = {}
    for parts in (None, (1, 40), (41,)):
        net = SpeechAttention(41, 3, linear=2, parts=parts)
        net.fit(windows[:700], codes[:700])
        miss[parts] = float((net.frame_codes(windows[700:]) - codes[700:]).var() / codes[700:].var())
    assert miss[1, 40] < 0.8 * min(miss[None], miss[41,])


def test_a_kernel_s_mean_is_the_recording_s():
    net, windows = SpeechAttention(6, 3, linear=8, parts=(4, 2)), torch.randn(500, 6, 8)
    codes = torch.randn(500, 3) + 5
    net.fit(windows, codes)
    assert torch.allclose(net.frame_codes(windows + 100), codes.mean(0).expand(500, 3), atol=1e-3)  # like nothing that is known
    assert torch.allclose(net.frame_codes(windows).mean(0), codes.mean(0), atol=0.1)


@pytest.mark.parametrize("count", [300, 700])
def test_a_kernel_knows_all_frames_or_as_many_as_it_has_room_for(monkeypatch, count):
    monkeypatch.setattr("s3dnerf.networks.speech_attention.KNOWN", 500)
    torch.manual_seed(0)
    net, windows = SpeechAttention(3, 2, linear=2, parts=(2, 1)), torch.randn(count, 3, 2)
    codes = windows[:, :2, 0] * windows[:, 1:, 1]
    net.fit(windows, codes)
    flat = (windows.flatten(1) - windows.flatten(1).mean(0)) / windows.flatten(1).std(0) / torch.tensor([4, 4, 4, 4, 2, 2]) ** 0.5
    likeness = torch.exp(-torch.cdist(flat, flat) / 2 ** 0.5).double()
    some = torch.linspace(0, count - 1, min(count, 500)).long()
    ours, mean = likeness[:, some], codes.double().mean(0)
    # regularised least squares over the functions that the centres span (all frames: kernel ridge regression)
    weights = torch.linalg.lstsq(torch.cat([ours, 0.2 ** 0.5 * torch.linalg.cholesky(ours[some]).T]),
                                 torch.cat([codes.double() - mean, torch.zeros(len(some), 2).double()])).solution
    assert torch.allclose(net.frame_codes(windows).double(), ours @ weights + mean, atol=2e-2)


def test_what_is_left_out_does_not_tell_itself():
    torch.manual_seed(0)
    net, windows, codes = SpeechAttention(6, 3, linear=4, parts=(4, 2)), torch.randn(240, 6, 4), torch.randn(240, 3)
    net.fit(windows, codes)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = net.left_out(windows, codes)  # of noise nothing can be told, but what is known by heart
    error = lambda read: ((read - codes).square().mean() / codes.var()).item()
    assert error(net.frame_codes(windows)) < 0.2 and error(found) > 0.9
    changed = codes.clone()
    changed[40:80] += 5  # the second sixth: its own codes, and those of ten frames beside it, do not count for it
    other = net.left_out(windows, changed)
    assert torch.allclose(other[40:80], found[40:80], atol=1e-5) and not torch.allclose(other[120:], found[120:], atol=1e-2)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in before.items())
