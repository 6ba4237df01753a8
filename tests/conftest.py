"""Shared by all tests: few threads, fixed seeds, no network, no noise; one small set of synthetic shards."""
import os
import random
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

from s3dnerf.allocator import keep_freed_memory  # noqa: E402

if not torch.cuda.is_available():  # kernels are interpreted; Triton asks when it is imported
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_configure(config):
    keep_freed_memory()
    torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else min(2, os.cpu_count() or 1))


def pytest_collection_modifyitems(items):
    # an hour of speech and the commands of the README take minutes: begun last, all other processes would wait for them
    items.sort(key=lambda item: item.path.name not in ("test_length.py", "test_readme.py"))


@pytest.fixture(autouse=True)
def seeded():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def own_settings(tmp_path_factory):
    """No test, nor what it starts, reads or writes the user's settings (the development certificate) or encoded photos."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("settings")))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def nothing_kept(own_settings, tmp_path_factory, monkeypatch):
    """No test finds the photos that another one has encoded."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


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


@pytest.fixture(scope="session")
def person_shards(tmp_path_factory):
    """Folder with a shard of one synthetic person, one clip of 1.6 s, 64 pixels."""
    from s3dnerf.data.synthetic import synthesize

    folder = tmp_path_factory.mktemp("person")
    synthesize(folder, people=1, clips=1, seconds=1.6, size=64)
    return str(folder)


@pytest.fixture(scope="session")
def person_video(person_shards):
    """The recording of `person_shards`."""
    from s3dnerf.data.person import read_person

    return read_person(person_shards)


@pytest.fixture(scope="session")
def new_person(person_video):
    """Makes a person of 64 pixels who has learned nothing but what is taken over from `person_video`."""
    from s3dnerf.data.person import learned_frames
    from s3dnerf.models.rad_nerf import RADNeRF

    def make(**options):
        torch.manual_seed(0)
        grids = {"levels": 3, "channels": 2, "finest": 32, "entries": 2048}
        field = grids | {"audio_levels": 2, "width": 16} | options.pop("field", {})
        settings = {"torso": grids, "speech_width": 16, "resolution": 16, "step": 0.1, "samples": 24} | options
        model = RADNeRF(image_size=64, field=field, **settings)
        model.adopt(person_video, learned_frames(len(person_video.frames)))
        with torch.no_grad():  # as if something had been learned
            for grid in filter(None, (model.field.space, model.field.speech)):
                grid.table.normal_(std=0.5)
            model.head_codes.normal_(std=0.5)
            if model.attention.linear:
                model.attention.readout.normal_(std=0.1)
            model.field.density_net[0].weight[:, -1].mul_(5)  # that of the eyes
        return model.eval()

    return make


@pytest.fixture(scope="session")
def new_ad_nerf(person_video):
    """Makes an AD-NeRF of 64 pixels who has learned nothing but what is taken over from `person_video`."""
    from s3dnerf.data.person import learned_frames
    from s3dnerf.models.ad_nerf import ADNeRF

    def make(**options):
        torch.manual_seed(0)
        field = {"width": 16, "depth": 3, "octaves": 3, "view_octaves": 1, "colour_width": 8, "colour_depth": 1}
        samples = {"coarse_samples": 6, "fine_samples": 6, "torso_samples": (4, 4)}
        settings = {"speech_width": 16, "pose_octaves": 1} | samples | options
        model = ADNeRF(image_size=64, head=field, torso=field, **settings)
        model.adopt(person_video, learned_frames(len(person_video.frames)))
        with torch.no_grad():  # as if something had been learned
            for part in (model.head, model.torso):
                for layer in (*part.layers, *part.colour, part.out):
                    layer.weight.mul_(2)
            model.head.density.bias += 1
            if model.attention.linear:
                model.attention.readout.normal_(std=0.1)
        return model.eval()

    return make


@pytest.fixture(scope="session")
def new_disentangled(person_video):
    """Makes a disentangled head of 64 pixels who has learned nothing but what is taken over from `person_video`."""
    from s3dnerf.data.person import learned_frames
    from s3dnerf.models.disentangled import DisentangledHead

    def make(**options):
        torch.manual_seed(0)
        sizes = {"identity_size": 4, "expression_size": 8, "albedo_size": 4, "illumination_size": 4, "variants": 2}
        parts = {"field": {"width": 16, "depth": 2, "octaves": 3, "colour_width": 16}, "feature_channels": 16,
                 "renderer_widths": (16, 8, 8), "torso": {"levels": 3, "channels": 2, "finest": 32, "entries": 2048},
                 "extractor": {"channels": (8, 8, 8), "size": 4, "resolution": 32}}
        settings = {"speech_width": 16, "resolution": 16, "coarse_samples": 4, "fine_samples": 4} | sizes | parts | options
        model = DisentangledHead(image_size=64, **settings)
        model.adopt(person_video, learned_frames(len(person_video.frames)))
        with torch.no_grad():  # as if something had been learned
            model.field.density.bias += 1
            model.late.weight.mul_(3)
            if model.attention.linear:
                model.attention.readout.normal_(std=0.1)
        return model.eval()

    return make


@pytest.fixture
def in_training(monkeypatch):
    """Sets a system up as its trainer would, on a data module; what it logs is in `noted`."""
    from types import SimpleNamespace

    def enter(system, data):
        trainer = SimpleNamespace(datamodule=data, max_steps=10, global_step=0)
        for name, value in (("trainer", trainer), ("global_step", 0)):
            monkeypatch.setattr(type(system), name, value, raising=False)
        system.setup("fit")
        system.noted = {}
        system.log_terms = lambda stage, terms, size: system.noted.update(terms)
        return system.train()

    return enter
