"""Weights: what is saved comes back, and what cannot be loaded is told in one line."""
import pytest
import torch
import yaml

from s3dnerf.errors import CheckpointError
from s3dnerf.models.hub import DEFAULT, available_models, load_lip_sync, load_model, save_model
from s3dnerf.models.one_shot import S3DNeRF
from s3dnerf.networks.lip_sync import LipSyncDiscriminator


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("bundle")
    model = S3DNeRF(image_size=64, encoder_channels=(8, 8, 8, 8), mouth_gain=1.5)
    save_model(model, folder)
    save_model(LipSyncDiscriminator(width=8, channels=16, embedding=8), folder, "lip_sync", "lip_sync")
    return folder, model


def test_a_bundle_gives_the_model_back(bundle):
    folder, model = bundle
    back = load_model(folder)
    assert back.mouth_gain == 1.5 and not back.training
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), back.state_dict().values()))
    assert isinstance(load_lip_sync(folder), LipSyncDiscriminator)


def test_the_default_weights_are_installed_small_and_load():
    from s3dnerf.models.hub import weights_folder

    assert DEFAULT in available_models()
    size = sum(path.stat().st_size for path in (weights_folder() / DEFAULT).iterdir())
    assert size <= 25 * 2 ** 20
    assert load_model().image_size == 256
    assert load_lip_sync().training is False


def test_unknown_names_list_what_there_is():
    with pytest.raises(CheckpointError, match=DEFAULT):
        load_model("no-such-weights")


def broken(bundle, tmp_path, change):
    folder, _ = bundle
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    change(tmp_path)
    with pytest.raises(CheckpointError) as error:
        load_model(tmp_path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_damaged_and_foreign_bundles_are_told(bundle, tmp_path_factory):
    def truncate(folder):
        (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])

    def rename(folder):
        (folder / "config.yaml").write_text(yaml.safe_dump({"class": "os.system", "arguments": {}}))

    def other_shape(folder):
        content = yaml.safe_load((folder / "config.yaml").read_text())
        content["arguments"]["width"] = 32
        (folder / "config.yaml").write_text(yaml.safe_dump(content))

    def other_version(folder):
        content = yaml.safe_load((folder / "config.yaml").read_text())
        content["arguments"]["no_such_option"] = 1
        (folder / "config.yaml").write_text(yaml.safe_dump(content))

    for change, word in ((truncate, "damaged"), (rename, "class"), (other_shape, "fit"), (other_version, "version")):
        assert word in broken(bundle, tmp_path_factory.mktemp("broken"), change)


def test_files_that_are_no_checkpoints_are_told(tmp_path):
    path = tmp_path / "model.ckpt"
    path.write_text("this is text")
    with pytest.raises(CheckpointError, match="not a training checkpoint"):
        load_model(path)
    with pytest.raises(CheckpointError, match="needs a trained discriminator"):
        load_lip_sync(None)
