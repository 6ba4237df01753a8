"""Speech features: timing, chunking, and the real loading code on tiny random encoders."""
import json

import pytest
import torch

from s3dnerf.errors import DependencyError, InputError
from s3dnerf.media import frame_count, log_mel, mel_windows
from s3dnerf.networks.speech_features import MelFeatures, TransformerFeatures

TINY = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, conv_dim=[8] * 7,
            num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, vocab_size=8)


@pytest.fixture(scope="module", params=["wav2vec2", "hubert"])
def folder(request, tmp_path_factory):
    from transformers import HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2Model

    torch.manual_seed(0)
    config, model = {"wav2vec2": (Wav2Vec2Config, Wav2Vec2Model), "hubert": (HubertConfig, HubertModel)}[request.param]
    path = tmp_path_factory.mktemp(request.param)
    model(config(**TINY)).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def layered(tmp_path_factory):
    """An encoder whose convolutions normalise every vector by itself, as the large wav2vec2 models do."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("layered")
    Wav2Vec2Model(Wav2Vec2Config(**TINY, feat_extract_norm="layer", conv_bias=True)).save_pretrained(path)
    return path


def test_mel_in_stretches_equals_mel_at_once():
    sound = torch.randn(16000 * 45) * 0.1
    found = MelFeatures().sequence(sound)
    assert found.shape == log_mel(sound).shape and torch.allclose(found, log_mel(sound), atol=1e-3)


@pytest.mark.parametrize("first, count", [(0, 4), (1, 1), (9, 3), (10, 3), (63, 8), (118, 12), (200, 2)])
def test_mel_windows_are_centred_on_frames_wherever_they_start(first, count):
    features, sequence = MelFeatures(), torch.arange(400.0).expand(80, -1)
    windows = features.windows(sequence, first, count)
    assert torch.equal(windows, mel_windows(sequence, first + count)[first:])
    if first + count <= 118 and first >= 9:
        middles = windows[:, 0, 19:21].mean(-1)
        assert (middles - (torch.arange(first, first + count) + 0.5) / 25 * features.rate).abs().max() <= 1.0


def test_windows_do_not_copy_the_recording():
    """The memory and time of a batch of windows do not grow with the recording."""
    import types

    seen = []

    class Watched(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, kinds, args=(), kwargs=None):
            result = super().__torch_function__(function, kinds, args, kwargs or {})
            copies = isinstance(result, torch.Tensor) and not isinstance(function, types.MethodWrapperType)
            if copies and result.untyped_storage().data_ptr() != long.untyped_storage().data_ptr():
                seen.append(result.numel())
            return result

    long = torch.zeros(80, 100_000).as_subclass(Watched)
    features = object.__new__(TransformerFeatures)
    for speaker in (MelFeatures(), features):
        seen.clear()
        assert len(speaker.windows(long, 20_000, 8)) == 8
        assert seen and max(seen) < 80 * 1000


@pytest.mark.parametrize("samples", [3200, 4800, 16000, 16123, 17600, 50000])
def test_two_vectors_per_frame_for_any_length(folder, samples):
    features = TransformerFeatures(str(folder))
    sequence = features.sequence(torch.randn(samples))
    assert sequence.shape == (16, 2 * frame_count(samples))
    windows = features.windows(sequence, 0, sequence.shape[1] // 2)
    assert windows.shape[1:] == (16, 16)
    assert torch.equal(windows[4][:, 7:9], sequence[:, 8:10])
    padded = torch.nn.functional.pad(sequence, (7, 40))
    expected = [padded[:, 2 * t:2 * t + 16] for t in range(3, len(windows) + 5)]
    assert torch.equal(features.windows(sequence, 3, len(windows) + 2), torch.stack(expected))


def test_vectors_are_heard_at_their_time(folder):
    """The vector k stands for the time (k + 0.5) / 50 s: a click changes the vectors around it most."""
    features = TransformerFeatures(str(folder), layer=0)
    features.normalise = False
    for moment in (0.31, 0.77):
        quiet, click = torch.zeros(16000), torch.zeros(16000)
        click[round(moment * 16000):round(moment * 16000) + 2] = 0.5
        change = (features.sequence(click) - features.sequence(quiet)).abs().sum(0)
        change = change - change.median()
        assert (change.argmax().item() + 0.5) / 50 == pytest.approx(moment, abs=0.04)


def test_chunks_with_context_agree_with_the_whole(layered):
    """Where nothing but attention reaches beyond the context, chunks make next to no difference, at borders neither."""
    sound = torch.randn(16000 * 6)
    whole = TransformerFeatures(str(layered), chunk_seconds=60).sequence(sound)
    cut = TransformerFeatures(str(layered), chunk_seconds=2, context_seconds=1.5).sequence(sound)
    assert cut.shape == whole.shape
    spread = (whole - whole.mean(1, keepdim=True)).abs().mean()
    difference = (cut - whole).abs().mean(0)
    assert difference.mean() < 0.05 * spread and difference.max() < 0.2 * spread


def test_only_one_chunk_is_encoded_at_a_time(folder):
    features, lengths = TransformerFeatures(str(folder), chunk_seconds=2, context_seconds=0.5), []
    inner = features._encode
    features._encode = lambda sound, count: lengths.append(len(sound)) or inner(sound, count)
    features.sequence(torch.randn(16000 * 20))
    assert len(lengths) == 10 and max(lengths) <= 16000 * 3


def test_normalisation_follows_the_models_own_word(folder):
    sound = 0.01 * torch.randn(16000) + 0.2
    says_nothing = TransformerFeatures(str(folder)).sequence(sound)
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False, "feature_size": 1,
                                                                 "sampling_rate": 16000, "padding_value": 0.0}))
    says_no = TransformerFeatures(str(folder)).sequence(sound)
    (folder / "preprocessor_config.json").unlink()
    assert not torch.allclose(says_nothing, says_no)


def test_a_missing_encoder_is_told_with_the_remedy(folder, tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "weightless").mkdir()
    (tmp_path / "weightless" / "config.json").write_text((folder / "config.json").read_text())
    for name in (tmp_path / "nowhere", tmp_path / "empty", tmp_path / "weightless", "nobody/no-such-model"):
        with pytest.raises(DependencyError, match="or use mel") as caught:
            TransformerFeatures(str(name))
        assert len(str(caught.value).splitlines()) == 1


def test_another_kind_of_model_and_a_layer_too_many_are_told(folder, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(DependencyError, match="'bert'.*expected wav2vec2 or hubert"):
        TransformerFeatures(str(tmp_path))
    with pytest.raises(InputError, match="found layer 3"):
        TransformerFeatures(str(folder), layer=3)


def test_the_talking_head_runs_on_such_features(folder):
    from s3dnerf.models.one_shot import S3DNeRF

    model = S3DNeRF(image_size=64, speech=str(folder), encoder_channels=(8, 8, 8, 8))
    sequence = model.features.sequence(torch.randn(16000))
    motion = model.drive(model.features.windows(sequence, 0, 5)[None])
    assert motion.code.shape == (1, 5, 13) and motion.tokens.shape[:3] == (1, 5, 8)
