"""A teacher with features of its own: other mels, window, hop or rate.

The student's features of a batch are of no use to such a teacher. It is given
the same waveforms, computes its own features, and the weights that its
attribution gives to its frames are carried over to the student's frames.

Authors: IML-KD contributors
"""

import torch
import torchaudio

from imlkd_brain.errors import UserError

# Of integrated inputs: weights of frames carry over.
MODES = ("time_gate", "reversed_gate", "identity")


class FrontEnd(torch.nn.Module):
    """The teacher's features of the waveforms that the student hears.

    Arguments
    ---------
    teacher : imlkd_brain.models.speaker_model.SpeakerModel
        Its ``features`` turns waveforms into features (batch, time, mel).
    sample_rate : int
        Of the waveforms, in Hz. They are resampled where the teacher was
        trained at another rate.

    Example
    -------
    >>> from types import SimpleNamespace
    >>> teacher = SimpleNamespace(
    ...     sample_rate=8000,
    ...     hop_samples=80,
    ...     features=lambda wavs: wavs.unfold(1, 80, 80),
    ... )
    >>> FrontEnd(teacher, 16000)(torch.randn(2, 16000)).shape
    torch.Size([2, 100, 80])
    """

    def __init__(self, teacher, sample_rate):
        super().__init__()
        self.features = teacher.features
        self.frame_rate = teacher.sample_rate / teacher.hop_samples
        self.resample = torch.nn.Identity()
        if teacher.sample_rate != sample_rate:
            self.resample = torchaudio.transforms.Resample(
                sample_rate, teacher.sample_rate
            )

    def check(self, mode):
        """Refuse a mode of integrated inputs that changes single mel bands.

        Arguments
        ---------
        mode : str
            Of :class:`imlkd_brain.distillation.integrated_inputs.IntegratedInputs`.

        Raises
        ------
        UserError
            For a mode that is not one of ``MODES``.
        """
        if mode not in MODES:
            raise UserError(
                f"mode: {mode} weighs the teacher's mel bands, but this "
                "teacher has other features than the student, so only weights "
                f"of frames carry over; give `--mode {MODES[0]}`."
            )

    @torch.no_grad()
    def forward(self, wavs):
        """Return the teacher's features (batch, time, mel) of (batch, samples).

        Each item's features are those that it has alone: torchaudio's MFCCs,
        for one, cut what is 80 dB below the loudest of a batch. One by one
        takes no longer on a CPU.
        """
        alone = wavs.float().unsqueeze(1)
        return torch.cat([self.features(self.resample(wav)) for wav in alone])


def carried_weights(weights, n_frames, frame_rate, other_rate):
    """Weights of one model's frames at the frames of another.

    The frames of both models are taken to lie evenly, and in the middle of
    the signal: the first and the last are equally far from its ends. That is
    right within half a hop for centred and for whole windows. Weights in
    between are interpolated linearly; frames beyond the first or last weight
    get that weight. The result is scaled to the mean of ``weights``, so that
    the student's features keep their level.

    Arguments
    ---------
    weights : torch.Tensor
        (batch, frames), a weight for each frame of the one model.
    n_frames : int
        Frames of the other model for the same signal.
    frame_rate : float
        Frames per second of ``weights``.
    other_rate : float
        Frames per second of the other model.

    Returns
    -------
    carried : torch.Tensor
        (batch, n_frames).

    Example
    -------
    >>> carried_weights(torch.tensor([[0.0, 2.0]]), 4, 50.0, 100.0)
    tensor([[0.0000, 0.5000, 1.5000, 2.0000]])
    """
    carried = at_frames(weights, n_frames, frame_rate, other_rate)
    mean = carried.mean(1, keepdim=True)
    scale = weights.mean(1, keepdim=True) / mean
    # Weights that are zero at all of the other model's frames stay zero.
    return torch.where(mean > 0, carried * scale, carried)


def at_frames(values, n_frames, frame_rate, other_rate):
    """Interpolate what one model's frames have at the frames of another.

    Arguments
    ---------
    values : torch.Tensor
        (batch, frames), a value for each frame of the one model.
    n_frames, frame_rate, other_rate
        See :func:`carried_weights`.

    Returns
    -------
    torch.Tensor
        (batch, n_frames).
    """
    last = values.shape[1] - 1
    # float64: thousands of frames from the middle, a share is still exact.
    frames = torch.arange(n_frames, dtype=torch.float64, device=values.device)
    place = (frames - (n_frames - 1) / 2) * (frame_rate / other_rate)
    place = (place + last / 2).clamp(0, last)
    before = place.floor().long()
    after = (before + 1).clamp(max=last)
    share = (place - before).to(values.dtype)
    return values[:, before] * (1 - share) + values[:, after] * share
