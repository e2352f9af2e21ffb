"""Losses of the utterances of several processes, in double precision."""

import pytest
import torch
from synthetic import in_processes
from torch.nn.parallel import DistributedDataParallel

from imlkd_brain import distributed
from imlkd_brain.distillation.losses import (
    batch_loss,
    class_loss,
    dist_loss,
    multi_level_kd_loss,
)
from imlkd_brain.distillation.rivals import relation_loss
from imlkd_brain.errors import UserError, one_sentence_errors
from speechbrain.utils.run_opts import RunOptions

RELATIONS = {
    "class": lambda student, teacher: class_loss(student, teacher, 2.0),
    "batch": lambda student, teacher: batch_loss(student, teacher, 2.0),
    "multi_level": multi_level_kd_loss,
    "correlation": lambda student, teacher: dist_loss(
        student, teacher, 1.0, 1.0, 1.0
    ),
    "relation": relation_loss,
}
CLASSES = 4
ROWS = {"equal": [3, 3], "unequal": [4, 2]}


def data():
    """A linear student, six inputs and what the teacher says of them."""
    generator = torch.Generator().manual_seed(1)
    double = {"generator": generator, "dtype": torch.float64}
    student = torch.nn.Linear(5, CLASSES, dtype=torch.float64)
    student.weight.data = torch.randn(CLASSES, 5, **double)
    student.bias.data = torch.randn(CLASSES, **double)
    return (
        student,
        torch.randn(6, 5, **double),
        torch.randn(6, CLASSES, **double),
    )


def plain(loss):
    """Value and gradient of one process with all rows."""
    student, inputs, teacher = data()
    value = loss(student(inputs), teacher)
    value.backward()
    return value.detach(), student.weight.grad


def shared(loss, rows, gather=True):
    """Value and gradient of one of several processes with some rows each."""
    student, inputs, teacher = data()
    own = distributed.rank()
    student = DistributedDataParallel(student)
    said, taught = student(inputs.split(rows)[own]), teacher.split(rows)[own]
    if gather:
        said, taught = (distributed.gathered(t, rows) for t in (said, taught))
        value = loss(said, taught)
    else:
        value = distributed.share_of(rows) * loss(said, taught)
    value.backward()
    return value.detach(), student.module.weight.grad


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_relations_of_all_processes_are_those_of_one_process(tmp_path, rows):
    def ask():
        return {
            name: (shared(loss, rows), shared(loss, rows, gather=False))
            for name, loss in RELATIONS.items()
        }

    results = in_processes(len(rows), tmp_path, ask)
    for name, loss in RELATIONS.items():
        value, gradient = plain(loss)
        assert gradient.norm() > 1e-6, name
        for of_rank in results:
            (found, slope), (_, apart) = of_rank[name]
            # What rounding in float64 leaves, sums in another order.
            torch.testing.assert_close(found, value, rtol=1e-12, atol=0)
            torch.testing.assert_close(slope, gradient, rtol=1e-10, atol=1e-15)
            # Relations of a process's own rows alone are others.
            assert (apart - gradient).norm() > 1e-3 * gradient.norm(), name


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_means_are_those_of_one_process_whatever_the_shares(tmp_path, rows):
    def loss(student, teacher):
        return (student - teacher).square().sum(1).mean()

    def ask():
        return shared(loss, rows, gather=False)

    value, gradient = plain(loss)
    values, slopes = zip(*in_processes(len(rows), tmp_path, ask), strict=True)
    torch.testing.assert_close(
        sum(values) / len(rows), value, rtol=1e-12, atol=0
    )
    for slope in slopes:
        torch.testing.assert_close(slope, gradient, rtol=1e-10, atol=1e-15)


def test_counts_come_in_the_order_of_ranks(tmp_path):
    def ask():
        own = [distributed.rank(), 7]
        return distributed.counts_of_all(own, "cpu")

    assert in_processes(2, tmp_path, ask) == [[[0, 7], [1, 7]]] * 2
    assert distributed.counts_of_all((3, 2), "cpu") == [[3, 2]]


def test_a_share_of_nothing_is_zero():
    assert distributed.share_of([4]) == 1.0
    assert distributed.share_of([0]) == 0.0


@pytest.fixture
def settled(monkeypatch):
    """``settled(options, gpus, place)``: the backend that is chosen."""

    def settle(options, gpus=0, place=0):
        monkeypatch.setenv("LOCAL_RANK", str(place))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        device = f"cuda:{place}" if gpus else "cpu"
        monkeypatch.setattr(distributed, "infer_device", lambda: device)
        run_opts = RunOptions.from_dictionary(options)
        return distributed.settle_backend(run_opts).distributed_backend

    return settle


def test_processes_without_gpus_meet_by_gloo(settled, monkeypatch):
    assert settled({}) == "gloo"
    assert settled({"device": "cpu"}, gpus=2) == "gloo"
    assert settled({"distributed_backend": "gloo"}, gpus=2) == "gloo"
    assert settled({}, gpus=2, place=1) == "nccl"
    monkeypatch.delenv("LOCAL_RANK")
    alone = RunOptions()
    assert distributed.settle_backend(alone) is alone


def test_processes_that_cannot_meet_are_refused(settled):
    with pytest.raises(UserError, match="nccl needs a GPU .* gloo"):
        settled({"distributed_backend": "nccl"})
    with pytest.raises(UserError, match="3 .* torch sees 2.*node 2"):
        settled({}, gpus=2, place=2)


def test_a_process_whose_other_is_gone_says_so_in_a_sentence(tmp_path, capfd):
    def train():
        if distributed.rank():
            return None  # and its process ends
        with pytest.raises(SystemExit) as stopped, one_sentence_errors():
            distributed.counts_of_all([1], "cpu")
        return stopped.value.code

    assert in_processes(2, tmp_path, train) == [1, None]
    said = capfd.readouterr().err
    assert said.count("error: another process of this run has ended") == 1
    assert "Traceback" not in said
