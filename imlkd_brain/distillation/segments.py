"""Random segments of training chunks, of various durations.

Authors: IML-KD contributors
"""

from dataclasses import dataclass

import torch

from imlkd_brain.distillation.attribution import check_positive_integer
from imlkd_brain.schema import list_of, number
from imlkd_brain.values import check_value

# A key of the YAML.
DURATIONS = list_of(
    number("Seconds.", above=0, high=3600),
    "Seconds of a segment, of which one is drawn for each batch.",
    example="[1.0, 2.0, 3.0]",
)


@dataclass
class Segment:
    """Random crops of a batch's utterances.

    Arguments
    ---------
    features : torch.Tensor
        Shape (B, frames, F), mean zero over time.
    seconds : float
        The duration that was drawn for the batch.
    start : torch.Tensor
        First frame of each crop in its utterance, shape (B,), int64.
    """

    features: torch.Tensor
    seconds: float
    start: torch.Tensor


def random_segments(feats, n_frames, generator=None):
    """A random crop of each utterance, mean-normalised again over its time.

    Arguments
    ---------
    feats : torch.Tensor
        Shape (B, T, F).
    n_frames : int
        Length of the crops; with ``n_frames >= T`` the crop is the utterance.
    generator : torch.Generator, optional
        Source of the starts, uniform over those that fit, one per item.

    Returns
    -------
    segments : torch.Tensor
        Shape (B, min(n_frames, T), F), mean zero over time.
    start : torch.Tensor
        First frame of each, shape (B,), int64.

    Raises
    ------
    UserError
        For fewer than one frame.

    Example
    -------
    >>> segments, start = random_segments(torch.rand(4, 200, 80), 100)
    >>> segments.shape, start.shape
    (torch.Size([4, 100, 80]), torch.Size([4]))
    """
    check_positive_integer("n_frames", n_frames)
    length = feats.shape[1]
    if n_frames < length:
        starts = torch.randint(
            length - n_frames + 1,
            (len(feats), 1),
            generator=generator,
            device=generator.device if generator is not None else "cpu",
        ).to(feats.device, non_blocking=True)
    else:
        starts = torch.zeros(
            len(feats), 1, dtype=torch.int64, device=feats.device
        )
    n_frames = min(n_frames, length)
    frames = starts + torch.arange(n_frames, device=feats.device)
    return segments_at(feats, frames), starts.squeeze(1)


def segments_at(feats, frames):
    """Given frames of each utterance, mean-normalised over their time.

    Arguments
    ---------
    feats : torch.Tensor
        Shape (B, T, F).
    frames : torch.Tensor
        Which frames of each, shape (B, frames), int64.

    Returns
    -------
    torch.Tensor
        Shape (B, frames, F), mean zero over time.

    Example
    -------
    >>> segments_at(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[0, 1]]))
    tensor([[[-1.],
             [ 1.]]])
    """
    items = torch.arange(len(feats), device=feats.device)[:, None]
    segments = feats[items, frames]
    return segments - segments.mean(1, keepdim=True)


def draw_duration(durations, generator=None):
    """One of the durations, each equally likely.

    Arguments
    ---------
    durations : list of float
        Seconds.
    generator : torch.Generator, optional
        Source of the draw.

    Returns
    -------
    float
        Seconds.

    Raises
    ------
    UserError
        For an empty list or a duration that is not positive.

    Example
    -------
    >>> draw_duration([2.0])
    2.0
    """
    check_durations(durations)
    index = torch.randint(
        len(durations),
        (),
        generator=generator,
        device=generator.device if generator is not None else "cpu",
    )
    return float(durations[int(index)])


def check_durations(durations):
    """Refuse an empty list and durations that are not positive numbers.

    Arguments
    ---------
    durations : list of float
        Seconds.

    Raises
    ------
    UserError
        In one sentence that names the key.

    Example
    -------
    >>> check_durations([1.0, 2.0])
    """
    check_value("durations", durations, DURATIONS)
