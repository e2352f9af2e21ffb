"""A graph with the face of a speaker model."""

import pytest
import torch
from synthetic import write_model

from imlkd_brain.errors import UserError
from imlkd_brain.models.folder import load_speaker_model
from imlkd_brain.models.onnx_export import export_graph
from imlkd_brain.models.onnx_runtime import OnnxSpeakerModel


def test_it_embeds_as_the_model_does(tmp_path):
    model = load_speaker_model(write_model(tmp_path / "model"))
    path = tmp_path / "waveform.onnx"
    export_graph(model, "waveform", path, checks=1)
    graph = OnnxSpeakerModel(path)
    assert graph.sample_rate == 16000 and graph.source == str(path)
    wavs = 0.1 * torch.randn(2, 16000)
    assert torch.allclose(graph.embed(wavs), model.embed(wavs), atol=1e-4)
    # A shorter utterance is embedded alone: padding changes nothing.
    lens = torch.tensor([1.0, 0.75])
    expected = model.embed(wavs[1:, :12000])
    assert torch.allclose(graph.embed(wavs, lens)[1:], expected, atol=1e-4)
    path.write_bytes(path.read_bytes() + b"\0")
    assert len(graph.key) == 64


def test_what_is_no_graph_is_refused(tmp_path):
    with pytest.raises(UserError, match="missing; export"):
        OnnxSpeakerModel(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("no graph")
    with pytest.raises(UserError, match="not a readable ONNX graph"):
        OnnxSpeakerModel(tmp_path / "text.onnx")
    model = load_speaker_model(write_model(tmp_path / "model"))
    export_graph(model, "features", tmp_path / "f.onnx", checks=1)
    with pytest.raises(UserError, match="does not read waveforms"):
        OnnxSpeakerModel(tmp_path / "f.onnx")
