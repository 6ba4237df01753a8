"""What two processes draw together is what one draws alone."""
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from s3dnerf.systems.shared_draws import SharedDraws, share_draws

BATCH = 4


def drawn(draw, rank, processes):
    torch.manual_seed(3)
    with SharedDraws(rank, processes):
        return draw(torch.zeros(BATCH // processes, 5))


DRAWS = {
    "rand": lambda x: torch.rand(len(x), 2), "tuple": lambda x: torch.rand((len(x), 2)), "randn": lambda x: torch.randn(len(x), 1, 3),
    "randint": lambda x: torch.randint(9, (len(x), 3)), "low": lambda x: torch.randint(2, 9, (len(x),)),
    "rand_like": torch.rand_like, "randn_like": torch.randn_like, "dropout": lambda x: F.dropout(x + 1, 0.4),
    "channels": lambda x: F.dropout1d(x[..., None].expand(-1, -1, 6) + 1, 0.4),
    "rows": lambda x: torch.rand(3 * len(x), 2), "after": lambda x: (torch.rand(()), torch.rand(len(x)))[1]}


@pytest.mark.parametrize("name", DRAWS)
def test_rows_of_all_processes_are_those_of_one(name):
    whole = drawn(DRAWS[name], 0, 1)
    parts = [drawn(DRAWS[name], rank, 2) for rank in range(2)]
    assert torch.equal(torch.cat(parts), whole) and not torch.equal(*parts)
    torch.manual_seed(3)
    assert torch.equal(whole, DRAWS[name](torch.zeros(BATCH, 5))), "alone it changes nothing"


def test_what_has_no_size_is_the_same_everywhere():
    first, second = (drawn(lambda _x: torch.stack([torch.rand(()), torch.randn([])]), rank, 2) for rank in range(2))
    assert torch.equal(first, second)


def test_a_generator_of_its_own_is_left_alone():
    own = lambda _x: torch.rand(3, generator=torch.Generator().manual_seed(1))
    assert torch.equal(drawn(own, 1, 2), drawn(own, 0, 1))


def test_a_module_draws_so_in_training_alone_and_not_after_an_error():
    class Noise(nn.Module):
        def forward(self, x):
            if len(x) == 0:
                raise ValueError
            return torch.rand(len(x))

    noise = Noise()
    share_draws(noise, SharedDraws(1, 2))
    plain = drawn(lambda _x: torch.rand(4), 0, 1)
    torch.manual_seed(3)
    assert torch.equal(noise(torch.zeros(2)), plain[2:])
    with pytest.raises(ValueError):
        noise(torch.zeros(0))
    torch.manual_seed(3)
    assert torch.equal(torch.rand(2), plain[:2])
    torch.manual_seed(3)
    assert torch.equal(noise.eval()(torch.zeros(2)), plain[:2])
