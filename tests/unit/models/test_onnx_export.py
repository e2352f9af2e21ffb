"""Graphs give PyTorch's embeddings, or are not written."""

import sys

import onnx
import onnxruntime
import pytest
import torch
from synthetic import write_model

from imlkd_brain.errors import UserError
from imlkd_brain.models import onnx_export
from imlkd_brain.models.campplus import CAMPlusPlus
from imlkd_brain.models.folder import load_speaker_model
from imlkd_brain.models.kaldi_fbank import KaldiFbank
from imlkd_brain.models.onnx_export import (
    GRAPHS,
    LARGEST_DISTANCE,
    describe,
    export_graph,
    largest_distance,
    quantise,
)
from imlkd_brain.models.onnx_runtime import OnnxSpeakerModel
from imlkd_brain.models.speaker_model import SpeakerModel
from speechbrain.processing.features import InputNormalization


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """An untrained model."""
    return load_speaker_model(write_model(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def graphs(model, tmp_path_factory):
    """Both graphs of the model."""
    folder = tmp_path_factory.mktemp("graphs")
    return {
        reads: export_graph(model, reads, folder / f"{reads}.onnx", checks=4)
        for reads in GRAPHS
    }


@pytest.mark.parametrize("reads", GRAPHS)
@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("seconds", [0.5, 2.345])
def test_any_batch_and_length(model, graphs, reads, batch, seconds):
    """onnxruntime alone, without this package's way to open a graph."""
    session = onnxruntime.InferenceSession(str(graphs[reads].path))
    wavs = 0.1 * torch.randn(batch, int(seconds * 16000))
    inputs = wavs if reads == "waveform" else model.compute_features(wavs)
    (found,) = session.run(None, {reads: inputs.numpy()})
    with torch.no_grad():
        expected = torch.nn.functional.normalize(model.embed(wavs))
    found = torch.nn.functional.normalize(torch.from_numpy(found))
    assert found.shape == expected.shape
    assert (found - expected).norm(dim=1).max() < LARGEST_DISTANCE


def test_features_may_be_normalised_already(model, graphs):
    """The mean of an utterance can be taken away twice."""
    session = onnxruntime.InferenceSession(str(graphs["features"].path))
    feats = model.compute_features(0.1 * torch.randn(2, 16000))
    results = [
        session.run(None, {"features": given.numpy()})[0]
        for given in (feats, feats - feats.mean(1, keepdim=True))
    ]
    assert abs(results[0] - results[1]).max() < 1e-4 * abs(results[0]).max()


@pytest.mark.parametrize("reads", GRAPHS)
def test_the_file_says_what_it_reads(model, graphs, reads):
    graph = onnx.load(str(graphs[reads].path))
    about = {entry.key: entry.value for entry in graph.metadata_props}
    assert about["sample_rate"] == "16000" and about["input"] == reads
    assert about["n_mels"] == str(
        model.compute_features(torch.zeros(1, 16000)).shape[-1]
    )
    assert about["model_key"] == model.key
    assert float(about["largest_distance_to_pytorch"]) == pytest.approx(
        graphs[reads].distance, rel=1e-2
    )
    assert graphs[reads].bytes == graphs[reads].path.stat().st_size
    # Dynamic axes have names, fixed ones numbers.
    shape = graph.graph.input[0].type.tensor_type.shape.dim
    assert all(dim.dim_param for dim in shape[:2])
    assert {node.domain for node in graph.graph.node} <= {"", "ai.onnx"}


def test_a_graph_that_differs_is_refused(model, tmp_path, monkeypatch):
    """Another network than the model's, as a wrong export would be."""
    other = load_speaker_model(write_model(tmp_path / "other", seed=1))
    graph = onnx_export.FeaturesGraph(other)
    monkeypatch.setattr(onnx_export, "FeaturesGraph", lambda model: graph)
    with pytest.raises(UserError, match="other embeddings than PyTorch"):
        export_graph(model, "features", tmp_path / "f.onnx", checks=1)


def test_eight_bits_are_near_and_keep_the_front_end(model, graphs, tmp_path):
    small = quantise(graphs["waveform"], tmp_path / "int8.onnx")
    kinds = [node.op_type for node in onnx.load(str(small.path)).graph.node]
    assert kinds.count("Conv") == 1  # the Fourier transform
    assert "ConvInteger" in kinds
    # Weights of 8 bits have errors of 1/500 of their range; more than
    # rounding, far less than another embedding, at distance 1.
    distance = largest_distance(model, "waveform", small.path, checks=2)
    assert 1e-4 < distance < 0.3
    about = OnnxSpeakerModel(small.path).about
    assert "uint8" in about["weights"]
    assert "largest_distance_to_pytorch" not in about


def test_campplus_is_exported_from_waveform(tmp_path):
    """Its network with random weights; Kaldi's features are in the graph."""
    torch.manual_seed(0)
    model = SpeakerModel(
        KaldiFbank(n_mels=80),
        InputNormalization(norm_type="sentence", std_norm=False),
        CAMPlusPlus(),
    )
    graph = export_graph(model, "waveform", tmp_path / "w.onnx", checks=1)
    assert graph.distance < LARGEST_DISTANCE
    about = describe(model, "waveform")
    assert "Kaldi" in about["features"] and about["output_dim"] == "192"


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_one_sentence(package, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        UserError, match=f"need {package}, which is not"
    ) as said:
        export_graph(None, "features", tmp_path / "f.onnx")
    assert "pip install onnx onnxruntime" in str(said.value)
