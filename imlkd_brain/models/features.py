"""Reads the rate, hop and statistics of features, and checks them.

Authors: IML-KD contributors
"""

from contextlib import contextmanager

import torch

from imlkd_brain.errors import UserError
from speechbrain.processing.features import STFT

TOO_SHORT_SECONDS = 0.5  # below this, a network may lack frames

_SEQUENCES = (list, tuple)
_PLAIN = (bool, int, float, str)
# Settings of a feature module that do not change what it computes.
_STATISTICS = ("glob_mean", "glob_std")  # of a normalisation, compared apart
_IRRELEVANT = ("training", "device", "count", "update_until_epoch")


def hop_samples(compute_features, sample_rate):
    """Return the number of samples from one frame to the next.

    Arguments
    ---------
    compute_features : torch.nn.Module
        Waveforms (batch, samples) to features (batch, time, mel).
    sample_rate : int
        In Hz.

    Returns
    -------
    int

    Example
    -------
    >>> from speechbrain.lobes.features import Fbank
    >>> hop_samples(Fbank(), 16000)
    160
    >>> hop_samples(Fbank(sample_rate=8000, hop_length=20), 8000)
    160
    """
    stft = _stft(compute_features)
    if stft is not None:
        return stft.hop_length
    # Other features: how many frames do 20 s have more than 10 s?
    n_samples = 10 * sample_rate
    with torch.no_grad():
        short, long = [
            compute_features(torch.zeros(1, n)).shape[1]
            for n in (n_samples, 2 * n_samples)
        ]
    return int(round(n_samples / (long - short)))


def window_samples(compute_features):
    """Return the samples of a frame's window; 1 where that is not known.

    Arguments
    ---------
    compute_features : torch.nn.Module
        Waveforms (batch, samples) to features (batch, time, mel).

    Returns
    -------
    int

    Example
    -------
    >>> from speechbrain.lobes.features import Fbank
    >>> window_samples(Fbank())
    400
    """
    stft = _stft(compute_features)
    return 1 if stft is None else int(stft.win_length)


def refuse_too_short(error, path, seconds, source):
    """Explain a network's complaint about a file that is too short for it.

    A network that pads by reflection needs some frames; it does not say so.

    Arguments
    ---------
    error : RuntimeError
        What the network said.
    path : str
        The file.
    seconds : float
        What the network got of it.
    source : str
        The model.

    Raises
    ------
    UserError
        If the file is short, and names it. Else nothing is raised.
    """
    if seconds < TOO_SHORT_SECONDS:
        raise UserError(
            f"{path}: {1000 * seconds:.0f} ms of speech are too few for the "
            f"network of {source} ({str(error).splitlines()[0]}); take it out "
            "of the folder, list or CSV that names it."
        ) from error


@contextmanager
def named_if_too_short(batch, sample_rate):
    """Name the longest utterance of a batch that a network cannot embed.

    Arguments
    ---------
    batch : speechbrain.dataio.batch.PaddedBatch
        With ``utterance`` and ``sig``, (samples,) each, padded.
    sample_rate : int
        In Hz.

    Raises
    ------
    UserError
        See :func:`refuse_too_short`.
    """
    try:
        yield
    except RuntimeError as error:
        signals, lens = batch.sig
        seconds = signals.shape[1] / sample_rate
        name = batch.utterance[int(lens.argmax())]
        refuse_too_short(error, name, seconds, "the student")
        raise


def frame_rate(compute_features, sample_rate):
    """Return the number of frames per second.

    Arguments
    ---------
    compute_features : torch.nn.Module
        Waveforms (batch, samples) to features (batch, time, mel).
    sample_rate : int
        In Hz.

    Returns
    -------
    float

    Example
    -------
    >>> from speechbrain.lobes.features import Fbank
    >>> frame_rate(Fbank(sample_rate=8000), 8000)
    100.0
    >>> frame_rate(Fbank(hop_length=12.5), 16000)
    80.0
    """
    return sample_rate / hop_samples(compute_features, sample_rate)


def check_features(compute_features, mean_var_norm, sample_rate):
    """Refuse features that do not fit the audio or the task.

    Arguments
    ---------
    compute_features : torch.nn.Module
        Waveforms (batch, samples) to features (batch, time, mel).
    mean_var_norm : torch.nn.Module
        Normalises features.
    sample_rate : int
        Of the audio, in Hz.

    Raises
    ------
    UserError
        If the sampling rate is no whole number above zero, if the features
        are computed for another one, if their window is longer than their
        Fourier transform, or if the normalisation of an utterance depends on
        the others of its batch.

    Example
    -------
    >>> from speechbrain.lobes.features import Fbank
    >>> check_features(Fbank(sample_rate=8000), None, 8000)
    """
    if (
        not isinstance(sample_rate, int)
        or isinstance(sample_rate, bool)
        or sample_rate < 1
    ):
        raise UserError(
            f"sample_rate: {sample_rate!r} should be a whole number of Hz, "
            "16000 for example."
        )
    stft = _stft(compute_features)
    if stft is not None and stft.sample_rate != sample_rate:
        raise UserError(
            f"compute_features: it computes features of audio at "
            f"{stft.sample_rate} Hz, but sample_rate is {sample_rate}; give "
            "compute_features in the YAML the line `sample_rate: !ref "
            "<sample_rate>`."
        )
    if stft is not None and stft.win_length > stft.n_fft:
        raise UserError(
            f"compute_features: its window has {stft.win_length} samples at "
            f"{sample_rate} Hz, more than n_fft ({stft.n_fft}); give "
            f"`--compute_features '{{n_fft: {stft.win_length}}}'`."
        )
    if getattr(mean_var_norm, "norm_type", None) == "batch":
        raise UserError(
            "mean_var_norm: with norm_type batch an embedding depends on the "
            "other utterances of its batch; give norm_type sentence or global."
        )


def has_statistics(mean_var_norm):
    """Whether a normalisation has statistics of the training data.

    SpeechBrain's ``InputNormalization`` of type global has them in plain
    attributes, which no state dict holds.

    Example
    -------
    >>> from speechbrain.processing.features import InputNormalization
    >>> has_statistics(InputNormalization(norm_type="global"))
    True
    >>> has_statistics(InputNormalization(norm_type="sentence"))
    False
    """
    return getattr(mean_var_norm, "norm_type", None) == "global"


def other_features(teacher, compute_features, mean_var_norm, sample_rate):
    """Say in what a teacher's features differ from the student's.

    Arguments
    ---------
    teacher : imlkd_brain.models.speaker_model.SpeakerModel
        The teacher.
    compute_features : torch.nn.Module
        The student's features.
    mean_var_norm : torch.nn.Module
        The student's normalisation.
    sample_rate : int
        Of the student's audio, in Hz.

    Returns
    -------
    str or None
        The first difference with both values; None if the features are the
        same, so that teacher and student can share them.
    """
    if teacher.sample_rate != sample_rate:
        return f"{teacher.sample_rate} Hz, the student's: {sample_rate} Hz"
    if has_statistics(teacher.mean_var_norm) or has_statistics(mean_var_norm):
        return "norm_type global: each has statistics of its own"
    found = feature_difference(teacher, compute_features, mean_var_norm)
    return None if found is None else f"{found[0]}: {found[1]}"


def feature_difference(model, compute_features, mean_var_norm):
    """Return the first setting in which a model's features differ.

    Arguments
    ---------
    model : imlkd_brain.models.speaker_model.SpeakerModel
        A trained model.
    compute_features : torch.nn.Module
        The student's features.
    mean_var_norm : torch.nn.Module
        The student's normalisation.

    Returns
    -------
    tuple of str or None
        ``compute_features`` or ``mean_var_norm``, and the setting with both
        values. None if the features are the same.
    """
    for key, theirs, ours in (
        ("compute_features", model.compute_features, compute_features),
        ("mean_var_norm", model.mean_var_norm, mean_var_norm),
    ):
        difference = _difference(theirs, ours)
        if difference is not None:
            return key, difference
    return None


def plain_settings(module):
    """Return the plain values that a module was built with, by name.

    Example
    -------
    >>> plain_settings(torch.nn.Dropout(0.5))
    [('inplace', False), ('p', 0.5), ('training', True)]
    """
    return sorted(
        (name, value)
        for name, value in vars(module).items()
        if _is_plain(value) and not name.startswith("_")
    )


def _is_plain(value):
    """Whether a value's text is the same in every process."""
    if isinstance(value, _SEQUENCES):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, _PLAIN)


def _difference(theirs, ours):
    """The first difference of the teacher's module and the student's."""
    described = []
    for module in (theirs, ours):
        described.append(
            {
                f"{place}.{name}".lstrip("."): value
                for place, part in module.named_modules()
                for name, value in [
                    ("type", type(part).__name__),
                    *plain_settings(part),
                ]
                if name not in _IRRELEVANT
            }
        )
    for name in sorted({*described[0], *described[1]}):
        values = [side.get(name, "none") for side in described]
        if values[0] != values[1]:
            return f"{name}: {values[0]}, the student's: {values[1]}"
    states = [_tensors(module) for module in (theirs, ours)]
    for name in sorted({*states[0], *states[1]}):
        nothing = torch.empty(0)
        values = [side.get(name, nothing).cpu() for side in states]
        if not torch.equal(*values):
            return f"other values of {name}"
    return None


def _tensors(module):
    """State dict, and tensors that it leaves out: SpeechBrain's windows."""
    found = module.state_dict()
    for place, part in module.named_modules():
        for name, value in vars(part).items():
            if isinstance(value, torch.Tensor) and name not in _STATISTICS:
                found[f"{place}.{name}".lstrip(".")] = value
    return found


def _stft(compute_features):
    """The short-time Fourier transform in a feature module, or None."""
    for module in compute_features.modules():
        if isinstance(module, STFT):
            return module
    return None
