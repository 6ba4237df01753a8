"""Shared by all tests: few threads, fixed seeds, no network, no noise; one small set of synthetic shards."""
import os
import random

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

from s3dnerf.allocator import keep_freed_memory  # noqa: E402


def pytest_configure(config):
    keep_freed_memory()
    torch.set_num_threads(min(2, os.cpu_count() or 1))


@pytest.fixture(autouse=True)
def seeded():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """Folder with shards of two synthetic people, two clips of 1.2 s each, 64 pixels."""
    from s3dnerf.data.synthetic import synthesize

    folder = tmp_path_factory.mktemp("shards")
    synthesize(folder, people=2, clips=2, seconds=1.2, size=64, clips_per_shard=3)
    return folder
