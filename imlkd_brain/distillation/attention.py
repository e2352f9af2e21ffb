"""The student's attention in its pooling, drawn to the teacher's time weights.

A term of our own. Integrated Gradients say which frames of a segment the
teacher's score rests on. A student with attentive statistics pooling has
weights of frames too. The term compares the two, and leaves the student's
input as it is.

Authors: IML-KD contributors
"""

import torch
import torch.nn.functional as F

from imlkd_brain.errors import UserError
from speechbrain.lobes.models.ECAPA_TDNN import AttentiveStatisticsPooling


def attention_loss(attention, weights):
    """Attention of each segment: ``mean_i KL(w_i || a_i)`` over time.

    ``w`` are the teacher's time weights, scaled to the sum 1. ``a`` is the
    student's attention: the softmax over time of each channel's scores, mean
    over channels. It is a distribution over time as well.

    Arguments
    ---------
    attention : torch.Tensor
        The student's scores before the softmax, shape (B, channels, T).
    weights : torch.Tensor
        Not negative, shape (B, T). No gradient reaches them.

    Returns
    -------
    torch.Tensor
        Scalar in nats, zero at equality.

    Raises
    ------
    UserError
        If the numbers of frames differ.

    Example
    -------
    >>> weights = torch.tensor([[2.0, 2.0]])
    >>> attention_loss(weights.log()[:, None], weights)
    tensor(0.)
    """
    if attention.shape[-1] != weights.shape[-1]:
        raise UserError(
            f"The student's pooling weighs {attention.shape[-1]} frames of "
            f"segments of {weights.shape[-1]}: the attention term needs a "
            "network that keeps the number of frames; train it with a method "
            "without that term."
        )
    dtype = torch.promote_types(attention.dtype, torch.float32)
    with torch.autocast(attention.device.type, enabled=False):
        scores = torch.log_softmax(attention.to(dtype), dim=2)
        # The logarithm of the mean over channels.
        log_mean = scores.logsumexp(1) - torch.log(
            scores.new_tensor(scores.shape[1])
        )
        weights = F.normalize(weights.detach().to(dtype), p=1, dim=1)
        # xlogy: a frame of weight zero adds zero.
        terms = torch.xlogy(weights, weights) - weights * log_mean
        return terms.sum(1).mean()


class PoolingAttention:
    """Keeps what a student's attentive pooling says of its last input.

    A forward hook reads the scores. SpeechBrain's model stays as it is.

    Arguments
    ---------
    embedding_model : torch.nn.Module
        The student, with one
        ``speechbrain.lobes.models.ECAPA_TDNN.AttentiveStatisticsPooling``.

    Raises
    ------
    UserError
        If it has none, or several.

    Example
    -------
    >>> from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
    >>> student = ECAPA_TDNN(20, channels=[8] * 4 + [24], lin_neurons=6)
    >>> attention = PoolingAttention(student)
    >>> _ = student(torch.rand(2, 50, 20))
    >>> attention.take().shape
    torch.Size([2, 24, 50])
    """

    def __init__(self, embedding_model):
        self._scores = None
        pooling = find_pooling(embedding_model)
        pooling.conv.register_forward_hook(self._keep)

    def _keep(self, module, inputs, scores):
        """Keep the output of the pooling's last convolution."""
        self._scores = scores

    def take(self):
        """Return the scores (B, channels, T) of the last input, and forget."""
        scores, self._scores = self._scores, None
        return scores


def find_pooling(embedding_model):
    """Return the attentive pooling of a student.

    Arguments
    ---------
    embedding_model : torch.nn.Module
        The student's network.

    Returns
    -------
    speechbrain.lobes.models.ECAPA_TDNN.AttentiveStatisticsPooling

    Raises
    ------
    UserError
        If there is none, or there are several.

    Example
    -------
    >>> from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
    >>> find_pooling(ECAPA_TDNN(20, channels=[8] * 4 + [24])).conv is not None
    True
    """
    found = [
        module
        for module in embedding_model.modules()
        if isinstance(module, AttentiveStatisticsPooling)
    ]
    if len(found) != 1:
        raise UserError(
            f"embedding_model: the attention term needs a student with one "
            f"attentive statistics pooling, as ECAPA-TDNN has; this one "
            f"({type(embedding_model).__name__}) has {len(found) or 'none'}; "
            "train it with a method without that term."
        )
    return found[0]
