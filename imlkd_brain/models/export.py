"""Writes a trained model as a folder that SpeechBrain's classes load.

``SpeakerRecognition.from_hparams(source=folder, savedir=folder)`` and
``EncoderClassifier.from_hparams`` load it, and so does this recipe, as a
teacher and in ``verify.py`` and ``explain.py``.

Authors: IML-KD contributors
"""

import copy
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.tag import Tag
from torch.nn.parallel import DataParallel, DistributedDataParallel

from imlkd_brain.errors import UserError
from imlkd_brain.files import replace_folder, write_sums, write_whole
from imlkd_brain.models.features import has_statistics
from imlkd_brain.models.folder import (
    INFERENCE,
    STATISTICS_FILE,
    TEACHER_SPEAKERS,
    load_speaker_model,
    read_names,
)
from imlkd_brain.models.trust import trust

NETWORKS = ("embedding_model", "classifier")
FEATURE_KEYS = ("compute_features", "mean_var_norm")
HEADER = "# Speaker embedding model, written by recipes/VoxCeleb/IMLKD\n"
PARALLEL = (DataParallel, DistributedDataParallel)
LARGEST_ERROR = 1e-2  # relative, of an export's output


@dataclass
class TrainedModel:
    """The modules of a training that make up a speaker model.

    Arguments
    ---------
    embedding_model : torch.nn.Module
        Maps (batch, time, mel) to (batch, 1, dim).
    classifier : torch.nn.Module
        Maps (batch, 1, dim) to cosines (batch, 1, speakers).
    label_encoder : speechbrain.dataio.encoder.CategoricalEncoder
        The training speakers, in the order of the classifier's rows.
    sample_rate : int
        In Hz.
    compute_features : torch.nn.Module, optional
        The features of the training; those of the YAML if left out.
    mean_var_norm : torch.nn.Module, optional
        The normalisation of the training; that of the YAML if left out. One
        of type global is needed, since its statistics are saved.
    """

    embedding_model: torch.nn.Module
    classifier: torch.nn.Module
    label_encoder: object
    sample_rate: int = 16000
    compute_features: torch.nn.Module = None
    mean_var_norm: torch.nn.Module = None

    @property
    def networks(self):
        """Names of the trained networks; no classifier without speakers."""
        return NETWORKS if self.has_classifier else NETWORKS[:1]

    @property
    def has_classifier(self):
        """Whether any utterance of the training had a label."""
        return len(self.label_encoder) > 0

    def without_wrappers(self):
        """Return the same model with modules as the YAML describes them."""
        modules = {
            name: unwrapped(module)
            for name, module in vars(self).items()
            if isinstance(module, torch.nn.Module)
        }
        return replace(self, **modules)


def export_inference_folder(
    folder, hyperparameters, model, trained_with=None, teacher_speakers=()
):
    """Write a SpeechBrain inference folder for a trained speaker model.

    The folder is built beside its final place, loaded back, compared with the
    trained model, and then renamed. So it is either right or absent.

    Arguments
    ---------
    folder : str or Path
        Where the folder goes; an older export there is replaced.
    hyperparameters : str or Path
        A YAML with its references resolved, as
        ``speechbrain.core.create_experiment_directory`` leaves in the output
        folder (``hyperparams.yaml``). Its keys ``compute_features``,
        ``mean_var_norm``, ``embedding_model`` and ``classifier`` are copied.
    model : TrainedModel
        The trained modules.
    trained_with : imlkd_brain.trained_with.TrainingRecord, optional
        The record of the training; its file goes into the folder.
    teacher_speakers : sequence of str
        Speakers that its teachers or initial weights were trained on. They
        go into ``teacher_speakers.txt``, and nobody tests the model on them.

    Returns
    -------
    folder : Path
        The folder written.

    Raises
    ------
    UserError
        If the YAML lacks one of the keys, the normalisation is of type
        global and has seen no features, or the folder does not give the
        trained model's embeddings. An older export is left as it is.
    """
    folder, model = Path(folder), model.without_wrappers()
    description = _describe(hyperparameters, model)
    building = folder.with_name(folder.name + ".building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    with open(building / "hyperparams.yaml", "w", encoding="utf-8") as stream:
        stream.write(HEADER)
        YAML().dump(description, stream)
    # Whoever trains a network of their own trusts it.
    trust((building / "hyperparams.yaml").read_text(encoding="utf-8"))
    _save_modules(building, model)
    if teacher_speakers:
        write_names(building / TEACHER_SPEAKERS, teacher_speakers)
    write_sums(building)
    if trained_with is not None:
        trained_with.write(building)
    _check_export(building, model)
    replace_folder(building, folder)
    return folder


def _describe(hyperparameters, model):
    """Return the YAML of an inference folder."""
    with open(hyperparameters, encoding="utf-8") as stream:
        source = YAML().load(stream)
    description = CommentedMap()
    description["sample_rate"] = model.sample_rate
    for key in (*FEATURE_KEYS, *model.networks):
        if key not in source:
            raise UserError(
                f"{hyperparameters}: the key `{key}` is missing, so the model "
                "cannot be described for inference; add it as in "
                "hparams/iml_kd.yaml."
            )
        description[key] = source[key]
    _check_statistics(hyperparameters, description, model.mean_var_norm)
    # In training the number of speakers is derived from the data, so the
    # YAML holds a constructor (!name:) that inference needs as an object.
    if model.has_classifier:
        node = description["classifier"]
        tag = node.tag.value
        node.yaml_set_ctag(Tag(suffix=tag.replace("!name:", "!new:", 1)))
        node["out_neurons"] = len(model.label_encoder)
    # SpeakerRecognition asks for this module even where it is not used.
    description["mean_var_norm_emb"] = _new(
        "speechbrain.processing.features.InputNormalization",
        norm_type="global",
        std_norm=False,
    )
    loadables = [*model.networks]
    if model.has_classifier:
        loadables.append("label_encoder")
        description["label_encoder"] = _new(
            "speechbrain.dataio.encoder.CategoricalEncoder"
        )
    # Without it SpeechBrain's classes resample every file to 16 kHz.
    description["audio_normalizer"] = _new(
        "speechbrain.dataio.preprocess.AudioNormalizer",
        sample_rate=model.sample_rate,
    )
    description["modules"] = _references(
        [*FEATURE_KEYS, *model.networks, "mean_var_norm_emb"]
    )
    if has_statistics(model.mean_var_norm):
        loadables.append("mean_var_norm")
    description["pretrainer"] = _new(
        "speechbrain.utils.parameter_transfer.Pretrainer",
        loadables=_references(loadables),
    )
    return description


def _check_statistics(hyperparameters, description, mean_var_norm):
    """Refuse a global normalisation without statistics."""
    if has_statistics(mean_var_norm) and not mean_var_norm.count:
        raise UserError(
            "mean_var_norm: norm_type is global, but it has seen no features, "
            "so there are no statistics to export; train first."
        )
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


def _save_modules(folder, model):
    """Write the checkpoints of an inference folder."""
    for name in model.networks:
        state = getattr(model, name).state_dict()
        state = {key: value.detach().cpu() for key, value in state.items()}
        torch.save(state, folder / f"{name}.ckpt")
    if model.has_classifier:
        model.label_encoder.save(folder / "label_encoder.ckpt")
    norm = model.mean_var_norm
    if has_statistics(norm):
        torch.save(
            {
                "count": int(norm.count),
                "glob_mean": norm.glob_mean.detach().cpu(),
                "glob_std": norm.glob_std.detach().cpu(),
            },
            folder / STATISTICS_FILE,
        )


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


def unwrapped(module):
    """Return a copy of a module without what it was wrapped in to be trained.

    ``torch.compile``, DistributedDataParallel and DataParallel put a module
    into one of their own, around the whole or around a part, and their name
    into every key of the state.

    Arguments
    ---------
    module : torch.nn.Module
        The module, wrapped any number of times, or not at all. It shares its
        parameters with what is returned.

    Returns
    -------
    torch.nn.Module
        The module as the YAML describes it.

    Example
    -------
    >>> module = torch.nn.Sequential(torch.nn.Linear(2, 2))
    >>> list(unwrapped(torch.nn.DataParallel(module)).state_dict())
    ['0.weight', '0.bias']
    """
    inner = _wrapped(module)
    while inner is not None:
        module, inner = inner, _wrapped(inner)
    children = dict(module._modules)
    changed = {
        name: unwrapped(child)
        for name, child in children.items()
        if child is not None and unwrapped(child) is not child
    }
    if not changed:
        return module
    # The trained module keeps its wrapped parts.
    module = copy.copy(module)
    module._modules = {**children, **changed}
    return module


def _wrapped(module):
    """The module in a wrapper; None for one that is no wrapper."""
    if isinstance(module, PARALLEL):
        return module.module
    # torch.compile's; importing its class would take seconds.
    return module._modules.get("_orig_mod")


@torch.no_grad()
def _check_export(folder, model):
    """Load an export as its users do; refuse one that is another model.

    Arguments
    ---------
    folder : Path
        The folder that was written.
    model : TrainedModel
        The trained modules, without wrappers.

    Raises
    ------
    UserError
        If it does not load, or gives other embeddings or cosines.
    """
    loaded = load_speaker_model(folder)
    embedding_model, classifier = model.embedding_model, model.classifier
    device = next(embedding_model.parameters()).device
    loaded.to(device)
    compute_features, mean_var_norm = (
        getattr(loaded if getattr(model, name) is None else model, name)
        for name in FEATURE_KEYS
    )
    trained = (compute_features, mean_var_norm, embedding_model, classifier)
    generator = torch.Generator().manual_seed(0)
    wavs = torch.randn(1, loaded.sample_rate, generator=generator).to(device)
    with evaluating(*trained):
        feats = mean_var_norm(compute_features(wavs), wavs.new_ones(1))
        embeddings = embedding_model(feats)
        cosines = classifier(embeddings)
    found = loaded.embed(wavs)
    pairs = [("embeddings", embeddings.flatten(), found.flatten())]
    if loaded.classifier is not None:
        found = loaded.classify(found)
        pairs.append(("cosines", cosines.flatten(), found.flatten()))
    for name, ours, theirs in pairs:
        # The same weights on the same device differ by the order of sums at
        # most; TensorFloat-32 rounds to 2^-11. Other weights differ by all.
        if not ours.isfinite().all():
            raise UserError(
                f"{folder}: the trained model gives {name} that are not "
                "finite, so it is not exported; train with a lower lr or eta "
                "in another output_folder."
            )
        error = (ours - theirs).float().norm() / ours.float().norm()
        if not error <= LARGEST_ERROR:
            raise UserError(
                f"{folder}: loaded back, this model gives other {name} than "
                f"the trained one (relative difference {error:.2g}), so it is "
                "not exported; check that the YAML describes the model and the "
                "features that were trained. The checkpoints are kept."
            )


@contextmanager
def evaluating(*modules):
    """Put modules into evaluation mode, and each part back as it was."""
    before = {
        part: part.training for module in modules for part in module.modules()
    }
    try:
        for module in modules:
            module.eval()
        yield
    finally:
        for part, mode in before.items():
            part.training = mode


def write_names(path, names):
    """Write names, one a line, whole or not at all."""
    write_whole(path, "".join(f"{name}\n" for name in names))


def export_training(
    modules,
    label_encoder,
    sample_rate,
    folders,
    trained_with=None,
    teacher=None,
    heard=(),
):
    """Write the inference folder of a training.

    Arguments
    ---------
    modules : torch.nn.ModuleDict
        The Brain's.
    label_encoder : speechbrain.dataio.encoder.CategoricalEncoder
        The training speakers.
    sample_rate : int
        In Hz.
    folders : tuple of str
        The output folder, where ``inference`` goes, and the save folder.
    trained_with : imlkd_brain.trained_with.TrainingRecord, optional
        See :func:`export_inference_folder`.
    teacher : imlkd_brain.distillation.teacher.Teacher, optional
        The teacher, whose speakers are stored with the model.
    heard : sequence of str
        Speakers of its unlabelled speech, stored with them.

    Returns
    -------
    folder : Path
        The folder written.
    """
    output_folder, save_folder = map(Path, folders)
    model = TrainedModel(
        modules["embedding_model"],
        modules["classifier"],
        label_encoder,
        sample_rate,
        modules["compute_features"],
        modules["mean_var_norm"],
    )
    return export_inference_folder(
        output_folder / INFERENCE,
        output_folder / "hyperparams.yaml",
        model,
        trained_with,
        inherited_speakers(save_folder, teacher, heard),
    )


def inherited_speakers(save_folder, teacher=None, heard=()):
    """Return the speakers a model learnt without classes of its own.

    Arguments
    ---------
    save_folder : str or Path
        Where :func:`imlkd_brain.models.initial_weights.keep_speakers` wrote.
    teacher : object, optional
        The teacher, if it was loaded.
    heard : sequence of str
        Speakers of unlabelled speech.

    Returns
    -------
    list of str
        Sorted.
    """
    names = read_names(Path(save_folder) / TEACHER_SPEAKERS)
    learnt = getattr(teacher, "learnt_speakers", ())
    return sorted({*names, *learnt, *heard})
