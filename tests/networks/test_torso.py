"""The torso: the paper's sizes, and a picture that learns to move with the head."""
import torch

from s3dnerf.face import COLLAR
from s3dnerf.networks.torso import PseudoTorso


def test_the_paper_s_sizes():
    torso = PseudoTorso(16, 2, 16, 2048, appearance=8, deform_waves=10, pose_waves=4, colour_by_pose=True)
    count = lambda *parts: sum(p.numel() for part in parts for p in part.parameters())
    assert count(torso.grid) == 1_111_040
    assert count(torso.deform, torso.deform_pose) == 10_880 and count(torso.colour, torso.colour_pose) == 5_504


def test_the_torso_s_own_motion_moves_the_picture_as_a_whole():
    torch.manual_seed(0)
    torso, places = PseudoTorso(4, 2, 8, 64, 2 ** 12, body=True), torch.rand(300, 2) - 0.5
    motion = 0.05 * torch.randn(40, 4)
    torso.adopt(torch.randn(40, 6), motion)
    torso.grid.table.data.normal_()
    torso.deform_body[-1].weight.data.zero_()
    look = lambda where, *body: torso(where, torch.zeros(1, 6), torch.zeros(1, 0), torch.zeros(300, dtype=torch.long), *body)
    middle, moved = torso.body_middle[None], torso.body_middle + torch.tensor([[0.03, -0.02, 0.1, 0.05]])
    pivot = 2 * (torch.tensor(COLLAR) + torso.body_middle[:2]) - 1
    turn, size = moved[0, 2:] - middle[0, 2:]
    rotation = size.exp() * torch.stack([torch.stack([turn.cos(), -turn.sin()]), torch.stack([turn.sin(), turn.cos()])])
    there = (places - pivot) @ rotation.T + pivot + 2 * (moved - middle)[:, :2]
    assert torch.allclose(look(there, moved)[1], look(places, middle)[1], atol=1e-4)
    assert not torch.allclose(look(places, moved)[1], look(places, middle)[1], atol=0.01)
    assert torch.allclose(look(there, moved)[2], places - there, atol=1e-5)


def test_without_the_torso_s_own_motion_the_head_s_pose_is_all_that_moves_it():
    torch.manual_seed(0)
    plain, torso = PseudoTorso(4, 2, 8, 64, 2 ** 12), PseudoTorso(4, 2, 8, 64, 2 ** 12, body=True)
    torso.load_state_dict(plain.state_dict(), strict=False)
    places, pose, table = torch.rand(50, 2) - 0.5, torch.randn(1, 6), torch.randn_like(plain.grid.table)
    for net in (plain, torso):
        net.grid.table.data.copy_(table)
        net.deform[-1].weight.data.fill_(0.3)
    look = lambda net, *body: net(places, pose, torch.zeros(1, 0), torch.zeros(50, dtype=torch.long), *body)[1]
    assert torch.equal(look(plain), look(torso))
    assert not torch.allclose(look(torso), look(torso, torso.body_middle[None]), atol=1e-3)


def test_the_pose_moves_the_picture_and_changes_nothing_else():
    torso, places = PseudoTorso(4, 2, 8, 64, 2 ** 12), torch.rand(50, 2) * 2 - 1
    poses = 0.1 * torch.randn(40, 6) + torch.arange(6.0)
    torso.adopt(poses)
    look = lambda net, pose: net(places, pose[None], torch.zeros(1, 0), torch.zeros(50, dtype=torch.long))
    torso.grid.table.data.normal_()
    one, other = look(torso, poses[0]), look(torso, poses[1])
    assert not torch.allclose(one[2], other[2], atol=1e-4)
    torso.deform[-1].weight.data.zero_()  # a picture that cannot move
    assert torch.equal(look(torso, poses[0])[1], look(torso, poses[1])[1])
    free = PseudoTorso(4, 2, 8, 64, 2 ** 12, colour_by_pose=True)
    free.deform[-1].weight.data.zero_()
    assert not torch.equal(look(free, poses[0])[1], look(free, poses[1])[1])


def test_a_pose_far_beyond_what_was_learned_counts_as_less_far():
    torso, poses = PseudoTorso(2, 2, 4, 8, 2 ** 8), torch.randn(40, 6)
    torso.adopt(poses)
    at = lambda pose: torso(torch.zeros(1, 2), pose[None], torch.zeros(1, 0), torch.zeros(1, dtype=torch.long))[2]
    assert torch.allclose(at(poses.mean(0) + 100), at(poses.mean(0) + 1000))
    assert not torch.allclose(at(poses.mean(0)), at(poses.mean(0) + poses.std(0)), atol=1e-5)


def test_a_picture_that_moves_with_the_pose_is_learned_for_poses_between_too():
    torch.manual_seed(0)
    torso = PseudoTorso(4, 2, 8, 64, 2 ** 12)
    optimizer = torch.optim.Adam(torso.parameters(), 0.01)
    edge = lambda places, pose: (places[:, 1:] > 0.2 + 0.4 * pose[:, :1]).float()
    for _ in range(150):
        pose = torch.zeros(8, 6)
        pose[:, 0] = torch.rand(8) - 0.5
        places, owner = torch.rand(800, 2) * 2 - 1, torch.arange(800) % 8
        opacity, colour, _ = torso(places, pose, torch.zeros(8, 0), owner)
        loss = ((opacity - edge(places, pose[owner])) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    rows = torch.linspace(-1, 1, 101)
    places = torch.stack([torch.zeros(101), rows], 1)

    def height(angle):
        pose = torch.tensor([[angle, 0, 0, 0, 0, 0.0]])
        with torch.no_grad():
            return rows[torso(places, pose, torch.zeros(1, 0), torch.zeros(101, dtype=torch.long))[0][:, 0] > 0.5].min()

    moved = torch.stack([height(angle) for angle in (-0.4, -0.2, 0.0, 0.2, 0.4)])
    truth = 0.2 + 0.4 * torch.tensor([-0.4, -0.2, 0.0, 0.2, 0.4])
    assert torch.corrcoef(torch.stack([moved, truth]))[0, 1] > 0.8
