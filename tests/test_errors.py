"""Errors are one line, wherever they were raised."""
import pytest
from torch.utils.data import DataLoader

from s3dnerf.errors import DatasetError


class Broken:
    """A data set that cannot be read."""

    def __len__(self):
        return 4

    def __getitem__(self, number):
        raise DatasetError("found frames of 64 pixels: expected 128; prepare them again")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_process_puts_no_traceback_before_them(workers):
    with pytest.raises(DatasetError) as told:
        next(iter(DataLoader(Broken(), num_workers=workers)))
    assert str(told.value) == "found frames of 64 pixels: expected 128; prepare them again"
