"""The Brain: raw branch, integrated-input branch, three-level objective.

Authors: IML-KD contributors
"""

import math
import random
from dataclasses import replace

import torch
import yaml
from torch.utils.data import DistributedSampler

import speechbrain as sb
from imlkd_brain import distributed
from imlkd_brain.bookkeeping import EpochMeans, log_epoch
from imlkd_brain.distillation.attention import PoolingAttention
from imlkd_brain.distillation.batchnorm import batchnorm_policy
from imlkd_brain.distillation.gradient_shares import gradient_shares
from imlkd_brain.distillation.guidance import Outputs, View
from imlkd_brain.distillation.methods import BRANCHES
from imlkd_brain.distillation.parts import parts_of
from imlkd_brain.errors import UserError
from imlkd_brain.models.features import named_if_too_short
from imlkd_brain.models.folded import without_idle_padding
from imlkd_brain.nonfinite import FiniteGuard, check_valid
from imlkd_brain.precision import full_float32
from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)


@register_checkpoint_hooks
class IMLKDBrain(sb.Brain):
    """Trains a speaker embedding model, with or without a teacher.

    The data flow of a training step::

        sig -> augmentation -> Fbank -> mean norm = x
        x              -> student          -> AAM-softmax
        x              -> teacher          -> terms on the raw branch
        segment x_d    -> teacher IG       -> I(x_d)
        I(x_d)         -> student, teacher -> terms on the integrated branch
        I(x_d), x      -> student, teacher -> terms on the cross branch
        x_d, x         -> student, teacher -> terms on the segment branch

    With no ``objective`` among the hparams, or one whose method has no terms,
    only the first two lines happen. The teacher is in ``hparams.guidance``: it is
    not among the modules, so neither optimiser, checkpoint nor DDP sees it.
    """

    # Of the epoch that a checkpoint was written in, until that epoch goes on.
    recovered = None
    # Of the student, where a term reads it.
    attention = None

    def compute_forward(self, batch, stage):
        """Features to embeddings and cosines, for each branch in use."""
        # Queued like any other work: a blocking copy waits for the GPU.
        batch = batch.to(self.device, non_blocking=True)
        if stage != sb.Stage.TRAIN:
            return self._validate(batch)
        wavs, lens = batch.sig
        if self.hparams.wav_augment is not None:
            self._seed_step()
            wavs, lens = self.hparams.wav_augment(wavs, lens)
        feats = self.modules.compute_features(wavs)
        feats = self.modules.mean_var_norm(feats, lens)
        view = View(wavs, feats, self._target(batch), batch)
        self.parts = self._parts(view.target)
        student = self._student(feats)
        teacher = (None, None)
        if self.needs("raw"):
            teacher = self.guidance.of_chunk(view)
        predictions = {"raw": Outputs(*student, *teacher)}
        if self.distils and self.hparams.objective.cuts_segments:
            cut = view.of_rows(self.parts["segment"].rows)
            self._add_segments(predictions, cut)
        return predictions

    def _add_segments(self, predictions, view):
        """Outputs of the branches on segments, by their names."""
        objective = self.hparams.objective
        teacher = (None, None)
        if self.needs("cross") or self.needs("segment"):
            teacher = self.guidance.of_chunk(view)
        inputs = self.guidance.of_segments(
            view,
            self._seeds(),
            with_gap=self._measuring(),
            integrated=objective.integrates,
            weights=objective.needs_attention,
        )
        if inputs.gap is not None:
            self.means.add("completeness_gap", inputs.gap.abs().mean())
        if objective.integrates:
            cross = self._on_segments(
                inputs.student, teacher, weights=inputs.weights
            )
            predictions["cross"] = cross
            if self.needs("integrated"):
                cosines, embeddings = self.guidance.of_integrated(inputs)
                predictions["integrated"] = replace(
                    cross, teacher=cosines, teacher_embeddings=embeddings
                )
        if self.needs("segment"):
            predictions["segment"] = self._on_segments(
                inputs.plain, teacher, weights=inputs.weights
            )

    def compute_objectives(self, predictions, batch, stage):
        """AAM-softmax on x, plus eta times the weighted distillation terms."""
        if stage != sb.Stage.TRAIN:
            return self._valid_loss(predictions, batch)
        target = self._target(batch)
        labelled = self.parts["raw"].labelled
        loss = self._speaker_loss(predictions["raw"].student, target, labelled)
        shares = {name: part.shares for name, part in self.parts.items()}
        loss = loss * shares["raw"][1]
        if not self.distils:
            self.means.add("loss", loss)
            return loss
        objective = self.hparams.objective
        terms = {}
        for branch in filter(self.needs, BRANCHES):
            chosen = self.parts[branch]
            outputs = predictions[branch].scaled(self.hparams.scale)
            terms.update(
                objective.branch_terms(
                    branch,
                    outputs,
                    chosen.target,
                    self._projection(),
                    step=self.optimizer_step,
                    labelled=chosen.labelled,
                    rows=chosen.counts[0],
                )
            )
        distillation, weighted = objective.weighted(
            terms, self.optimizer_step, shares
        )
        for name, value in terms.items():
            self.means.add(name, value)
            self.means.add(f"{name} weighted", weighted[name])
        if self._measuring():
            self._track_gradient_shares({"loss_ce": loss, **weighted})
        loss = loss + distillation
        self.means.add("loss", loss)
        return loss

    def _speaker_loss(self, cosines, target, labelled=None):
        """AAM-softmax of the utterances that have a label."""
        if labelled is not None:
            self.means.add("labelled_share", len(labelled) / len(target))
            if not len(labelled):
                # In the graph all the same: DDP waits for every gradient.
                return cosines.sum() * 0
            cosines, target = cosines[labelled], target[labelled]
        loss = self.modules.compute_cost(
            cosines.unsqueeze(1), target.unsqueeze(1)
        )
        correct = cosines.detach().argmax(-1) == target
        self.means.add("loss_ce", loss)
        self.means.add("accuracy", correct.float().mean())
        return loss

    @property
    def distils(self):
        """Whether the objective has any distillation term."""
        objective = getattr(self.hparams, "objective", None)
        return objective is not None and objective.needs_teacher

    def needs(self, branch):
        """Whether the objective has a term on a branch."""
        return self.distils and self.hparams.objective.needs(branch)

    def _student(self, feats):
        """Cosines (batch, speakers) and embeddings (batch, dim), float32."""
        embeddings = self.modules.embedding_model(feats).float()
        # Scaled by 30, a cosine in half precision is off by a tenth.
        with full_float32(), torch.autocast(self.device_type, enabled=False):
            cosines = self.modules.classifier(embeddings)
        return cosines.squeeze(1), embeddings.squeeze(1)

    def _on_segments(self, feats, teacher, weights):
        """The student's outputs on segments, beside the teacher's."""
        with batchnorm_policy(
            self.modules.embedding_model, self.hparams.batchnorm
        ):
            student = self._student(feats)
        scores = None if self.attention is None else self.attention.take()
        return Outputs(*student, *teacher, scores, weights)

    def _seeds(self):
        """Seeds of what all processes draw alike, and of what this one does."""
        return self._step_seed(), self._step_seed(distributed.rank())

    def _projection(self):
        """The projection into the teacher's space, where there is one."""
        if "projection" in self.modules:
            return self.modules.projection
        return None

    def _target(self, batch):
        """Speaker indices (batch,), repeated as augmentation repeats items."""
        target = batch.spk_id_encoded.data.squeeze(1)
        if self.hparams.wav_augment is not None:
            target = self.hparams.wav_augment.replicate_labels(target)
        return target

    def _parts(self, target):
        """The utterances that each branch has in this batch."""
        cuts = self.distils and self.hparams.objective.cuts_segments
        return parts_of(
            target,
            self.hparams.integrated_inputs.share if cuts else 1.0,
            self._step_seed(distributed.rank()),
            unlabelled=getattr(self.hparams, "unlabelled_rows", False),
        )

    def _step_seed(self, rank=0):
        """A number that only the seed, the batch and the rank decide.

        Random choices that depend on nothing else are the same for all
        methods at a seed, and the same after an interruption. What is drawn
        for the batches of all processes together takes the rank 0.
        """
        seed = self.hparams.seed * 1_000_003 + self.optimizer_step
        # Which of the batches whose gradients are added up for one update.
        part = (self.step - 1) % self.grad_accumulation_factor
        if not part and not rank:
            return seed
        # Neighbouring numbers are the seeds of other updates.
        return random.Random(f"{seed}/{part}/{rank}").getrandbits(32)

    def _seed_step(self):
        """Seed the generators that SpeechBrain's augmentations draw from."""
        seed = self._step_seed(distributed.rank())
        torch.manual_seed(seed)
        random.seed(seed)

    # Validation ---------------------------------------------------------

    def _validate(self, batch):
        """Cosines of whole utterances; the dev trials take embeddings."""
        with named_if_too_short(batch, self.hparams.sample_rate):
            embeddings = self._embed(*batch.sig)
        with full_float32():
            cosines = self.modules.classifier(embeddings).squeeze(1)
        if self.trials is not None:
            self.trials.collect(batch, embeddings, self._embed)
        return cosines

    def _embed(self, wavs, lens):
        """Embeddings (batch, 1, dim) of waveforms (batch, samples)."""
        feats = self.modules.compute_features(wavs)
        feats = self.modules.mean_var_norm(feats, lens)
        return self.modules.embedding_model(feats, lens)

    def _valid_loss(self, cosines, batch):
        """Cross-entropy where the speakers are known to the classifier."""
        if self.trials is not None:
            # Held-out speakers have no class: the dev EER is what counts.
            return torch.zeros((), device=self.device)
        target = batch.spk_id_encoded.data.squeeze(1)
        wrong = cosines.argmax(-1) != target
        self.means.add("error_rate", wrong.float().mean(), len(target))
        check_valid(batch.utterance, cosines.isfinite().all(1))
        return self.modules.compute_cost(
            cosines.float().unsqueeze(1), target.unsqueeze(1)
        )

    @property
    def trials(self):
        """Dev trials, or None where there are none."""
        return getattr(self.hparams, "dev_trials", None)

    # Several processes --------------------------------------------------

    def _wrap_distributed(self):
        """DDP that allows two forwards of a module before its backward."""
        if not self.distributed_launch:
            super()._wrap_distributed()
            return
        for name, module in self.modules.items():
            self.modules[name] = distributed.wrapped(
                module,
                self.device,
                self.distributed_backend,
                self.find_unused_parameters,
            )

    def _train_loader_specifics(self, dataset, loader_kwargs):
        """SpeechBrain's, with an order that follows the seed under DDP too."""
        kwargs = super()._train_loader_specifics(dataset, loader_kwargs)
        if self.train_sampler is None:
            # One that was given: SpeechBrain moves on none but its own.
            self.train_sampler = kwargs.get("sampler")
        if isinstance(self.train_sampler, DistributedSampler):
            self.train_sampler.seed = self.hparams.seed
        return kwargs

    def _share_statistics(self):
        """On CPUs every process goes on with rank 0's BatchNorm statistics."""
        if self.distributed_launch and self.device_type == "cpu":
            distributed.share_buffers(self.modules)

    # Bookkeeping --------------------------------------------------------

    def on_fit_start(self):
        """Starts, or goes on, at the schedule's rate for the next update."""
        if self.distils and self.hparams.objective.needs_attention:
            # Before SpeechBrain compiles the student or wraps it for DDP
            self.attention = PoolingAttention(self.modules.embedding_model)
        without_idle_padding(self.modules.embedding_model)
        super().on_fit_start()
        # SpeechBrain's schedule acts after an update for the first time.
        schedule = self.hparams.lr_annealing
        for group in self.optimizer.param_groups:
            group["lr"] = schedule.clr(schedule.clr_iterations)

    def on_stage_start(self, stage, epoch=None):
        """Resets the running means; moves the training chunks on."""
        self.means = EpochMeans()
        if stage == sb.Stage.TRAIN:
            self.guard = FiniteGuard(self.modules)
            if self.recovered is not None:
                self.means.resume(self.recovered)
                self.recovered = None
            self.hparams.chunks.epoch = epoch
            if self.distils:
                self.guidance = self.hparams.guidance.to(self.device)
        elif self.trials is not None:
            self.trials.begin()

    def on_fit_batch_start(self, batch, should_step):
        """Shares BatchNorm; keeps what a batch of NaN must not change."""
        self._share_statistics()
        self.guard.before_batch(batch.id)
        self.means_before = self.means.snapshot()

    def check_loss_isfinite(self, loss):
        """Names the batch of the first NaN; stops when NaN goes on."""
        update = self.optimizer_step
        loss_isfinite, self.batch_isfinite = self.guard.are_finite(loss, update)
        try:
            super().check_loss_isfinite(
                loss if loss_isfinite else loss * math.nan
            )
        except ValueError as error:
            raise UserError(self.guard.diverged("the loss", update)) from error

    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        """Steps the learning rate with the optimiser, not with the batch."""
        if not self.batch_isfinite:
            # Not before: the backward pass still reads the buffers.
            self.guard.take_back()
            self.means.restore(self.means_before)
        if should_step:
            self.hparams.lr_annealing.on_batch_end(self.optimizer)

    def _should_save_intra_epoch_ckpt(self, *args):
        """Only between updates: a half-added gradient is not saved."""
        between = self.step % self.grad_accumulation_factor == 0
        return between and super()._should_save_intra_epoch_ckpt(*args)

    def _save_intra_epoch_ckpt(self):
        """Saves within an epoch what is finite."""
        self.guard.check_modules(self.optimizer_step)
        super()._save_intra_epoch_ckpt()

    @mark_as_saver
    def _save(self, path):
        """Saves the place in the epoch and the sums of the epoch so far."""
        super()._save(path)
        with open(path, "a", encoding="utf-8") as stream:
            yaml.safe_dump({"epoch": self.means.state()}, stream)

    @mark_as_loader
    def _recover(self, path, end_of_epoch):
        """Recovers the place in the epoch and the sums of the epoch so far."""
        super()._recover(path, end_of_epoch)
        with open(path, encoding="utf-8") as stream:
            # A checkpoint of an earlier version has none.
            epoch = yaml.safe_load(stream).get("epoch")
        self.recovered = None if end_of_epoch else epoch

    def make_dataloader(self, *args, **options):
        """Waits for workers for a time only, where there are workers."""
        if not options.get("num_workers"):
            options.pop("timeout", None)
        return super().make_dataloader(*args, **options)

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Logs every term; keeps the checkpoint with the best dev figure."""
        if stage == sb.Stage.TRAIN:
            # Patience can outlast the epoch.
            self.guard.check_modules(self.optimizer_step)
            if self.guard.first is not None and not self.means.counts["loss"]:
                raise UserError(
                    self.guard.diverged(
                        "the loss of every batch", self.optimizer_step
                    )
                )
            self.train_stats = {
                "loss": stage_loss,
                **self.means.values(),
                "seconds": self.means.seconds,
            }
            if not self.validates:
                # As SpeechBrain leaves an epoch, to be saved like that.
                self.avg_train_loss, self.step = 0.0, 0
                self._close_epoch(epoch, {}, stage_loss)
            return
        if self.trials is None:
            stats = {
                "loss": stage_loss,
                "ErrorRate": self.means.values()["error_rate"],
            }
        else:
            stats = self.trials.figures()
        if stage == sb.Stage.VALID:
            self._close_epoch(epoch, stats, stats[self.dev_figure])

    def _close_epoch(self, epoch, stats, figure):
        """Writes down an epoch and saves its checkpoint."""
        meta = {
            "epoch": epoch,
            "updates": self.optimizer_step,
            "lr": self.optimizer.param_groups[0]["lr"],
        }
        log_epoch(
            self.hparams.loggers,
            self.hparams.output_folder,
            meta,
            self.train_stats,
            stats,
        )
        self.checkpointer.save_and_keep_only(
            meta={self.dev_figure: float(figure), "epoch": epoch},
            min_keys=[self.dev_figure],
            name=f"epoch_{epoch:03d}",
        )

    @property
    def validates(self):
        """Whether there are dev trials or speakers to validate on."""
        return not getattr(self.hparams, "without_validation", False)

    @property
    def dev_figure(self):
        """Name of the figure that is lowest for the best checkpoint."""
        if not self.validates:
            return "loss"
        return "ErrorRate" if self.trials is None else "EER"

    def _measuring(self):
        """Whether this batch pays for gradient shares and completeness."""
        interval = self.hparams.measure_interval
        if interval <= 0 or self.optimizer_step % interval:
            return False
        # The last of the batches that make one update.
        return self.step % self.grad_accumulation_factor == 0

    def _track_gradient_shares(self, weighted):
        """Each term's share of the gradient norm at the student's weights."""
        shares = gradient_shares(
            weighted, self.modules.embedding_model.parameters()
        )
        for name, share in shares.items():
            self.means.add(f"{name} gradient_share", share)
