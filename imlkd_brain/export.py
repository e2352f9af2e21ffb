"""A trained model as a folder that SpeechBrain's inference classes load.

``SpeakerRecognition.from_hparams(source=folder, savedir=folder)`` and
``EncoderClassifier.from_hparams`` accept what :func:`export_inference_folder`
writes; so do this recipe's teacher, ``verify.py`` and ``explain.py``. One
format on disk for every use of a model.

Authors: IML-KD contributors
"""

import os
import shutil
from pathlib import Path

import torch
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.tag import Tag

from imlkd_brain.errors import UserError
from imlkd_brain.features import has_statistics

FEATURE_KEYS = ("compute_features", "mean_var_norm")
HEADER = "# Speaker embedding model, written by recipes/VoxCeleb/IMLKD\n"


def export_inference_folder(
    folder,
    hyperparameters,
    embedding_model,
    classifier,
    label_encoder,
    sample_rate=16000,
    mean_var_norm=None,
):
    """Write a SpeechBrain inference folder for a trained speaker model.

    The folder is built beside its final place and renamed, so that it is
    either whole or absent.

    Arguments
    ---------
    folder : str or Path
        Where the folder goes; an older export there is replaced.
    hyperparameters : str or Path
        A YAML with its references resolved, as
        ``speechbrain.core.create_experiment_directory`` leaves in the output
        folder (``hyperparams.yaml``). Its keys ``compute_features``,
        ``mean_var_norm``, ``embedding_model`` and ``classifier`` are copied.
    embedding_model : torch.nn.Module
        Maps (batch, time, mel) to (batch, 1, dim).
    classifier : torch.nn.Module
        Maps (batch, 1, dim) to cosines (batch, 1, speakers).
    label_encoder : speechbrain.dataio.encoder.CategoricalEncoder
        The training speakers, in the order of the classifier's rows.
    sample_rate : int
        In Hz.
    mean_var_norm : torch.nn.Module, optional
        The normalisation that was trained with; needed where it is of type
        global, whose statistics are saved too.

    Returns
    -------
    folder : Path
        The folder written.

    Raises
    ------
    UserError
        If the YAML lacks one of the keys, or the normalisation is of type
        global and has seen no features.
    """
    folder = Path(folder)
    if has_statistics(mean_var_norm) and not mean_var_norm.count:
        raise UserError(
            "mean_var_norm: norm_type is global, but it has seen no features, "
            "so there are no statistics to export; train first."
        )
    yaml = YAML()
    with open(hyperparameters, encoding="utf-8") as stream:
        source = yaml.load(stream)
    description = CommentedMap()
    description["sample_rate"] = sample_rate
    for key in (*FEATURE_KEYS, "embedding_model", "classifier"):
        if key not in source:
            raise UserError(
                f"{hyperparameters}: the key `{key}` is missing, so the model "
                "cannot be described for inference; add it as in "
                "hparams/iml_kd.yaml."
            )
        description[key] = source[key]
    normalisation = description["mean_var_norm"]
    if (
        mean_var_norm is None
        and normalisation.tag.value.endswith("InputNormalization")
        and normalisation.get("norm_type", "global") == "global"
    ):
        raise UserError(
            f"{hyperparameters}: mean_var_norm is of norm_type global, whose "
            "statistics were not given; pass the trained mean_var_norm."
        )
    # In training the number of speakers is derived from the data, so the
    # YAML holds a constructor (!name:) that inference needs as an object.
    classifier_node = description["classifier"]
    tag = classifier_node.tag.value
    classifier_node.yaml_set_ctag(Tag(suffix=tag.replace("!name:", "!new:", 1)))
    classifier_node["out_neurons"] = len(label_encoder)
    # SpeakerRecognition asks for this module even where it is not used.
    description["mean_var_norm_emb"] = _new(
        "speechbrain.processing.features.InputNormalization",
        norm_type="global",
        std_norm=False,
    )
    description["label_encoder"] = _new(
        "speechbrain.dataio.encoder.CategoricalEncoder"
    )
    # Without it SpeechBrain's classes resample every file to 16 kHz.
    description["audio_normalizer"] = _new(
        "speechbrain.dataio.preprocess.AudioNormalizer", sample_rate=sample_rate
    )
    names = (
        *FEATURE_KEYS,
        "embedding_model",
        "classifier",
        "mean_var_norm_emb",
    )
    description["modules"] = _references(names)
    loadables = ["embedding_model", "classifier", "label_encoder"]
    if has_statistics(mean_var_norm):
        loadables.append("mean_var_norm")
    description["pretrainer"] = _new(
        "speechbrain.utils.parameter_transfer.Pretrainer",
        loadables=_references(loadables),
    )

    building = folder.with_name(folder.name + ".building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    with open(building / "hyperparams.yaml", "w", encoding="utf-8") as stream:
        stream.write(HEADER)
        yaml.dump(description, stream)
    torch.save(_weights(embedding_model), building / "embedding_model.ckpt")
    torch.save(_weights(classifier), building / "classifier.ckpt")
    label_encoder.save(building / "label_encoder.ckpt")
    if has_statistics(mean_var_norm):
        torch.save(
            {
                "count": int(mean_var_norm.count),
                "glob_mean": mean_var_norm.glob_mean.detach().cpu(),
                "glob_std": mean_var_norm.glob_std.detach().cpu(),
            },
            building / "mean_var_norm.ckpt",
        )
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(building, folder)
    return folder


def _new(class_name, **arguments):
    """Return a YAML node that builds ``class_name`` with ``arguments``."""
    node = CommentedMap(arguments)
    node.yaml_set_ctag(Tag(suffix=f"!new:{class_name}"))
    return node


def _references(names):
    """Return a mapping from each name to a ``!ref`` to it."""
    from ruamel.yaml.comments import TaggedScalar

    node = CommentedMap()
    for name in names:
        node[name] = TaggedScalar(f"<{name}>", tag="!ref")
    return node


def _weights(module):
    """Return a module's state on the CPU, unwrapped from DDP."""
    module = getattr(module, "module", module)
    return {k: v.detach().cpu() for k, v in module.state_dict().items()}
