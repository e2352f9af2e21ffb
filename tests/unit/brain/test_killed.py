"""A training that is killed at any of its writes goes on bit for bit."""

import pytest
from helpers.brains import fit, stats_of
from helpers.killing import is_killed
from helpers.states import copy_of, same

OPTIONS = {
    "number_of_epochs": 2,
    "run_opts": {"ckpt_interval_steps": 1},
}


@pytest.fixture
def whole(make):
    """What it must become, and the row of its last epoch."""
    brain = fit(make("scratch", **OPTIONS))
    return copy_of(brain.modules), without_clock(brain)


def without_clock(brain):
    return {k: v for k, v in stats_of(brain).items() if "seconds" not in k}


def killed_and_gone_on(make, number):
    """The brain after a kill and a second start; None if it was not killed."""
    first = make("scratch", **OPTIONS)
    if not is_killed(number, lambda: fit(first)):
        return None
    folder = first.hparams.output_folder
    return fit(make("scratch", **OPTIONS, output_folder=folder))


def check(brain, whole):
    assert same(copy_of(brain.modules), whole[0])
    assert without_clock(brain) == whole[1]


@pytest.mark.parametrize("number", [3, 17, 30])
def test_some_writes(make, whole, number):
    check(killed_and_gone_on(make, number), whole)


@pytest.mark.slow
def test_every_write(make, whole):
    number = 0
    while (brain := killed_and_gone_on(make, number)) is not None:
        check(brain, whole)
        number += 1
    # 4 updates, 2 epochs: 6 checkpoints of 8 files and more
    assert number > 48
