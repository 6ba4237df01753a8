"""Adapters are small, start from nothing, and are all that learns."""
import pytest
import torch
from torch import nn

from s3dnerf.networks.low_rank import LowRank, adapt, load_adapted


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.SiLU(), nn.Flatten(), nn.Linear(20, 7))


PICTURE = torch.linspace(-1, 1, 48).view(1, 3, 4, 4)


@pytest.mark.parametrize("rank", [1, 2])
def test_adapters_have_rank_times_rows_and_columns_parameters(rank):
    found = net()
    adapt(found, rank)
    taught = [p.numel() for p in found.parameters() if p.requires_grad]
    assert sum(taught) == rank * (5 + 3 * 9) + rank * (7 + 20)


def test_they_change_nothing_at_first_and_something_later():
    plain, found = net(), net()
    adapt(found, 2)
    assert torch.equal(found(PICTURE), plain(PICTURE))
    for adapter in (module for module in found.modules() if isinstance(module, LowRank)):
        before = found(PICTURE).detach()
        nn.init.normal_(adapter.up)
        assert not torch.allclose(found(PICTURE), before)
        weight = torch.zeros(adapter.up.shape[0], *([adapter.down.shape[1]]))
        assert torch.linalg.matrix_rank(adapter(weight)) == 2


def test_only_they_learn():
    found = net()
    adapt(found, 2)
    found(PICTURE).sum().backward()
    assert {name.split(".")[-1] for name, p in found.named_parameters() if p.grad is not None} == {"up", "down"}


def test_weights_without_adapters_are_taken_over():
    torch.manual_seed(3)
    other, found = nn.Sequential(nn.Conv2d(3, 5, 3), nn.SiLU(), nn.Flatten(), nn.Linear(20, 7)), net()
    adapt(found, 2)
    load_adapted(found, other.state_dict())
    assert torch.equal(found(PICTURE), other(PICTURE))
    with pytest.raises(RuntimeError, match="3.weight"):
        load_adapted(found, {name: value for name, value in other.state_dict().items() if name != "3.weight"})
