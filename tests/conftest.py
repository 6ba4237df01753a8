"""Shared by all tests: few threads, fixed seeds, no network, no noise; one small set of synthetic shards."""
import os
import random
from pathlib import Path

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
def load_script():
    """The module of a script in scripts/, by its name."""
    import importlib.util

    def load(name):
        specification = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / "scripts" / f"{name}.py")
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def tiny_head():
    """A talking head of 64 pixels that has learned nothing."""
    from s3dnerf.models.one_shot import S3DNeRF

    torch.manual_seed(0)
    return S3DNeRF(image_size=64, encoder_channels=(8, 8, 8, 8), plane_channels=4, width=16, modulation_channels=6,
                   lattice=(8, 8, 4), token_channels=8, coarse_samples=4, fine_samples=4, feature_channels=6,
                   super_resolution_channels=(8, 8))


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """Folder with shards of two synthetic people, two clips of 1.2 s each, 64 pixels."""
    from s3dnerf.data.synthetic import synthesize

    folder = tmp_path_factory.mktemp("shards")
    synthesize(folder, people=2, clips=2, seconds=1.2, size=64, clips_per_shard=3)
    return folder
