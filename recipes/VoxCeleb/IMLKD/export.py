#!/usr/bin/env python3
"""Recipe for exporting a trained model for deployment.

It writes one folder with everything: what SpeechBrain's classes load, ONNX
graphs from features and from waveform, also with weights of 8 bits, and a model
card.

To run this recipe, train a model with train_kd.py, then:
> python export.py hparams/export.yaml --model results/iml_kd/1986

With the EER of the 8-bit graph beside that of float:
> python export.py hparams/export.yaml --model results/iml_kd/1986 \
    --data_folder DIR --trial_lists trials/test.txt

Authors
    * IML-KD contributors
"""

import sys
from pathlib import Path

import speechbrain as sb
from imlkd_brain.data.crops import read_durations
from imlkd_brain.errors import one_sentence_errors
from imlkd_brain.files import write_json
from imlkd_brain.models.card import read_results, write_card
from imlkd_brain.models.deployment import FACTS, check_place, write_deployment
from imlkd_brain.models.folder import load_speaker_model
from imlkd_brain.models.onnx_runtime import OnnxSpeakerModel, require_onnx
from imlkd_brain.models.size import model_size
from imlkd_brain.settings import as_list, load_hyperparameters
from imlkd_brain.verification.embeddings import Embedder
from imlkd_brain.verification.export_keys import SCHEMA
from imlkd_brain.verification.inputs import check_inputs, open_lists
from imlkd_brain.verification.measures import Measures, measure
from imlkd_brain.verification.scorer import Scorer, score_lists
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)


def check_before_export(hparams):
    """Stops for what cannot be exported; returns the model and the lists."""
    if hparams["graphs"]:
        require_onnx()
    check_place(Path(hparams["model_folder"]))
    model = load_speaker_model(hparams["model"])
    if hparams["card"]["results"]:
        read_results(hparams["card"]["results"], model.key)
    lists = []
    if hparams["trial_lists"]:
        lists = open_lists(
            as_list(hparams["trial_lists"]), hparams["data_folder"]
        )
        check_inputs(
            lists,
            {model.name: model},
            {},
            allow=hparams["allow_training_speakers"],
        )
    return model, lists


def error_rates(hparams, model, lists):
    """Scores lists with PyTorch, the float graph and the 8-bit graph."""
    folder = Path(hparams["model_folder"])
    models = {"PyTorch": model, "ONNX": folder / "waveform.onnx"}
    if hparams["int8"]:
        models["ONNX int8"] = folder / "waveform_int8.onnx"
    embed = Embedder(
        Path(hparams["output_folder"]) / "embeddings",
        seed=hparams["seed"],
        data_folder=hparams["data_folder"],
    )
    rows = []
    for name, one in models.items():
        if isinstance(one, Path):
            one = OnnxSpeakerModel(one)
        durations = read_durations(hparams["durations"])
        for scored in score_lists(name, Scorer(one, embed), lists, durations):
            rows += measure(scored, Measures())
    keys = ("model", "list", "duration", "eer")
    return [{key: row[key] for key in keys} for row in rows]


def main(argv):
    """Checks, exports, compares float and int8, writes the card."""
    hparams_file, hparams, _, overrides = load_hyperparameters(argv, SCHEMA)
    model, lists = check_before_export(hparams)
    sb.core.create_experiment_directory(
        experiment_directory=hparams["output_folder"],
        hyperparams_to_save=hparams_file,
        overrides=overrides,
    )
    folder = Path(hparams["model_folder"])
    facts = write_deployment(
        hparams["model"],
        folder,
        hparams["graphs"],
        hparams["int8"],
        hparams["seed"],
    )
    for name, graph in facts["graphs"].items():
        if graph["largest_distance_to_pytorch"] is not None:
            logger.info(
                f"{name}: checked on random lengths, largest distance to "
                f"PyTorch {graph['largest_distance_to_pytorch']:.2g}"
            )
    rows = []
    about = dict(hparams["card"])
    results, size = about.pop("results"), model_size(model)
    if lists:
        # The folder is of use without them, should scoring stop.
        write_card(folder, about, model, size, facts, results)
        rows = error_rates(hparams, model, lists)
        write_json(folder / FACTS, {**facts, "error_rates": rows})
        for row in rows:
            logger.info(
                f"{row['list']}, {row['duration']}: EER of {row['model']} "
                f"{100 * row['eer']:.2f} %"
            )
    write_card(folder, about, model, size, facts, results, rows)
    logger.info(f"The model to deploy is in {folder}")


if __name__ == "__main__":
    with one_sentence_errors():
        main(sys.argv[1:])
