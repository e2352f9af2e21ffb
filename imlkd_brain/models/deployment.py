"""A folder to deploy: what SpeechBrain loads, ONNX graphs and their check.

Authors: IML-KD contributors
"""

import re
import shutil
import tempfile
from pathlib import Path

from imlkd_brain.errors import UserError
from imlkd_brain.files import replace_folder, write_json
from imlkd_brain.models.export import TrainedModel, export_inference_folder
from imlkd_brain.models.folder import (
    LABEL_FILES,
    TEACHER_SPEAKERS,
    find_inference_folder,
    load_speaker_model,
)
from imlkd_brain.models.onnx_export import export_graph, quantise
from imlkd_brain.models.sources import only_keys, run_of
from speechbrain.dataio.encoder import CategoricalEncoder

FACTS = "export.json"
DESCRIPTION = "hyperparams.yaml"
KEYS = (
    "sample_rate",
    "compute_features",
    "mean_var_norm",
    "embedding_model",
    "classifier",
)
# A description that loads files from elsewhere.
ELSEWHERE = re.compile(r"^\s*(pretrained_path|paths)\s*:", re.MULTILINE)


def write_deployment(source, folder, graphs=(), int8=False, seed=0):
    """Write a folder that SpeechBrain and onnxruntime load.

    It is written beside its place and renamed when it is complete and checked.

    Arguments
    ---------
    source : str or Path
        A training run, an inference folder, or the name of a model.
    folder : str or Path
        Where to. An older export there is replaced; what is no export is not.
    graphs : sequence of str
        See :data:`imlkd_brain.models.onnx_export.GRAPHS`; each becomes
        ``<name>.onnx``.
    int8 : bool
        Whether each graph is written with weights of 8 bits as well, as
        ``<name>_int8.onnx``.
    seed : int
        Of the check of the graphs.

    Returns
    -------
    facts : dict
        What ``export.json`` holds: parameters of the check, and of each graph
        its size in bytes and its distance to PyTorch.

    Raises
    ------
    UserError
        If there is no model, it cannot be exported, or something else lies in
        the folder.
    """
    folder = Path(folder)
    check_place(folder)
    building = folder.with_name(folder.name + ".building")
    shutil.rmtree(building, ignore_errors=True)
    building.parent.mkdir(parents=True, exist_ok=True)
    try:
        _write_model(source, building)
        model = load_speaker_model(building)
        written = []
        for reads in graphs:
            path = building / f"{reads}.onnx"
            written.append(export_graph(model, reads, path, seed))
            if int8:
                path = building / f"{reads}_int8.onnx"
                written.append(quantise(written[-1], path))
        facts = {
            "model_key": model.key,
            "sample_rate": model.sample_rate,
            "embedding_dim": model.embedding_dim,
            "seed": seed,
            "graphs": {
                graph.path.name: {
                    "reads": graph.reads,
                    "bytes": graph.bytes,
                    "largest_distance_to_pytorch": graph.distance,
                }
                for graph in written
            },
        }
        write_json(building / FACTS, facts)
        replace_folder(building, folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return facts


def check_place(folder, option="--model_folder"):
    """Refuse to replace a folder that is no export.

    Arguments
    ---------
    folder : Path
        Where an export is to go.
    option : str
        What names it, for the message.

    Raises
    ------
    UserError
        If it is a file, or a folder with other content.
    """
    if folder.is_file() or (
        folder.is_dir()
        and not (folder / FACTS).is_file()
        and any(folder.iterdir())
    ):
        raise UserError(
            f"{folder}: it holds something that is no export, which would be "
            f"lost; give a new folder with `{option}`."
        )


def _write_model(source, folder):
    """Write the folder that SpeechBrain loads, without paths of this machine."""
    found = find_inference_folder(source)
    run = run_of(found)
    description = (found if run is None else run) / DESCRIPTION
    text = description.read_text(encoding="utf-8")
    if run is None and not ELSEWHERE.search(text):
        folder.mkdir()
        for file in sorted(found.iterdir()):
            kept = file.suffix in (".ckpt", ".json", ".yaml")
            kept |= file.name in (*LABEL_FILES, TEACHER_SPEAKERS)
            # Notices of licences go where the model goes.
            kept |= file.stem.upper() in ("NOTICE", "LICENSE")
            if kept and file.is_file() and file.name != FACTS:
                shutil.copyfile(file, folder / file.name)
        return
    # One of SpeechBrain's own: its description names a hub and other files.
    model = load_speaker_model(source)
    if model.classifier is None:
        raise UserError(
            f"{source}: it has no classifier with speakers, so it cannot be "
            "written as a folder of its own; deploy the folder that it is in."
        )
    encoder = CategoricalEncoder()
    for speaker in model.speakers:
        encoder.add_label(speaker)
    with tempfile.TemporaryDirectory() as scratch:
        plain = Path(scratch) / DESCRIPTION
        plain.write_text(only_keys(text, KEYS), encoding="utf-8")
        export_inference_folder(
            folder,
            plain,
            TrainedModel(
                model.embedding_model,
                model.classifier,
                encoder,
                model.sample_rate,
                model.compute_features,
                model.mean_var_norm,
            ),
            teacher_speakers=model.teacher_speakers,
        )
