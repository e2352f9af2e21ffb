"""A gallery: enrolled speakers in one file, and who of them speaks.

The file is an ``.npz`` without pickle: a row for each recording, with its name,
embedding, seconds, file and the SHA-256 of the file, and the fingerprint of the
model that embedded them all.

Authors: IML-KD contributors
"""

import os
from dataclasses import dataclass, field

import numpy as np
import torch

from imlkd_brain.errors import UserError
from imlkd_brain.files import in_place_of
from imlkd_brain.verification.scoring import enrol_models, unit_length

COLUMNS = ("names", "embeddings", "seconds", "files", "hashes")


@dataclass
class Gallery:
    """Enrolled recordings of several speakers.

    Arguments
    ---------
    fingerprint : str
        Of the model, see :func:`imlkd_brain.models.decision.fingerprint`.
    names : list of str
        The speaker of each recording.
    embeddings : list of torch.Tensor
        (D,) each.
    seconds : list of float
        Duration of each.
    files : list of str
        File of each, as it was given.
    hashes : list of str
        SHA-256 of each file.

    Example
    -------
    >>> gallery = Gallery("m")
    >>> gallery.add("anna", torch.tensor([1.0, 0.0]), 3.0, "a.wav", "1")
    >>> gallery.add("bert", torch.tensor([0.0, 2.0]), 3.0, "b.wav", "2")
    >>> gallery.scores(torch.tensor([0.0, 1.0]))
    [('bert', 1.0), ('anna', 0.0)]
    """

    fingerprint: str
    names: list = field(default_factory=list)
    embeddings: list = field(default_factory=list)
    seconds: list = field(default_factory=list)
    files: list = field(default_factory=list)
    hashes: list = field(default_factory=list)

    def add(self, name, embedding, seconds, file, digest):
        """Add a recording of a speaker."""
        for column, value in zip(
            COLUMNS, (name, embedding, seconds, file, digest), strict=True
        ):
            getattr(self, column).append(value)

    def owner(self, digest):
        """The speaker of a file that is enrolled already, or None."""
        if digest in self.hashes:
            return self.names[self.hashes.index(digest)]
        return None

    def forget(self, name):
        """Take out the recordings of a speaker."""
        kept = [i for i, other in enumerate(self.names) if other != name]
        for column in COLUMNS:
            values = getattr(self, column)
            setattr(self, column, [values[i] for i in kept])

    def counts(self):
        """Number of recordings of each speaker, by name."""
        return {name: self.names.count(name) for name in sorted({*self.names})}

    def scores(self, embedding):
        """Score an embedding against every speaker.

        Arguments
        ---------
        embedding : torch.Tensor
            (D,).

        Returns
        -------
        list of (str, float)
            Names with cosines, the highest first. A speaker is the mean of
            the unit-length embeddings of its recordings.
        """
        names = sorted({*self.names})
        members = [
            [i for i, other in enumerate(self.names) if other == name]
            for name in names
        ]
        enrolled = enrol_models(torch.stack(self.embeddings), members)
        cosines = unit_length(enrolled) @ unit_length(embedding)
        pairs = zip(names, cosines.tolist(), strict=True)
        return sorted(pairs, key=lambda pair: -pair[1])

    def write(self, path):
        """Write the gallery, whole or not at all."""
        with in_place_of(path) as temporary, open(temporary, "wb") as stream:
            np.savez(
                stream,
                fingerprint=np.array(self.fingerprint),
                names=np.array(self.names, dtype=str),
                embeddings=torch.stack(self.embeddings).numpy(),
                seconds=np.array(self.seconds, dtype=np.float32),
                files=np.array(self.files, dtype=str),
                hashes=np.array(self.hashes, dtype=str),
            )


def read_gallery(path, fingerprint=None):
    """Read a gallery.

    Arguments
    ---------
    path : str or Path
        The file.
    fingerprint : str, optional
        Of the model that it must be of.

    Returns
    -------
    Gallery

    Raises
    ------
    UserError
        If it is missing, broken or of another model.
    """
    if not os.path.isfile(path):
        raise UserError(
            f"{path}: there is no such gallery; make it with `imlkd enrol NAME "
            f"FILES --gallery {path}`."
        )
    try:
        with np.load(path, allow_pickle=False) as arrays:
            gallery = Gallery(
                str(arrays["fingerprint"]),
                arrays["names"].tolist(),
                list(torch.from_numpy(arrays["embeddings"])),
                arrays["seconds"].tolist(),
                arrays["files"].tolist(),
                arrays["hashes"].tolist(),
            )
        lengths = {len(getattr(gallery, column)) for column in COLUMNS}
        if len(lengths) != 1 or not lengths - {0}:
            raise ValueError("its columns differ in length or are empty")
        if gallery.embeddings[0].ndim != 1:
            raise ValueError("its embeddings are no vectors")
        if not torch.isfinite(torch.stack(gallery.embeddings)).all():
            raise ValueError("an embedding is not finite")
    except Exception as error:
        # A cut or foreign file raises one of many types, zipfile's and numpy's.
        raise UserError(
            f"{path}: this file is no gallery, or a damaged one; give one that "
            "`imlkd enrol` wrote, or enrol its speakers in another file."
        ) from error
    if fingerprint is not None and gallery.fingerprint != fingerprint:
        raise UserError(
            f"{path}: this gallery was made with another model, whose "
            "embeddings cannot be compared with this one's; give that model "
            "with --model, or enrol its speakers again in another gallery."
        )
    return gallery
