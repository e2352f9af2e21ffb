"""Guards against NaN and infinity in a training.

Authors: IML-KD contributors
"""

import itertools

import torch

from imlkd_brain.distributed import names_of_all, true_in_all
from imlkd_brain.errors import UserError
from imlkd_brain.models.features import has_statistics
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)

N_NAMED = 3  # utterances that a sentence names


class FiniteGuard:
    """Sees batches that are not finite, and takes back what they changed.

    A batch that the optimiser skips, in fp16 or by ``--skip_nonfinite_grads``,
    would otherwise live on in BatchNorm.

    Arguments
    ---------
    modules : torch.nn.ModuleDict
        The Brain's modules, ``mean_var_norm`` among them.

    Example
    -------
    >>> from speechbrain.processing.features import InputNormalization
    >>> norm = torch.nn.BatchNorm1d(2)
    >>> guard = FiniteGuard(
    ...     torch.nn.ModuleDict({"n": norm, "mean_var_norm": InputNormalization()})
    ... )
    >>> guard.before_batch(["a"])
    >>> _ = norm(torch.full((2, 2), torch.nan))
    >>> guard.are_finite(torch.zeros(()), update=0)
    (True, False)
    >>> guard.take_back()
    >>> norm.running_mean
    tensor([0., 0.])
    """

    def __init__(self, modules):
        self.modules = modules
        self.first = None

    def before_batch(self, names):
        """Keep the statistics and the utterances' names of a batch."""
        self.names = names
        norm = self.modules["mean_var_norm"]
        self.kept = (
            [buffer.clone() for buffer in self.modules.buffers()],
            {name: getattr(norm, name) for name in self._global()},
        )

    def are_finite(self, loss, update):
        """Whether the loss is finite, and what the batch left in buffers.

        Processes that train together share the update, so what one of them
        finds holds for all: they leave the batch out, or stop, together.

        Arguments
        ---------
        loss : torch.Tensor
            Scalar.
        update : int
            Updates done so far, for the log.

        Returns
        -------
        loss_isfinite : bool
            Whether the loss is.
        batch_isfinite : bool
            Whether the loss and all buffers are.
        """
        values = [loss.detach(), *dict(self._statistics()).values()]
        # One test of all: each would wait for the GPU.
        joined = torch.cat([value.float().flatten() for value in values])
        own = bool(joined.isfinite().all())
        loss_isfinite, batch_isfinite = true_in_all(
            [own or bool(loss.isfinite()), own], loss.device
        )
        if not batch_isfinite:
            names = names_of_all([] if own else self.names)
            logger.warning(
                f"Update {update}: NaN or infinity in the batch of "
                f"{', '.join(names)}. BatchNorm's statistics and "
                "train_stats.csv leave it out."
            )
            if self.first is None:
                self.first = update, names
        return loss_isfinite, batch_isfinite

    def take_back(self):
        """Restore the running statistics from before the batch."""
        buffers, statistics = self.kept
        with torch.no_grad():
            for buffer, value in zip(self.modules.buffers(), buffers):
                buffer.copy_(value)
        for name, value in statistics.items():
            setattr(self.modules["mean_var_norm"], name, value)

    def check_modules(self, update):
        """Stop where a module holds NaN: a run would go on from it."""
        for name, value in itertools.chain(
            self.modules.named_parameters(), self._statistics()
        ):
            if not value.isfinite().all():
                raise UserError(self.diverged(name, update))

    def diverged(self, what, update):
        """Return the sentence for a training that has diverged."""
        where = ""
        if self.first is not None:
            began, names = self.first
            more = len(names) - N_NAMED
            where = (
                f" (first at update {began}, in the batch of "
                f"{', '.join(names[:N_NAMED])}"
                + (f" and {more} more that the log names)" if more > 0 else ")")
            )
        return (
            f"{what} is not finite at update {update}{where}; "
            "lower lr or eta in another output_folder, or mend the audio and "
            "run again: it goes on from the last checkpoint."
        )

    def _global(self):
        """Names of a global normalisation's statistics; they are no buffers."""
        if has_statistics(self.modules["mean_var_norm"]):
            return "count", "glob_mean", "glob_std"
        return ()

    def _statistics(self):
        """Name and value of all that a forward pass in training changes."""
        yield from self.modules.named_buffers()
        for name in self._global():
            value = getattr(self.modules["mean_var_norm"], name)
            if isinstance(value, torch.Tensor):
                yield f"mean_var_norm.{name}", value


def check_valid(utterances, finite):
    """Stop where the model's answer to a validation utterance is not finite.

    Arguments
    ---------
    utterances : list of str
        Their names.
    finite : torch.Tensor
        Whether each answer is finite, bool, one per utterance.

    Raises
    ------
    UserError
        Naming the first utterance.

    Example
    -------
    >>> check_valid(["a", "b"], torch.tensor([True, True]))
    """
    if finite.all():
        return
    name = utterances[int(torch.nonzero(~finite)[0])]
    raise UserError(
        f"{name}: the model's answer to this validation utterance is "
        "NaN or infinite, so no dev figure can be trusted; lower lr "
        "or eta in another output_folder, or evaluate in fp32 "
        "(`--eval_precision fp32`) and run again: it goes on from the "
        "last checkpoint."
    )
