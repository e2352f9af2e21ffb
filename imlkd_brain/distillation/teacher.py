"""A frozen teacher, and its classes in the order of the student's.

Authors: IML-KD contributors
"""

import hashlib
import os
from pickle import UnpicklingError

import torch
from torch.nn.functional import normalize
from tqdm import tqdm

from imlkd_brain.errors import UserError
from imlkd_brain.files import in_place_of
from imlkd_brain.models.folder import load_speaker_model
from imlkd_brain.models.speaker_model import SpeakerModel
from imlkd_brain.precision import full_float32
from speechbrain.dataio.dataloader import make_dataloader
from speechbrain.utils.distributed import run_on_main


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
        with in_place_of(path) as temporary:
            torch.save({"key": key, "prototypes": prototypes}, temporary)
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
