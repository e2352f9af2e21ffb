"""Scores whole trial lists with one model: embed, normalise, compare.

Authors: IML-KD contributors
"""

import torch

from imlkd_brain.data.crops import crop_name
from imlkd_brain.verification.embeddings import EmbeddingStore, embed_utterances
from imlkd_brain.verification.scoring import (
    cohort_statistics,
    enrol_models,
    normalise_scores,
    score_trials,
)


class Scorer:
    """Scores of trial lists by one model, every embedding computed once.

    Arguments
    ---------
    model : SpeakerModel
        On the device to use.
    embed : callable
        ``embed(model, paths, seconds)`` gives embeddings (N, D) and seconds
        of speech (N,); :func:`embed_utterances` with a store and options.
    crop_enrolment : bool
        Crop the enrolment side too, not the test side alone.
    cohort : sequence of str
        Files of the cohort, embedded whole.
    subtract_mean : bool
        Subtract the cohort's mean embedding from all embeddings.
    score_norm : str, optional
        One of ``z-norm``, ``t-norm``, ``s-norm``, ``as-norm``.
    cohort_top : int
        Highest cohort scores that ``as-norm`` uses.
    """

    def __init__(
        self,
        model,
        embed,
        crop_enrolment=False,
        cohort=(),
        subtract_mean=False,
        score_norm=None,
        cohort_top=300,
    ):
        self.model = model
        self.embed = embed
        self.crop_enrolment = crop_enrolment
        self.score_norm = score_norm
        self.top = cohort_top if score_norm == "as-norm" else None
        self.mean, self.cohort = None, None
        if cohort:
            self.cohort, _ = self._embed(list(cohort), None)
            if subtract_mean:
                self.mean = self.cohort.mean(dim=0)
                self.cohort = self.cohort - self.mean

    def score(self, located, seconds=None):
        """Score a list at one duration of test speech.

        Arguments
        ---------
        located : LocatedTrials
            The list.
        seconds : float, optional
            Length of the crop; whole utterances without it.

        Returns
        -------
        scores : torch.Tensor
            (P,), on the CPU.
        speech : tuple of torch.Tensor
            Seconds of speech on the enrolment and the test side, (P,) each.
        """
        pairs = located.pairs
        flat = [file for files in located.enrol_files for file in files]
        members, end = [], 0
        for files in located.enrol_files:
            members.append(list(range(end, end + len(files))))
            end += len(files)
        crop = seconds if self.crop_enrolment else None
        enrol, enrol_speech = self._embed(flat, crop)
        test, test_speech = self._embed(located.test_files, seconds)
        if self.mean is not None:
            enrol, test = enrol - self.mean, test - self.mean
        enrol = enrol_models(enrol, members)
        scores = score_trials(enrol, test, pairs)
        if self.score_norm:
            scores = normalise_scores(
                scores,
                pairs,
                cohort_statistics(enrol, self.cohort, self.top),
                cohort_statistics(test, self.cohort, self.top),
                self.score_norm,
            )
        enrol_speech = torch.stack([enrol_speech[m].sum() for m in members])
        speech = enrol_speech[pairs[:, 0]], test_speech[pairs[:, 1]]
        return scores.cpu(), speech

    def _embed(self, files, seconds):
        """Embeddings on the model's device, and seconds of speech."""
        embeddings, speech = self.embed(self.model, files, seconds)
        return embeddings.to(next(self.model.parameters()).device), speech


def make_embedder(hparams):
    "Embeds files at a duration, with a store for each model and duration."
    stores = {}

    def embed(model, paths, seconds):
        crop = crop_name(seconds, hparams["seed"])
        if hparams["allow_tf32"]:
            # Kept apart: the store may be shared with runs in full float32.
            crop += "-tf32"
        if (model.key, crop) not in stores:
            stores[model.key, crop] = EmbeddingStore(
                hparams["embedding_store"], model.key, crop
            )
        return embed_utterances(
            model,
            paths,
            stores[model.key, crop],
            seconds=seconds,
            seed=hparams["seed"],
            max_batch_seconds=hparams["max_batch_seconds"],
            max_padding_seconds=hparams["max_padding_seconds"],
            readers=hparams["readers"],
        )

    return embed
