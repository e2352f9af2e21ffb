"""The Brain: raw branch, integrated-input branch, three-level objective.

Authors: IML-KD contributors
"""

import itertools
import math
import os
import random
import time
from collections import defaultdict

import torch
import yaml
from torch.nn import SyncBatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DistributedSampler

import speechbrain as sb
from imlkd_brain.data.audio import repeat_to
from imlkd_brain.data.crops import seconds_to_samples
from imlkd_brain.distillation.batchnorm import batchnorm_policy
from imlkd_brain.distillation.objective import (
    BRANCHES,
    Outputs,
    gradient_shares,
)
from imlkd_brain.errors import UserError
from imlkd_brain.files import append_epoch
from imlkd_brain.models.features import has_statistics
from imlkd_brain.models.folder import STATS_FILE
from imlkd_brain.precision import full_float32
from speechbrain.dataio.batch import PaddedData
from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from speechbrain.utils.data_utils import batch_pad_right
from speechbrain.utils.distributed import is_distributed_initialized
from speechbrain.utils.logger import get_logger
from speechbrain.utils.train_logger import TensorboardLogger

logger = get_logger(__name__)

N_NAMED = 3  # utterances that a sentence names


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

    With no ``objective`` among the hparams, or one whose method has no terms,
    only the first two lines happen. The teacher is ``hparams.teacher``: it is
    not among the modules, so neither optimiser, checkpoint nor DDP sees it.
    """

    # Of the epoch that a checkpoint was written in, until that epoch goes on.
    recovered = None

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
        target = self._target(batch)
        student = self._student(feats)
        teacher = (None, None)
        if self.needs("raw") or self.needs("cross"):
            teacher = self._teacher(feats)
        predictions = {"raw": Outputs(*student, *teacher)}
        if self.needs("integrated") or self.needs("cross"):
            inputs = self._integrated_inputs(feats, target)
            with batchnorm_policy(
                self.modules.embedding_model, self.hparams.batchnorm
            ):
                student = self._student(inputs)
            predictions["cross"] = Outputs(*student, *teacher)
            if self.needs("integrated"):
                taught = self._teacher(inputs)
                predictions["integrated"] = Outputs(*student, *taught)
        return predictions

    def compute_objectives(self, predictions, batch, stage):
        """AAM-softmax on x, plus eta times the weighted distillation terms."""
        if stage != sb.Stage.TRAIN:
            return self._valid_loss(predictions, batch)
        target = self._target(batch)
        cosines = predictions["raw"].student
        loss = self.modules.compute_cost(
            cosines.unsqueeze(1), target.unsqueeze(1)
        )
        correct = cosines.detach().argmax(-1) == target
        self._track("loss_ce", loss)
        self._track("accuracy", correct.float().mean())
        if not self.distils:
            self._track("loss", loss)
            return loss
        objective = self.hparams.objective
        terms = {}
        for branch in filter(self.needs, BRANCHES):
            outputs = predictions[branch].scaled(self.hparams.scale)
            terms.update(
                objective.branch_terms(
                    branch, outputs, target, self._projection()
                )
            )
        distillation, weighted = objective.weighted(terms, self.optimizer_step)
        for name, value in terms.items():
            self._track(name, value)
            self._track(f"{name} weighted", weighted[name])
        if self._measuring():
            self._track_gradient_shares({"loss_ce": loss, **weighted})
        loss = loss + distillation
        self._track("loss", loss)
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

    def _teacher(self, feats):
        """Cosines and embeddings of the frozen teacher, in float32."""

        def answer():
            teacher = self.hparams.teacher
            whole = torch.autocast(self.device_type, enabled=False)
            with full_float32(), torch.no_grad(), whole:
                embeddings = teacher.embed_features(feats.float())
                return teacher.classify(embeddings), embeddings

        return self._once("answer", feats, answer)

    def _once(self, description, feats, compute):
        """Ask the cache first, where there is one."""
        if self._cache is None:
            return compute()
        description = f"{self.hparams.teacher.key} {description}"
        return self._cache(description, feats, compute)

    @property
    def _cache(self):
        """The cache of the teacher's answers, None where there is none."""
        return getattr(self.hparams, "teacher_cache", None)

    def _integrated_inputs(self, feats, target):
        """I(x_d) of one segment of each utterance, constant for the student."""
        if self._cache is None or self._measuring():
            return self._integrate(feats, target)
        # Reading targets waits for the GPU: for the cache only.
        options = {
            name: value.tolist() if isinstance(value, torch.Tensor) else value
            for name, value in vars(self.hparams.integrated_inputs).items()
        }
        seed = self._step_seed(self._rank)
        description = f"{options} {seed} {target.tolist()}"
        (inputs,) = self._once(
            description, feats, lambda: (self._integrate(feats, target),)
        )
        return inputs

    def _integrate(self, feats, target):
        """Segments, their attribution, and I of them."""
        generator = common = torch.Generator().manual_seed(self._step_seed())
        if self._rank:
            generator = torch.Generator()
            generator.manual_seed(self._step_seed(self._rank))
        integrated = self.hparams.integrated_inputs
        segment = integrated.segments(feats.detach(), generator, common)
        inputs, gap = integrated(
            self.hparams.teacher.cosines,
            segment.features,
            target,
            generator=generator,
            with_gap=self._measuring(),
        )
        if gap is not None:
            self._track("completeness_gap", gap.abs().mean())
        return inputs

    def _projection(self):
        """The projection onto the teacher's dimension, where they differ."""
        if "projection" in self.modules:
            return self.modules.projection
        return None

    def _target(self, batch):
        """Speaker indices (batch,), repeated as augmentation repeats items."""
        target = batch.spk_id_encoded.data.squeeze(1)
        if self.hparams.wav_augment is not None:
            target = self.hparams.wav_augment.replicate_labels(target)
        return target

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
        seed = self._step_seed(self._rank)
        torch.manual_seed(seed)
        random.seed(seed)

    @property
    def _rank(self):
        """This process among those of the training, from 0."""
        if is_distributed_initialized():
            return torch.distributed.get_rank()
        return 0

    # Validation ---------------------------------------------------------

    def _validate(self, batch):
        """Cosines of whole utterances; the dev trials get the embeddings."""
        whole = self._embed(*batch.sig)
        with full_float32():
            cosines = self.modules.classifier(whole).squeeze(1)
        if self.trials is not None:
            self._keep_embeddings(batch, whole)
        return cosines

    def _embed(self, wavs, lens):
        """Embeddings (batch, 1, dim) of waveforms, in evaluation."""
        feats = self.modules.compute_features(wavs)
        feats = self.modules.mean_var_norm(feats, lens)
        return self.modules.embedding_model(feats, lens)

    def _keep_embeddings(self, batch, whole):
        """Embeddings at each validation duration, by utterance."""
        for seconds in self.hparams.valid_durations:
            values = whole
            if seconds is not None:
                values = self._embed(*self._crop(batch, seconds))
            values = values.squeeze(1).float().cpu()
            self._check_valid(batch.utterance, values.isfinite().all(1))
            self.embeddings[seconds].update(zip(batch.utterance, values))

    def _check_valid(self, utterances, finite):
        """Stops where the validation of an utterance is not finite."""
        if not finite.all():
            name = utterances[int(torch.nonzero(~finite)[0])]
            raise UserError(
                f"{name}: the model's answer to this validation utterance is "
                "NaN or infinite, so no dev figure can be trusted; lower lr "
                "or eta in another output_folder, or evaluate in fp32 "
                "(`--eval_precision fp32`) and run again: it goes on from the "
                "last checkpoint."
            )

    def _crop(self, batch, seconds):
        """Fixed crops: where they start depends on the utterance alone."""
        wavs, lens = batch.sig
        n_crop = seconds_to_samples(seconds, self.hparams.sample_rate)
        crops = []
        for wav, length, name in zip(wavs, lens, batch.id, strict=True):
            n_samples = int(round(float(length) * len(wav)))
            start = random.Random(f"{name}/{seconds}").randint(
                0, max(0, n_samples - n_crop)
            )
            crops.append(repeat_to(wav[start:n_samples], n_crop))
        return PaddedData(*batch_pad_right(crops))

    def _valid_loss(self, cosines, batch):
        """Cross-entropy where the speakers are known to the classifier."""
        if self.trials is not None:
            # Held-out speakers have no class: the dev EER is what counts.
            return torch.zeros((), device=self.device)
        target = batch.spk_id_encoded.data.squeeze(1)
        wrong = cosines.argmax(-1) != target
        self._track("error_rate", wrong.float().mean(), len(target))
        self._check_valid(batch.utterance, cosines.isfinite().all(1))
        return self.modules.compute_cost(
            cosines.float().unsqueeze(1), target.unsqueeze(1)
        )

    @property
    def trials(self):
        """Dev trials, or None where there are none."""
        return getattr(self.hparams, "dev_trials", None)

    def _dev_eer(self, seconds):
        """Dev EER in percent, test side cropped; 50 if debug saw too little."""
        embeddings = self.embeddings[seconds]
        enrolments = self.embeddings[self.hparams.valid_durations[0]]
        return self.trials.eer(enrolments, embeddings)

    # Several processes --------------------------------------------------

    def _wrap_distributed(self):
        """DDP that allows two forwards of a module before its backward."""
        if not self.distributed_launch:
            super()._wrap_distributed()
            return
        for name, module in self.modules.items():
            if not any(p.requires_grad for p in module.parameters()):
                continue
            # PyTorch has no synchronised BatchNorm for the CPU.
            if self.device_type != "cpu":
                module = SyncBatchNorm.convert_sync_batchnorm(module)
            gloo = self.distributed_backend == "gloo"
            self.modules[name] = DistributedDataParallel(
                module,
                device_ids=None if gloo else [self.device],
                find_unused_parameters=self.find_unused_parameters,
                # It would write to statistics that the first forward has
                # kept for the backward.
                broadcast_buffers=False,
            )

    def _train_loader_specifics(self, dataset, loader_kwargs):
        """SpeechBrain's, with an order that follows the seed under DDP too."""
        kwargs = super()._train_loader_specifics(dataset, loader_kwargs)
        if isinstance(self.train_sampler, DistributedSampler):
            self.train_sampler.seed = self.hparams.seed
        return kwargs

    def _share_statistics(self):
        """On CPUs every process goes on with rank 0's BatchNorm statistics."""
        if self.distributed_launch and self.device_type == "cpu":
            for buffer in self.modules.buffers():
                torch.distributed.broadcast(buffer, 0)

    # Bookkeeping --------------------------------------------------------

    def on_fit_start(self):
        """Starts, or goes on, at the schedule's rate for the next update."""
        super().on_fit_start()
        # SpeechBrain's schedule acts after an update for the first time.
        schedule = self.hparams.lr_annealing
        for group in self.optimizer.param_groups:
            group["lr"] = schedule.clr(schedule.clr_iterations)

    def on_fit_batch_start(self, batch, should_step):
        """Shares BatchNorm; keeps what a batch of NaN must not change."""
        self._share_statistics()
        self.batch_ids = batch.id
        norm = self.modules.mean_var_norm
        self.before_batch = (
            [buffer.clone() for buffer in self.modules.buffers()],
            {name: getattr(norm, name) for name in self._global()},
            dict(self.sums),
            dict(self.counts),
        )

    def on_stage_start(self, stage, epoch=None):
        """Resets the running means; moves the training chunks on."""
        self.sums = defaultdict(float)
        self.counts = defaultdict(int)
        self.embeddings = defaultdict(dict)
        self.stage_began = time.monotonic()
        self.not_finite = None
        if stage == sb.Stage.TRAIN:
            self._go_on_with_epoch()
            self.hparams.chunks.epoch = epoch
            if self.distils:
                self.hparams.teacher.to(self.device)

    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        """Steps the learning rate with the optimiser, not with the batch."""
        if not self.batch_isfinite:
            # Not before: the backward pass still reads the buffers.
            self._take_back_batch()
        if should_step:
            self.hparams.lr_annealing.on_batch_end(self.optimizer)

    def _should_save_intra_epoch_ckpt(self, *args):
        """Only between updates: a half-added gradient is not saved."""
        between = self.step % self.grad_accumulation_factor == 0
        return between and super()._should_save_intra_epoch_ckpt(*args)

    def check_loss_isfinite(self, loss):
        """Names the batch of the first NaN; stops when NaN goes on.

        Processes that train together share the update, so what one of them
        finds holds for all: they leave the batch out, or stop, together.
        """
        own = self._batch_isfinite(loss)
        loss_isfinite, self.batch_isfinite = self._in_all_processes(
            [own or bool(loss.isfinite()), own]
        )
        if not self.batch_isfinite:
            names = self._names_of_all([] if own else self.batch_ids)
            logger.warning(
                f"Update {self.optimizer_step}: NaN or infinity in the batch "
                f"of {', '.join(names)}. BatchNorm's statistics and "
                "train_stats.csv leave it out."
            )
            if self.not_finite is None:
                self.not_finite = self.optimizer_step, names
        try:
            super().check_loss_isfinite(
                loss if loss_isfinite else loss * math.nan
            )
        except ValueError as error:
            raise UserError(self._diverged("the loss")) from error

    def _in_all_processes(self, flags):
        """Which flags (a list of bool) are true in every process."""
        if not is_distributed_initialized():
            return flags
        common = torch.tensor(flags, dtype=torch.uint8, device=self.device)
        torch.distributed.all_reduce(common, torch.distributed.ReduceOp.MIN)
        return common.bool().tolist()

    def _names_of_all(self, names):
        """The names that each process has, in the order of ranks."""
        if not is_distributed_initialized():
            return names
        gathered = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(gathered, list(names))
        return list(itertools.chain.from_iterable(gathered))

    def _global(self):
        """Names of a global normalisation's statistics; they are no buffers."""
        if has_statistics(self.modules.mean_var_norm):
            return "count", "glob_mean", "glob_std"
        return ()

    def _statistics(self):
        """Name and value of all that a forward pass in training changes."""
        yield from self.modules.named_buffers()
        for name in self._global():
            value = getattr(self.modules.mean_var_norm, name)
            if isinstance(value, torch.Tensor):
                yield f"mean_var_norm.{name}", value

    def _batch_isfinite(self, loss):
        """Whether the loss and what the batch left in buffers are finite."""
        values = [loss.detach(), *dict(self._statistics()).values()]
        # One test of all: each would wait for the GPU.
        joined = torch.cat([value.float().flatten() for value in values])
        return bool(joined.isfinite().all())

    def _take_back_batch(self):
        """Restores the running statistics and means from before the batch.

        A batch that the optimiser skips, in fp16 or by
        ``--skip_nonfinite_grads``, would otherwise live on in BatchNorm.
        """
        buffers, statistics, sums, counts = self.before_batch
        with torch.no_grad():
            for buffer, value in zip(
                self.modules.buffers(), buffers, strict=True
            ):
                buffer.copy_(value)
        for name, value in statistics.items():
            setattr(self.modules.mean_var_norm, name, value)
        self.sums = defaultdict(float, sums)
        self.counts = defaultdict(int, counts)

    def _diverged(self, what):
        """What to say when the training has diverged."""
        where = ""
        if self.not_finite is not None:
            update, names = self.not_finite
            more = len(names) - N_NAMED
            where = (
                f" (first at update {update}, in the batch of "
                f"{', '.join(names[:N_NAMED])}"
                + (f" and {more} more that the log names)" if more > 0 else ")")
            )
        return (
            f"{what} is not finite at update {self.optimizer_step}{where}; "
            "lower lr or eta in another output_folder, or mend the audio and "
            "run again: it goes on from the last checkpoint."
        )

    def _check_modules(self):
        """Stops where a module holds NaN: a run would go on from it."""
        for name, value in itertools.chain(
            self.modules.named_parameters(), self._statistics()
        ):
            if not value.isfinite().all():
                raise UserError(self._diverged(name))

    def _save_intra_epoch_ckpt(self):
        """Saves within an epoch what is finite."""
        self._check_modules()
        super()._save_intra_epoch_ckpt()

    @mark_as_saver
    def _save(self, path):
        """Saves the place in the epoch and the sums of the epoch so far."""
        super()._save(path)
        epoch = {
            "sums": {key: float(value) for key, value in self.sums.items()},
            "counts": dict(self.counts),
            "seconds": time.monotonic() - self.stage_began,
        }
        with open(path, "a", encoding="utf-8") as stream:
            yaml.safe_dump({"epoch": epoch}, stream)

    @mark_as_loader
    def _recover(self, path, end_of_epoch):
        """Recovers the place in the epoch and the sums of the epoch so far."""
        super()._recover(path, end_of_epoch)
        with open(path, encoding="utf-8") as stream:
            # A checkpoint of an earlier version has none.
            epoch = yaml.safe_load(stream).get("epoch")
        self.recovered = None if end_of_epoch else epoch

    def _go_on_with_epoch(self):
        """Goes on with the sums of an epoch that was interrupted."""
        if self.recovered is not None:
            self.sums.update(self.recovered["sums"])
            self.counts.update(self.recovered["counts"])
            self.stage_began -= self.recovered["seconds"]
            self.recovered = None

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Logs every term; keeps the checkpoint with the best dev figure."""
        # In float64, which the sums of a checkpoint are read back in.
        stats = {
            key: float(self.sums[key]) / self.counts[key] for key in self.sums
        }
        if stage == sb.Stage.TRAIN:
            # Patience can outlast the epoch.
            self._check_modules()
            if self.not_finite is not None and not self.counts["loss"]:
                raise UserError(self._diverged("the loss of every batch"))
            self.train_stats = {
                "loss": stage_loss,
                **stats,
                "seconds": time.monotonic() - self.stage_began,
            }
            return
        if self.trials is None:
            key, stats = (
                "ErrorRate",
                {"loss": stage_loss, "ErrorRate": stats["error_rate"]},
            )
        else:
            key, stats = "EER", {}
            for seconds in self.hparams.valid_durations:
                name = "full" if seconds is None else f"{seconds:g}s"
                stats[f"EER_{name}"] = self._dev_eer(seconds)
            stats["EER"] = sum(stats.values()) / len(stats)
        if stage == sb.Stage.VALID:
            self._log_epoch(epoch, stats)
            self.checkpointer.save_and_keep_only(
                meta={key: float(stats[key]), "epoch": epoch},
                min_keys=[key],
                name=f"epoch_{epoch:03d}",
            )

    def _log_epoch(self, epoch, valid_stats):
        """Writes an epoch to the train log, TensorBoard and the CSV."""
        meta = {
            "epoch": epoch,
            "updates": self.optimizer_step,
            "lr": self.optimizer.param_groups[0]["lr"],
        }
        for stats_logger in self.hparams.loggers:
            if isinstance(stats_logger, TensorboardLogger):
                # It counts its own calls, from zero in each process.
                stats_logger.global_step = {
                    "train": dict.fromkeys(self.train_stats, epoch - 1),
                    "valid": dict.fromkeys(valid_stats, epoch - 1),
                    "meta": epoch - 1,
                }
            stats_logger.log_stats(
                stats_meta=meta,
                train_stats=self.train_stats,
                valid_stats=valid_stats,
            )
        if sb.utils.distributed.if_main_process():
            row = {
                **meta,
                **{f"train {k}": v for k, v in self.train_stats.items()},
                **{f"valid {k}": v for k, v in valid_stats.items()},
            }
            append_epoch(
                os.path.join(self.hparams.output_folder, STATS_FILE), row
            )

    def _measuring(self):
        """Whether this batch pays for gradient shares and completeness."""
        interval = self.hparams.measure_interval
        if interval <= 0 or self.optimizer_step % interval:
            return False
        # The last of the batches that make one update.
        return self.step % self.grad_accumulation_factor == 0

    def _track(self, name, value, weight=1):
        """Adds to a running mean of the stage, on the value's own device."""
        # No float() here: it would wait for the GPU at every term.
        # Nor in place: a batch that is not finite is taken back.
        self.sums[name] = self.sums[name] + value.detach() * weight
        self.counts[name] += weight

    def _track_gradient_shares(self, weighted):
        """Each term's share of the gradient norm at the student's weights."""
        parameters = [
            p
            for p in self.modules.embedding_model.parameters()
            if p.requires_grad
        ]
        for name, share in gradient_shares(weighted, parameters).items():
            name = f"{name} gradient_share"
            self.sums[name] = self.sums[name] + share
            self.counts[name] += 1
