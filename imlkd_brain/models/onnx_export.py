"""Writes a speaker model as ONNX graphs, checked against PyTorch.

Each graph has a dynamic batch and length and says in its metadata what it
reads. All utterances of a batch are of one length.

Authors: IML-KD contributors
"""

import warnings
from dataclasses import dataclass
from pathlib import Path

import torch

from imlkd_brain.errors import UserError
from imlkd_brain.files import in_place_of
from imlkd_brain.models.features import has_statistics, hop_samples
from imlkd_brain.models.kaldi_fbank import KaldiFbank
from imlkd_brain.models.onnx_graphs import FeaturesGraph, WaveformGraph
from imlkd_brain.models.onnx_runtime import open_session, require_onnx, run

FEATURES, WAVEFORM = GRAPHS = ("features", "waveform")
EMBEDDING = "embedding"
# The first with the operators that are needed; old runtimes read it.
OPSET = 17
# Largest distance of two unit-length embeddings. A cosine score then differs
# by at most twice as much, 1e-4.
LARGEST_DISTANCE = 5e-5
SHORTEST_SECONDS, LONGEST_SECONDS = 0.5, 20.0


@dataclass(frozen=True)
class Graph:
    """An exported graph.

    Arguments
    ---------
    reads : str
        ``features`` or ``waveform``: also the name of its input.
    path : Path
        The file.
    distance : float or None
        Largest distance of unit-length embeddings to those of PyTorch.
    bytes : int
        Size of the file.
    """

    reads: str
    path: Path
    distance: float
    bytes: int


def export_graph(model, reads, path, seed=0, checks=8):
    """Write one graph of a model and check it against PyTorch.

    Arguments
    ---------
    model : imlkd_brain.models.speaker_model.SpeakerModel
        On the CPU.
    reads : str
        ``features``: features as ``compute_features`` gives them, before
        normalisation, (batch, time, mel). ``waveform``: (batch, samples) at
        the model's sampling rate. Both give ``embedding``, (batch, dim).
    path : Path
        Where to.
    seed : int
        Of the lengths and signals of the check.
    checks : int
        How many batches are compared.

    Returns
    -------
    Graph

    Raises
    ------
    UserError
        If onnx or onnxruntime is missing, the model cannot be exported, or the
        graph gives other embeddings than PyTorch.
    """
    require_onnx()
    network = {FEATURES: FeaturesGraph, WAVEFORM: WaveformGraph}[reads](model)
    example = torch.randn(1, model.sample_rate)
    if reads == FEATURES:
        example = model.compute_features(example)
    lengths = {FEATURES: "time", WAVEFORM: "samples"}
    try:
        # With one utterance: SpeechBrain's masks are then broadcast, where
        # a larger batch would be written into the graph as a number.
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                network.eval(),
                (example,),
                str(path),
                # By tracing: it needs no further package.
                dynamo=False,
                opset_version=OPSET,
                input_names=[reads],
                output_names=[EMBEDDING],
                dynamic_axes={
                    reads: {0: "batch", 1: lengths[reads]},
                    EMBEDDING: {0: "batch"},
                },
            )
    except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{model.source}: PyTorch cannot write this model as an ONNX graph "
            f"({reason}); leave it out with `--graphs '[]'`."
        ) from error
    simplify(path)
    distance = largest_distance(model, reads, path, seed, checks)
    if not distance <= LARGEST_DISTANCE:
        raise UserError(
            f"{path}: the graph gives other embeddings than PyTorch (distance "
            f"{distance:.2g} at unit length, at most {LARGEST_DISTANCE:g} is "
            "allowed), so it is not exported; check that the model takes all "
            "frames into account whatever their number."
        )
    add_metadata(path, describe(model, reads, distance))
    return Graph(reads, Path(path), distance, Path(path).stat().st_size)


def simplify(path):
    """Fold the constants of an ONNX file, in place.

    SpeechBrain's paddings are computed from the length as it runs, and come
    to the same numbers for every length. onnxruntime folds them, which takes
    about ten nodes a layer out of the file.

    Arguments
    ---------
    path : str or Path
        The file.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    # The basic ones write standard operators alone, for any machine.
    options.graph_optimization_level = level
    options.log_severity_level = 3
    with in_place_of(path) as folded:
        options.optimized_model_filepath = str(folded)
        onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )


@torch.no_grad()
def largest_distance(model, reads, path, seed=0, checks=8):
    """Compare a graph with PyTorch on random lengths and batches.

    Arguments
    ---------
    model, reads, path, seed, checks
        As for :func:`export_graph`.

    Returns
    -------
    float
        The largest Euclidean distance of two embeddings at unit length.
    """
    session = open_session(path)
    generator = torch.Generator().manual_seed(seed)
    largest = 0.0
    for check in range(checks):
        # The shortest and the longest, and lengths between, most of them short.
        share = torch.rand(1, generator=generator).item() ** 2
        share = {0: 0.0, 1: 1.0}.get(check, share)
        seconds = SHORTEST_SECONDS
        seconds += share * (LONGEST_SECONDS - SHORTEST_SECONDS)
        batch = 1 + int(torch.randint(4, (1,), generator=generator))
        n_samples = int(seconds * model.sample_rate)
        wavs = 0.1 * torch.randn(batch, n_samples, generator=generator)
        # Quiet at times, as speech is.
        wavs *= torch.rand(batch, n_samples // 800 + 1, generator=generator)[
            :, torch.arange(n_samples) // 800
        ]
        given = wavs if reads == WAVEFORM else model.compute_features(wavs)
        found = torch.nn.functional.normalize(run(session, given))
        ours = torch.nn.functional.normalize(model.embed(wavs))
        distance = (found - ours).norm(dim=1).max().item()
        largest = distance if distance != distance else max(largest, distance)
    return largest


def describe(model, reads, distance=None):
    """Return the metadata of a graph.

    Arguments
    ---------
    model : imlkd_brain.models.speaker_model.SpeakerModel
        The model.
    reads : str
        What the graph reads.
    distance : float, optional
        Largest distance to PyTorch, stored where given.

    Returns
    -------
    dict of str to str
    """
    features = model.compute_features
    kaldi = isinstance(features, KaldiFbank)
    norm = model.mean_var_norm
    kind = getattr(norm, "norm_type", "none")
    with torch.no_grad():
        n_mels = features(torch.zeros(1, model.sample_rate)).shape[-1]
    about = {
        "input": reads,
        "sample_rate": model.sample_rate,
        "output_dim": model.embedding_dim,
        "n_mels": n_mels,
        "hop_samples": hop_samples(features, model.sample_rate),
        "features": "natural logarithm of Kaldi's mel energies"
        if kaldi
        else "10 log10 of mel energies (SpeechBrain's Fbank)",
        "normalisation": (
            "mean of the training data"
            if has_statistics(norm)
            else f"mean of the {kind}"
        )
        + (" and its deviation" if getattr(norm, "std_norm", False) else "")
        + ", inside the graph",
        "samples": "between -1 and 1",
        "model_key": model.key,
    }
    if distance is not None:
        about["largest_distance_to_pytorch"] = f"{distance:.3g}"
    return {key: str(value) for key, value in about.items()}


def add_metadata(path, about):
    """Write metadata into an ONNX file.

    Arguments
    ---------
    path : str or Path
        The file.
    about : dict of str to str
        The metadata.
    """
    import onnx

    graph = onnx.load(str(path))
    onnx.helper.set_model_props(graph, about)
    onnx.save(graph, str(path))


def quantise(graph, path):
    """Write a graph with weights of 8 bits, its activations quantised as it runs.

    The front end stays in float: its numbers are of very different sizes.

    Arguments
    ---------
    graph : Graph
        Of :func:`export_graph`.
    path : Path
        Where to.

    Returns
    -------
    Graph
        Its distance is None: how much is lost shows in error rates.
    """
    import logging

    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    nodes = onnx.load(str(graph.path)).graph.node
    logging.getLogger().addFilter(_without_advice)
    try:
        quantize_dynamic(
            str(graph.path),
            str(path),
            # onnxruntime's convolution of whole numbers has no signed weights.
            weight_type=QuantType.QUInt8,
            nodes_to_exclude=[
                node.name for node in nodes if "compute_features" in node.name
            ],
        )
    finally:
        logging.getLogger().removeFilter(_without_advice)
    about = {
        entry.key: entry.value
        for entry in onnx.load(str(graph.path)).metadata_props
        if entry.key != "largest_distance_to_pytorch"
    }
    add_metadata(path, {**about, "weights": "uint8, dynamic quantisation"})
    return Graph(graph.reads, Path(path), None, Path(path).stat().st_size)


def _without_advice(record):
    """Leave out onnxruntime's advice to preprocess a graph first."""
    return "pre-processing" not in record.getMessage()
