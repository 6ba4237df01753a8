"""Speech features: timing, chunking, and the real loading code on tiny random encoders."""
import json

import pytest
import torch

from s3dnerf.errors import DependencyError
from s3dnerf.media import log_mel, mel_windows
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


def test_mel_in_stretches_equals_mel_at_once():
    sound = torch.randn(16000 * 45) * 0.1
    found = MelFeatures().sequence(sound)
    assert found.shape == log_mel(sound).shape and torch.allclose(found, log_mel(sound), atol=1e-3)


def test_mel_windows_are_centred_on_frames_wherever_they_start():
    features, sequence = MelFeatures(), torch.arange(400.0).expand(80, -1)
    windows = features.windows(sequence, 10, 3)
    assert torch.equal(windows, mel_windows(sequence, 13)[10:])
    middles = windows[:, 0, 19:21].mean(-1)
    assert (middles - (torch.arange(10, 13) + 0.5) / 25 * 80).abs().max() <= 1.0


@pytest.mark.parametrize("samples", [3200, 16000, 16123, 50000])
def test_two_vectors_per_frame_for_any_length(folder, samples):
    features = TransformerFeatures(str(folder))
    sequence = features.sequence(torch.randn(samples))
    assert sequence.shape == (16, 2 * round(samples / 640))
    windows = features.windows(sequence, 0, sequence.shape[1] // 2)
    assert windows.shape[1:] == (16, 16)
    assert torch.equal(windows[4][:, 7:9], sequence[:, 8:10])


def test_chunks_with_context_agree_with_the_whole_away_from_borders(folder):
    sound = torch.randn(16000 * 6)
    whole = TransformerFeatures(str(folder), chunk_seconds=60).sequence(sound)
    cut = TransformerFeatures(str(folder), chunk_seconds=2, context_seconds=1.5).sequence(sound)
    assert cut.shape == whole.shape
    difference = (cut - whole).abs().mean(0)
    assert difference.median() < 0.1 * whole.abs().mean()


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


def test_a_missing_encoder_is_told_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in (str(tmp_path / "nowhere"), "nobody/no-such-model"):
        with pytest.raises(DependencyError, match="or use mel"):
            TransformerFeatures(name)


def test_the_talking_head_runs_on_such_features(folder):
    from s3dnerf.models.one_shot import S3DNeRF

    model = S3DNeRF(image_size=64, speech=str(folder), encoder_channels=(8, 8, 8, 8))
    sequence = model.features.sequence(torch.randn(16000))
    motion = model.drive(model.features.windows(sequence, 0, 5)[None])
    assert motion.code.shape == (1, 5, 13) and motion.tokens.shape[:3] == (1, 5, 8)
