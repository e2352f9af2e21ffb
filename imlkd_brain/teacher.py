"""A frozen teacher from any source, its classes mapped to the student's.

A source is a SpeechBrain inference folder (as :mod:`imlkd_brain.export` or
SpeechBrain's own hub models have it) or the output folder of a training run,
which holds one. Loading is strict: a checkpoint that does not fit the model
is an error, not a warning.

Authors: IML-KD contributors
"""

import hashlib
import os
from pathlib import Path
from pickle import UnpicklingError

import torch
from hyperpyyaml import load_hyperpyyaml
from torch.nn.functional import normalize
from tqdm import tqdm

from imlkd_brain.errors import UserError
from imlkd_brain.features import (
    check_features,
    has_statistics,
    hop_samples,
    plain_settings,
)
from imlkd_brain.precision import full_float32
from speechbrain.dataio.dataloader import make_dataloader
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.utils.distributed import run_on_main

INFERENCE = "inference"
MODEL_KEYS = ("compute_features", "mean_var_norm", "embedding_model")
STATISTICS_FILE = "mean_var_norm.ckpt"  # of a global normalisation
LABEL_FILES = ("label_encoder.ckpt", "label_encoder.txt")
TEACHER_SPEAKERS = "teacher_speakers.txt"  # a name a line


class SpeakerModel(torch.nn.Module):
    """A frozen speaker model: waveforms to features, embeddings and cosines.

    It stays in evaluation mode whatever is asked of it, and none of its
    parameters takes a gradient, so that BatchNorm statistics and weights are
    bit-identical after any use.

    Arguments
    ---------
    compute_features : torch.nn.Module
        Waveforms (batch, samples) to log-mel features (batch, time, mel).
    mean_var_norm : torch.nn.Module
        Normalises features, called with relative lengths (batch,).
    embedding_model : torch.nn.Module
        Maps (batch, time, mel) to (batch, 1, dim).
    classifier : torch.nn.Module or None
        Maps (batch, 1, dim) to cosines (batch, 1, speakers).
    speakers : list of str
        Training speakers in the order of the classifier's rows.
    sample_rate : int
        In Hz.
    source : str
        Where the model came from, for messages.
    teacher_speakers : list of str
        Training speakers of its teacher and of its initial weights, of their
        teachers and so on. What a model has learnt from them makes its figures
        on them too good.

    Attributes
    ----------
    key : str
        SHA-256 (hex) of the weights and of the modules' description: the same
        model has the same key wherever it lies.

    Example
    -------
    >>> from speechbrain.lobes.features import Fbank
    >>> from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN, Classifier
    >>> from speechbrain.processing.features import InputNormalization
    >>> model = SpeakerModel(
    ...     Fbank(n_mels=80),
    ...     InputNormalization(norm_type="sentence", std_norm=False),
    ...     ECAPA_TDNN(80, channels=[16] * 4 + [48], lin_neurons=24),
    ...     Classifier(24, out_neurons=3),
    ...     speakers=["a", "b", "c"],
    ... )
    >>> feats = model.features(torch.randn(2, 16000))
    >>> model.embed_features(feats).shape, model.cosines(feats).shape
    (torch.Size([2, 24]), torch.Size([2, 3]))
    """

    def __init__(
        self,
        compute_features,
        mean_var_norm,
        embedding_model,
        classifier=None,
        speakers=(),
        sample_rate=16000,
        source="",
        teacher_speakers=(),
    ):
        super().__init__()
        self.compute_features = compute_features
        self.mean_var_norm = mean_var_norm
        self.embedding_model = embedding_model
        self.classifier = classifier
        self.speakers = list(speakers)
        self.teacher_speakers = list(teacher_speakers)
        self.sample_rate = sample_rate
        self.source = str(source)
        self.requires_grad_(False)
        self.train(False)
        self.key = self._fingerprint()
        self.name = Path(self.source).name or "model"

    def train(self, mode=True):
        """Stay in evaluation mode: a teacher's BatchNorm must not learn."""
        return super().train(False)

    def _apply(self, fn, recurse=True):
        """Move statistics that are no buffers along with the weights."""
        super()._apply(fn, recurse)
        if has_statistics(self.mean_var_norm):
            norm = self.mean_var_norm
            norm.glob_mean, norm.glob_std = map(
                fn, (norm.glob_mean, norm.glob_std)
            )
        return self

    def features(self, wavs, lens=None):
        """Return normalised log-mel features (batch, time, mel).

        Arguments
        ---------
        wavs : torch.Tensor
            (batch, samples) at ``sample_rate``.
        lens : torch.Tensor, optional
            Relative lengths (batch,), 1 for the longest.
        """
        if lens is None:
            lens = torch.ones(wavs.shape[0], device=wavs.device)
        return self.mean_var_norm(self.compute_features(wavs), lens)

    def embed_features(self, feats, lens=None):
        """Return embeddings (batch, dim) of features (batch, time, mel)."""
        if lens is None:
            return self.embedding_model(feats).squeeze(1)
        return self.embedding_model(feats, lens).squeeze(1)

    def embed(self, wavs, lens=None):
        """Return embeddings (batch, dim) of waveforms (batch, samples)."""
        return self.embed_features(self.features(wavs, lens), lens)

    def classify(self, embeddings):
        """Return cosines (batch, speakers) of embeddings (batch, dim)."""
        if self.classifier is None:
            raise UserError(
                f"{self.source}: this model has no classifier, so it has no "
                "training speakers to score; use it for verification only."
            )
        return self.classifier(embeddings.unsqueeze(1)).squeeze(1)

    def cosines(self, feats):
        """Return cosines (batch, speakers) of features (batch, time, mel).

        Cosines in [-1, 1], without margin or scale; differentiable with
        respect to ``feats``.
        """
        return self.classify(self.embed_features(feats))

    @property
    def hop_samples(self):
        """Samples from one frame of the features to the next."""
        return hop_samples(self.compute_features, self.sample_rate)

    @property
    def learnt_speakers(self):
        """Speakers it has learnt itself or through its teachers, sorted."""
        return sorted({*self.speakers, *self.teacher_speakers})

    @property
    def embedding_dim(self):
        """Dimension of the embeddings, found with one frame-sized input."""
        device = next(self.embedding_model.parameters()).device
        with torch.no_grad():
            wavs = torch.zeros(1, self.sample_rate, device=device)
            return self.embed(wavs).shape[-1]

    def _fingerprint(self):
        """Hash the weights and the description of every module."""
        digest = hashlib.sha256()
        for name, module in self.named_modules():
            if module is not self:
                # repr() leaves out what has no weights: hop length, dilation,
                # the kind of normalisation.
                digest.update(f"{name} {type(module)}".encode())
                digest.update(repr(plain_settings(module)).encode())
        for name, value in sorted(self.state_dict().items()):
            digest.update(name.encode())
            # Through bytes, not numpy: bfloat16 has no numpy type.
            data = value.detach().cpu().contiguous().flatten()
            digest.update(data.view(torch.uint8).numpy().tobytes())
        if has_statistics(self.mean_var_norm):
            norm = self.mean_var_norm
            for value in (norm.glob_mean, norm.glob_std):
                digest.update(value.detach().cpu().numpy().tobytes())
        return digest.hexdigest()


class Teacher(SpeakerModel):
    """A :class:`SpeakerModel` whose classes are those of the student.

    Arguments
    ---------
    model : SpeakerModel
        The trained model.
    speakers : list of str
        The student's training speakers, in the student's order.
    prototypes : torch.Tensor, optional
        (speakers, dim). Rows that stand in for the teacher's classifier, for
        students whose speakers the teacher never saw. Without them the rows
        of the teacher's own classifier are selected by name.

    Raises
    ------
    UserError
        If a speaker is missing from the teacher's classifier and there are no
        prototypes.
    """

    def __init__(self, model, speakers, prototypes=None):
        super().__init__(
            model.compute_features,
            model.mean_var_norm,
            model.embedding_model,
            model.classifier,
            model.speakers,
            model.sample_rate,
            model.source,
            model.teacher_speakers,
        )
        if prototypes is None:
            if self.classifier is None:
                raise UserError(
                    f"{self.source}: this model has no classifier of cosines "
                    "to teach classes with; give `--teacher_classes "
                    "prototypes` to use mean teacher embeddings as classes."
                )
            rows = class_rows(self, speakers)
            weight = self.classifier.weight[rows]
            self.layers = getattr(self.classifier, "blocks", ())
        else:
            # Means of embeddings: a classifier's own layers do not apply.
            weight = prototypes
            self.layers = ()
        self.register_buffer("rows", normalize(weight.detach().float(), dim=-1))
        # What it answers depends on the classes as well.
        self.key = self._fingerprint()

    def classify(self, embeddings):
        """Return cosines (batch, student speakers) of embeddings (batch, dim)."""
        for layer in self.layers:
            embeddings = layer(embeddings)
        return normalize(embeddings, dim=-1) @ self.rows.to(embeddings).T


def class_rows(model, speakers):
    """Return the rows of ``model``'s classifier for ``speakers``.

    Arguments
    ---------
    model : SpeakerModel
        A model with a classifier and named speakers.
    speakers : list of str
        Names to find.

    Returns
    -------
    rows : list of int

    Raises
    ------
    UserError
        Naming the first speakers the model does not know.

    Example
    -------
    >>> from types import SimpleNamespace
    >>> class_rows(SimpleNamespace(speakers=["a", "b"], source=""), ["b"])
    [1]
    """
    index = {speaker: row for row, speaker in enumerate(model.speakers)}
    missing = [speaker for speaker in speakers if speaker not in index]
    if missing:
        raise UserError(
            f"{model.source}: the teacher has no class for {len(missing)} of "
            f"the {len(speakers)} training speakers (first: "
            f"{', '.join(missing[:3])}); train a teacher on these speakers, "
            "or give `--teacher_classes prototypes` to use mean teacher "
            "embeddings as classes."
        )
    return [index[speaker] for speaker in speakers]


@torch.no_grad()
def speaker_prototypes(embeddings, labels, n_speakers):
    """Return the mean direction of each speaker's embeddings.

    Arguments
    ---------
    embeddings : torch.Tensor
        (utterances, dim).
    labels : torch.Tensor
        (utterances,) speaker indices.
    n_speakers : int
        Number of rows to return.

    Returns
    -------
    prototypes : torch.Tensor
        (n_speakers, dim), unit length.

    Example
    -------
    >>> emb = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
    >>> speaker_prototypes(emb, torch.tensor([0, 0, 1]), 2)
    tensor([[1., 0.],
            [0., 1.]])
    """
    directions = normalize(embeddings, dim=-1)
    sums = directions.new_zeros(n_speakers, directions.shape[-1])
    sums.index_add_(0, labels.to(sums.device), directions)
    return normalize(sums, dim=-1)


@torch.no_grad()
@full_float32()
def embed_dataset(model, dataset, device="cpu", batch_size=64):
    """Embed every item of a training set once, for prototypes.

    Arguments
    ---------
    model : SpeakerModel
        The model that embeds.
    dataset : speechbrain.dataio.dataset.DynamicItemDataset
        Gives sig, all of one length, and spk_id_encoded.
    device : str
        Where to embed; the model is moved there and back.
    batch_size : int
        Utterances in a batch.

    Returns
    -------
    embeddings : torch.Tensor
        (utterances, dim).
    labels : torch.Tensor
        (utterances,) speaker indices.
    """
    home = next(model.parameters()).device
    model.to(device)
    embeddings, labels = [], []
    # A loader draws a number, which the caller's stream must not miss.
    with torch.random.fork_rng(devices=[]):
        for batch in tqdm(
            make_dataloader(dataset, batch_size=batch_size),
            desc="teacher prototypes",
            dynamic_ncols=True,
        ):
            wavs, lens = batch.to(device).sig
            embeddings.append(model.embed(wavs, lens).cpu())
            labels.append(batch.spk_id_encoded.data.squeeze(1).cpu())
    model.to(home)
    return torch.cat(embeddings), torch.cat(labels)


def kept_prototypes(model, dataset, n_speakers, path, options, device="cpu"):
    """Prototypes of a training set, computed once and kept in a file.

    The main process computes them where the file is of another teacher,
    other data or other options; the other processes, and a later start of
    the same training, read them.

    Arguments
    ---------
    model : SpeakerModel
        The model that embeds.
    dataset : speechbrain.dataio.dataset.DynamicItemDataset
        See :func:`embed_dataset`.
    n_speakers : int
        Number of prototypes.
    path : str
        The file.
    options : dict
        What else decides which samples the dataset gives.
    device : str
        Where to embed.

    Returns
    -------
    prototypes : torch.Tensor
        (n_speakers, dim), unit length, see :func:`speaker_prototypes`.

    Raises
    ------
    UserError
        If the file cannot be written.
    """
    run_on_main(
        _keep_prototypes,
        args=[model, dataset, n_speakers, path, options, device],
    )
    return torch.load(path, weights_only=True)["prototypes"]


def _keep_prototypes(model, dataset, n_speakers, path, options, device):
    """Compute and write prototypes, unless they are there."""
    key = _prototypes_key(model, dataset, n_speakers, options)
    try:
        if torch.load(path, weights_only=True)["key"] == key:
            return
    except (OSError, EOFError, KeyError, RuntimeError, UnpicklingError):
        # None yet, or half of them: they are written anew.
        pass
    embeddings, labels = embed_dataset(model, dataset, device)
    prototypes = speaker_prototypes(embeddings, labels, n_speakers)
    try:
        torch.save({"key": key, "prototypes": prototypes}, path + ".tmp")
        os.replace(path + ".tmp", path)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{path}: the teacher's prototypes cannot be kept there ({error}); "
            "make room, or give another output_folder."
        ) from error


def _prototypes_key(model, dataset, n_speakers, options):
    """Hash what prototypes depend on: teacher, utterances, options."""
    digest = hashlib.sha256(
        f"{model.key} {n_speakers} {sorted(options.items())}".encode()
    )
    for name, row in dataset.data.items():
        digest.update(f"{name} {sorted(row.items())}".encode())
        try:
            # All of a large corpus is not read for this.
            found = os.stat(row["wav"])
        except OSError:
            # Named by its path when it is read.
            continue
        digest.update(f"{found.st_size} {found.st_mtime_ns}".encode())
    return digest.hexdigest()


def find_inference_folder(source):
    """Return the inference folder in ``source``, or ``source`` if it is one.

    Raises
    ------
    UserError
        If there is none, with the way to get one.
    """
    source = Path(source)
    for folder in (source / INFERENCE, source):
        if (folder / "embedding_model.ckpt").is_file():
            return folder
    if (source / "save").is_dir():
        raise UserError(
            f"{source}: the training there has not finished (there is no "
            f"`{INFERENCE}` folder); run its train_kd.py command again, it "
            "goes on from the last checkpoint."
        )
    raise UserError(
        f"{source}: no trained model there (expected a folder with "
        "hyperparams.yaml and embedding_model.ckpt, or a training output "
        "folder that holds one as `inference`); train it with train_kd.py or "
        "correct the path."
    )


def load_speaker_model(source, device="cpu"):
    """Load a trained speaker model, strictly.

    The folder's YAML is executed, as in SpeechBrain's ``from_hparams``: load
    only folders you trust.

    Arguments
    ---------
    source : str or Path
        An inference folder or a training output folder.
    device : str
        Where the model goes.

    Returns
    -------
    model : SpeakerModel

    Raises
    ------
    UserError
        If files or keys are missing, or a checkpoint does not fit the model.
    """
    folder = find_inference_folder(source)
    description = folder / "hyperparams.yaml"
    if not description.is_file():
        raise UserError(
            f"{description}: missing; an inference folder needs it beside "
            "the checkpoints, export the model again."
        )
    # Building modules draws random numbers: the caller's stream must not
    # depend on whether there is a teacher.
    with torch.random.fork_rng(devices=[]):
        hparams = _build(description)
    for key in MODEL_KEYS:
        if key not in hparams:
            raise UserError(
                f"{description}: the key `{key}` is missing; SpeechBrain's "
                "speaker models have it, export the model again."
            )
    sample_rate = hparams.get("sample_rate", 16000)
    try:
        check_features(
            hparams["compute_features"], hparams["mean_var_norm"], sample_rate
        )
    except UserError as error:
        raise UserError(f"{description}: {error}") from error
    if has_statistics(hparams["mean_var_norm"]):
        _load_statistics(hparams["mean_var_norm"], folder / STATISTICS_FILE)
    _load_strictly(hparams["embedding_model"], folder / "embedding_model.ckpt")
    classifier = hparams.get("classifier")
    classifier_file = folder / "classifier.ckpt"
    if not hasattr(classifier, "weight") or not classifier_file.is_file():
        # None, or one that ends in a softmax as the x-vector's: no cosines.
        classifier = None
    else:
        _load_strictly(classifier, classifier_file)
    speakers = _read_speakers(folder)
    if classifier is not None and len(speakers) != len(classifier.weight):
        raise UserError(
            f"{folder}: the label encoder names {len(speakers)} speakers but "
            f"the classifier has {len(classifier.weight)}; these files are "
            "of different models, export the model again."
        )
    model = SpeakerModel(
        hparams["compute_features"],
        hparams["mean_var_norm"],
        hparams["embedding_model"],
        classifier,
        speakers,
        sample_rate,
        source,
        read_names(folder / TEACHER_SPEAKERS),
    )
    return model.to(device)


def _build(description):
    """Build the modules that an inference folder's YAML describes."""
    try:
        with open(description, encoding="utf-8") as stream:
            # A hub model's own paths are not needed: the files are here.
            return load_hyperpyyaml(stream) or {}
    except Exception as error:
        # YAML, imports and constructors raise many types.
        reason = " ".join(" ".join(map(str, error.args)).split())
        raise UserError(
            f"{description}: cannot be read as a model's description "
            f"({type(error).__name__}: {reason}); export the model again."
        ) from error


def _load_statistics(mean_var_norm, path):
    """Load the statistics of a global normalisation, or say what is wrong."""
    state = _load_dict(path)
    missing = {"count", "glob_mean", "glob_std"} - set(state)
    if missing:
        raise UserError(
            f"{path}: no statistics of a normalisation ({min(missing)} is "
            "missing); export the model again."
        )
    finite = all(
        value.numel() and torch.isfinite(value).all()
        for value in (state["glob_mean"], state["glob_std"])
    )
    if not finite:
        raise UserError(
            f"{path}: the statistics are empty, NaN or infinite; train and "
            "export the model again."
        )
    mean_var_norm._load_statistics_dict(state)


def _load_dict(path):
    """Read a checkpoint that holds a dict."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: missing; export the model again.") from None
    except Exception as error:
        # torch.load raises many types for a truncated or foreign file.
        raise UserError(
            f"{path}: not a readable checkpoint ({type(error).__name__}); "
            "the file is broken or cut short, train or export it again."
        ) from error
    if not isinstance(state, dict):
        raise UserError(
            f"{path}: not a readable checkpoint (it holds a "
            f"{type(state).__name__}); expected a module's state dict."
        )
    return state


def _load_strictly(module, path):
    """Load a state dict and raise if keys or shapes differ, or on NaN."""
    state = _load_dict(path)
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()
        raise UserError(
            f"{path}: does not fit the model in hyperparams.yaml ({first}); "
            "give the folder whose checkpoint and YAML belong together."
        ) from error
    for name, value in state.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise UserError(
                f"{path}: `{name}` holds NaN or infinite values; the training "
                "diverged, train again with a lower learning rate."
            )


def _read_speakers(folder):
    """Return the label encoder's names in index order; [] if there is none."""
    for name in LABEL_FILES:
        path = folder / name
        if path.is_file():
            encoder = CategoricalEncoder()
            try:
                encoder.load(path)
                return [encoder.ind2lab[i] for i in range(len(encoder))]
            except (KeyError, SyntaxError, ValueError) as error:
                raise UserError(
                    f"{path}: not a readable label encoder; the file is "
                    "broken or cut short, export the model again."
                ) from error
    return []


def write_names(path, names):
    """Write names, one a line, whole or not at all."""
    path = Path(path)
    building = path.with_name(f"{path.name}.tmp")
    text = "".join(f"{name}\n" for name in names)
    building.write_text(text, encoding="utf-8")
    building.replace(path)


def read_names(path):
    """Return the names in a file, one a line; [] if there is no file."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: not a readable text file with a speaker a line; export "
            "the model again."
        ) from error


def load_teacher(source, speakers, classes="classifier", prototypes=None):
    """Load a teacher for a student with the given speakers.

    Arguments
    ---------
    source : str or Path
        See :func:`load_speaker_model`.
    speakers : list of str
        The student's speakers, in the order of its classifier.
    classes : str
        ``classifier``: rows of the teacher's own classifier, by name.
        ``prototypes``: mean teacher embeddings of the training utterances.
    prototypes : callable, optional
        ``prototypes(model)``: (speakers, dim), see :func:`kept_prototypes`;
        called with the classes ``prototypes`` only.

    Returns
    -------
    teacher : Teacher

    Raises
    ------
    UserError
        If ``classes`` is neither of the two, or a speaker has no class.
    """
    model = load_speaker_model(source)
    if classes == "classifier":
        return Teacher(model, speakers)
    if classes == "prototypes":
        return Teacher(model, speakers, prototypes(model))
    raise UserError(
        f"teacher_classes: {classes!r} is not known; give `classifier` or "
        "`prototypes`."
    )
