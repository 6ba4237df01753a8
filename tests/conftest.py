"""Shared by all tests: few threads, fixed seeds, one small set of synthetic shards."""
import os

os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")

import pytest  # noqa: E402
import torch  # noqa: E402


def pytest_configure(config):
    torch.set_num_threads(min(2, os.cpu_count() or 1))


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """Folder with shards of two synthetic people, two clips of 1.2 s each, 64 pixels."""
    from s3dnerf.data.synthetic import synthesize

    folder = tmp_path_factory.mktemp("shards")
    synthesize(folder, people=2, clips=2, seconds=1.2, size=64, clips_per_shard=3)
    return folder
