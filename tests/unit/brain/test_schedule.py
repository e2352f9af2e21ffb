"""The Brain: learning rates, random draws, several processes; what is refused."""

import contextlib

import pytest
from helpers.brains import drawn, fit, spy
from helpers.states import copy_of
from synthetic import (
    in_processes,
)

import speechbrain as sb
from imlkd_brain import distributed
from imlkd_brain.errors import UserError


def test_a_chunk_shorter_than_a_duration_is_refused(make):
    with pytest.raises(UserError, match=r"durations: 0.6 s .* 0.5 s"):
        make("iml_kd", durations=[0.3, 0.6])
    make("scratch", durations=[0.3, 0.6])


def test_the_learning_rate_ends_its_cycle_with_the_epochs_that_are_asked_for(
    make,
):
    """Two batches an update: half the updates, and no half a cycle."""
    rates = []
    for option, yaml in ((1, None), (2, None), (None, 2), (2, 1)):
        brain = make(
            "scratch",
            number_of_epochs=2,
            lr_step_epochs=1,
            run_opts=option and {"grad_accumulation_factor": option},
            edit=lambda hparams, n=yaml: n
            and hparams.update(grad_accumulation_factor=n),
        )
        fit(brain)
        rates.append(brain.optimizer.param_groups[0]["lr"])
        n_updates = 4 if (option or yaml) == 1 else 2
        assert brain.optimizer_step == n_updates
    # A triangle whose first half is one epoch is back at its base after two.
    assert rates == [brain.hparams.base_lr] * 4


def test_configurations_that_cannot_be_trained_are_refused(make):
    with pytest.raises(UserError, match="batch_size: 9 .* 8 training"):
        make("scratch", batch_size=9)
    with pytest.raises(UserError, match="batch_size: 4 .* 3 batch"):
        make("scratch", run_opts={"grad_accumulation_factor": 3})
    for method in ("scratch", "iml_kd"):
        with pytest.raises(UserError, match="batch_size: 1 .*two utterances"):
            make(method, batch_size=1)
    # What does not fill a batch would be one utterance: 8 = 2 * 3 + 2, 7 + 1.
    keep = {"drop_last": False}
    fit(make("scratch", batch_size=3, train_dataloader_options=keep))
    with pytest.raises(UserError, match="last batch .* one utterance of 8"):
        make("scratch", batch_size=7, train_dataloader_options=keep)
    with pytest.raises(UserError, match="durations"):
        make("iml_kd", durations=[])
    with pytest.raises(UserError, match="method is 'imlkd'.*iml_kd"):
        make("imlkd")


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("policy", ["raw_only", "running", "shared"])
def test_processes_train_one_student_with_two_forwards_an_update(
    make, monkeypatch, tmp_path, n, policy
):
    """DDP as it is launched, without help from the test."""

    def train():
        brain = make(
            "iml_kd",
            batchnorm=policy,
            batch_size=2,
            number_of_epochs=2,
            run_opts={"distributed_backend": "gloo"},
            augmentation=True,
            durations=[0.1, 0.15, 0.2, 0.25, 0.3, 0.35],
        )
        draws = drawn(brain, monkeypatch)
        fit(brain)
        brain._share_statistics()
        weights = {k: v.tolist() for k, v in copy_of(brain.modules).items()}
        return draws, weights, brain.optimizer_step

    results = in_processes(n, tmp_path, train)
    draws, weights, updates = zip(*results, strict=True)
    assert set(updates) == {2 * (8 // n // 2)}
    assert all(w == weights[0] for w in weights)
    if n == 1:
        return
    for one, other in zip(*draws, strict=True):
        assert one["frames"] == other["frames"]
        assert one["augmentation"] != other["augmentation"]
    starts = [[s for d in each for s in d["starts"]] for each in draws]
    assert starts[0] != starts[1]
    assert len({d["frames"] for d in draws[0]}) > 1


def test_a_single_process_draws_as_rank_zero_does(make):
    """The numbers of earlier trainings: seed and update alone."""
    brain = make("scratch", seed=7)
    brain.step, brain.optimizer_step = 5, 12
    assert (
        brain._step_seed() == brain._step_seed(distributed.rank()) == 7_000_033
    )


def test_the_order_under_ddp_follows_the_seed(make, tmp_path):
    def order(seed):
        brain = make("scratch", seed=seed)
        loader = brain.make_dataloader(
            brain.data[0], sb.Stage.TRAIN, batch_size=4, shuffle=True
        )
        return [batch.id for batch in loader]

    def orders_of_seeds():
        return [order(seed) for seed in (1, 2, 1)]

    (orders,) = in_processes(1, tmp_path, orders_of_seeds)
    assert orders[0] != orders[1] and orders[0] == orders[2]


def test_every_batch_of_an_update_has_its_own_draws(make, monkeypatch):
    options = {
        "batch_size": 2,
        "number_of_epochs": 2,
        "augmentation": True,
        "durations": [0.1, 0.15, 0.2, 0.25, 0.3, 0.35],
    }

    def train(accumulated):
        brain = make(
            "iml_kd",
            run_opts={"grad_accumulation_factor": accumulated},
            measure_interval=1,
            **options,
        )
        draws = drawn(brain, monkeypatch)
        shares = spy(monkeypatch, brain, "_track_gradient_shares")
        fit(brain)
        # Shares are measured once an update.
        assert len(shares) == brain.optimizer_step == 8 // accumulated
        return draws

    plain, added = train(1), train(4)
    assert len(plain) == len(added) == 8
    for what in ("augmentation", "starts"):
        assert len({str(draw[what]) for draw in added}) == 8
    for update in (added[:4], added[4:]):
        assert len({draw["frames"] for draw in update}) > 1
    # The first batch of an update draws as without accumulation.
    assert added[0] == plain[0]
    assert added[4]["augmentation"] == plain[1]["augmentation"]


def test_each_update_runs_at_the_rate_of_the_schedule(make, monkeypatch):
    """From base_lr up to lr and down again, also when it goes on."""

    def rates_of(brain, stop=None):
        rates = []
        step = brain.optimizers_step

        def recorded():
            rates.append(brain.optimizer.param_groups[0]["lr"])
            step()
            if len(rates) == stop:
                raise KeyboardInterrupt

        monkeypatch.setattr(brain, "optimizers_step", recorded)
        with contextlib.suppress(KeyboardInterrupt):
            fit(brain)
        return rates

    options = {
        "base_lr": 0.0001,
        "lr": 0.0101,
        "number_of_epochs": 4,
        "lr_step_epochs": 2,
        "run_opts": {"ckpt_interval_steps": 1},
    }
    # Two updates an epoch: four up, four down.
    expected = [1, 26, 51, 76, 101, 76, 51, 26]
    expected = pytest.approx([1e-4 * rate for rate in expected])
    assert rates_of(make("scratch", **options)) == expected
    brain = make("scratch", **options)
    first = rates_of(brain, stop=4)
    output = {"output_folder": brain.hparams.output_folder}
    second = rates_of(make("scratch", **options, **output))
    # The fourth update was not saved.
    assert first[:3] + second == expected
