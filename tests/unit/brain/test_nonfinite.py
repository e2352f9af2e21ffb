"""The Brain: batches, buffers and validations of NaN."""

import math

import pytest
import torch
from helpers.brains import N_UPDATES, fit, stats_of
from helpers.states import copy_of, same
from synthetic import DEV_SPEAKERS, TRAIN_SPEAKERS, in_processes

from imlkd_brain import distributed
from imlkd_brain.errors import UserError


@pytest.mark.parametrize("patience", [0, 3])
def test_nan_is_one_sentence_and_never_a_checkpoint(make, patience):
    """Also where patience outlasts the epoch."""
    brain = make("scratch", run_opts={"nonfinite_patience": patience})
    brain.modules.classifier.weight.data.fill_(torch.nan)
    with pytest.raises(UserError, match="not finite.*lower lr.*run again"):
        fit(brain)
    assert not brain.checkpointer.list_checkpoints()


def poison(brain, kind, updates):
    """Break the batches of some updates, as fp16 and bad audio do."""

    def broken(module, inputs):
        if module.training and brain.optimizer_step in updates:
            if kind != "statistics":
                return (inputs[0] * float(kind),)
            # The loss of a batch does not depend on them.
            norm = next(
                m for m in module.modules() if hasattr(m, "running_var")
            )
            norm.running_var.fill_(torch.inf)

    brain.modules.embedding_model.register_forward_pre_hook(broken)


@pytest.mark.parametrize("kind", ["nan", "inf"])
@pytest.mark.parametrize("method", ["scratch", "iml_kd"])
def test_a_batch_that_is_skipped_changes_nothing(make, method, kind, caplog):
    """Neither weights, nor running statistics, nor the epoch's row."""
    brain = make(
        method, run_opts={"skip_nonfinite_grads": True}, batchnorm="shared"
    )
    poison(brain, kind, [1])
    states, losses, names = [], [], []
    fit_batch = brain.fit_batch

    def recorded(batch):
        names.append(list(batch.id))
        losses.append(float(fit_batch(batch)))
        states.append(copy_of(brain.modules.embedding_model))
        return torch.tensor(losses[-1])

    brain.fit_batch = recorded
    fit(brain)
    assert len(losses) == N_UPDATES and math.isfinite(losses[0])
    assert not math.isfinite(losses[1])
    assert same(states[0], copy_of(brain.modules.embedding_model))
    row = stats_of(brain)
    assert float(row["train loss"]) == losses[0]
    assert all(
        math.isfinite(float(v)) for k, v in row.items() if k.startswith("train")
    )
    assert f"in the batch of {', '.join(names[1])}." in caplog.text


def test_infinite_statistics_are_taken_back_where_the_loss_is_finite(make):
    brain = make("scratch")
    poison(brain, "statistics", [1])
    fit(brain)
    assert all(b.isfinite().all() for b in brain.modules.buffers())


def test_a_batch_of_nan_leaves_global_statistics_alone(make):
    """They are no buffers, and would make every later batch NaN."""
    brain = make(
        "scratch",
        run_opts={"skip_nonfinite_grads": True},
        mean_var_norm={"norm_type": "global"},
    )
    norm, seen = brain.modules.mean_var_norm, []

    def broken(module, inputs):
        if module.training:
            seen.append((norm.count, norm.glob_mean.clone()))
            if brain.optimizer_step == 1:
                return (inputs[0] * torch.nan, *inputs[1:])

    norm.register_forward_pre_hook(broken)
    fit(brain)
    count, mean = seen[1]
    assert norm.count == count and torch.equal(norm.glob_mean, mean)
    norm.glob_mean.fill_(torch.nan)
    with pytest.raises(UserError, match="mean_var_norm.glob_mean is not fin"):
        brain.guard.check_modules(0)


def test_nan_names_the_batch_that_it_came_with(make):
    """The first one: the weights are lost from there on."""
    brain = make("scratch", number_of_epochs=3, batch_size=2)
    poison(brain, "nan", [2])
    names = []
    fit_batch = brain.fit_batch
    brain.fit_batch = lambda batch: names.append(batch.id) or fit_batch(batch)
    with pytest.raises(UserError) as raised:
        fit(brain)
    assert f"first at update 2, in the batch of {', '.join(names[2])})" in str(
        raised.value
    )
    assert "\n" not in str(raised.value)
    assert not brain.checkpointer.list_checkpoints()


def test_an_epoch_without_one_finite_batch_is_an_error(make):
    brain = make("scratch", run_opts={"skip_nonfinite_grads": True})
    poison(brain, "nan", range(9))
    with pytest.raises(UserError, match="loss of every batch is not finite"):
        fit(brain)
    assert not brain.checkpointer.list_checkpoints()


@pytest.mark.parametrize("steps", [0, 1])
@pytest.mark.parametrize("name", ["running_mean", "running_var"])
def test_nan_in_a_buffer_is_never_a_checkpoint(make, name, steps):
    """Neither at the end of an epoch nor within it."""
    brain = make("scratch", run_opts={"ckpt_interval_steps": steps})
    step = brain.optimizers_step

    def broken():
        step()
        module = brain.modules.embedding_model
        buffers = (b for n, b in module.named_buffers() if n.endswith(name))
        next(buffers).fill_(torch.nan)

    brain.optimizers_step = broken
    with pytest.raises(UserError, match=rf"{name} is not finite.*run again"):
        fit(brain)
    assert not brain.checkpointer.list_checkpoints()


@pytest.mark.parametrize("with_trials", [True, False])
def test_a_validation_of_nan_is_one_sentence_and_never_a_figure(
    make, corpus, with_trials
):
    if with_trials:
        brain = make("scratch", valid_dataloader_options={"batch_size": 2})
        module, utterances = "embedding_model", DEV_SPEAKERS
    else:
        brain = make(
            "scratch",
            valid_trials=None,
            valid_annotation=str(corpus / "train.csv"),
            valid_durations=["full"],
        )
        module, utterances = "classifier", TRAIN_SPEAKERS
    brain.modules[module].register_forward_hook(
        lambda module, _, output: None
        if module.training
        else output * torch.nan
    )
    with pytest.raises(UserError, match="NaN or infinite.*run again") as raised:
        fit(brain)
    assert str(raised.value).split("/")[0] in utterances
    assert "\n" not in str(raised.value)
    assert not brain.checkpointer.list_checkpoints()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_batch_of_nan_in_one_process_is_one_in_all(make, tmp_path, rank):
    """All leave it out, all name it, and all give up at the same update."""

    def train(patience, poisoned):
        brain = make(
            "scratch",
            batch_size=2,
            run_opts={
                "distributed_backend": "gloo",
                "skip_nonfinite_grads": True,
                "nonfinite_patience": patience,
            },
        )
        if distributed.rank() == rank:
            poison(brain, "nan", [poisoned])
        names, states = [], []
        fit_batch = brain.fit_batch

        def recorded(batch):
            names.append(list(batch.id))
            loss = fit_batch(batch)
            weights = copy_of(brain.modules.embedding_model)
            states.append({k: v.tolist() for k, v in weights.items()})
            return loss

        brain.fit_batch = recorded
        try:
            fit(brain)
        except UserError as error:
            return names, str(error)
        return states, brain.train_stats["loss_ce"]

    def train_both():
        return train(patience=3, poisoned=1), train(patience=0, poisoned=0)

    results = in_processes(2, tmp_path, train_both)
    (states, loss), (others, other) = (of_rank[0] for of_rank in results)
    # On CPUs all go on with rank 0's statistics of BatchNorm.
    assert states[1] == states[0] == others[1]
    assert math.isfinite(loss) and math.isfinite(other)
    for names, sentence in (of_rank[1] for of_rank in results):
        assert len(names) == 1
        assert "the loss is not finite at update 0" in sentence
        assert ", ".join(results[rank][1][0][0]) in sentence
