"""An update of two processes is that of one with the same utterances.

What is left aside, since it is another thing on purpose: each process draws
its own noise and places of segments, and on CPUs each has its own BatchNorm
statistics (on GPUs they are synchronised). So there is no augmentation here,
a segment is the whole chunk, and BatchNorm takes its running statistics.
"""

import math
from functools import partial

import pytest
import torch
from helpers.brains import fit
from helpers.states import copy_of
from synthetic import TRAIN_SPEAKERS, in_processes

from imlkd_brain import distributed
from imlkd_brain.distillation import parts
from imlkd_brain.distillation.teacher import load_teacher
from speechbrain.core import Stage
from speechbrain.dataio.batch import PaddedBatch

# Of each method the numbers an utterance has in the tensors that are exchanged
LOGITS, EMBEDDINGS = [len(TRAIN_SPEAKERS)] * 2, [8, 8]
EXCHANGED = {
    "scratch": [],
    "decoupled_kd": [],
    "iml_kd_plus": [*LOGITS, *LOGITS],
    "multi_level_kd": LOGITS,
    "dist": LOGITS,
    "relation_kd": EMBEDDINGS,
}
SPLITS = {"equal": [[0, 1], [2, 3]], "unequal": [[0, 2, 3], [1]]}


@pytest.fixture
def frozen_batchnorm(monkeypatch):
    def forward(self, inputs):
        return torch.nn.functional.batch_norm(
            inputs,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training=False,
        )

    monkeypatch.setattr(torch.nn.BatchNorm1d, "forward", forward)


@pytest.fixture
def update(make, frozen_batchnorm):
    """``update(method, rows, **overrides)``: loss, change of weights, counts."""

    def one(method, rows, **overrides):
        brain = make(
            method,
            run_opts={"distributed_backend": "gloo", "max_grad_norm": -1},
            # Of Adam the first update hardly depends on a gradient's size.
            edit=lambda hparams: hparams.update(
                opt_class=partial(torch.optim.SGD, lr=1.0)
            ),
            lr=1.0,
            base_lr=1.0,
            **overrides,
        )
        # Of a longer segment there is the whole chunk, wherever it begins.
        brain.hparams.integrated_inputs.durations = [1.0]
        brain.on_fit_start()
        brain.on_stage_start(Stage.TRAIN, 1)
        brain.modules.train()
        # Every other utterance: of several speakers.
        items = [brain.data[0][2 * row] for row in rows]
        before = copy_of(brain.modules)
        brain.step = 1
        gathers = []
        exchange = torch.distributed.all_gather

        def counted(parts, own):
            gathers.append((own.dtype, own.numel()))
            return exchange(parts, own)

        torch.distributed.all_gather = counted
        try:
            loss = brain.fit_batch(PaddedBatch(items))
        finally:
            torch.distributed.all_gather = exchange
        after = copy_of(brain.modules)
        change = {
            name.replace("module.", ""): (after[name] - before[name]).double()
            for name in before
            if after[name].is_floating_point()
        }
        return float(loss), change, gathers

    return one


def of_two(update, split, tmp_path, methods, **overrides):
    """What the two processes have of each method."""

    def both():
        rows = split[distributed.rank()]
        return {m: update(m, rows, **overrides) for m in methods}

    return in_processes(2, tmp_path, both)


def distance(one, other):
    """Norm of the difference of two changes, beside the norm of the first."""
    assert one.keys() == other.keys()
    squares = sum(change.square().sum() for change in one.values())
    gap = sum((one[k] - other[k]).square().sum() for k in one)
    return math.sqrt(gap / squares)


@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS)
def test_two_processes_make_the_update_of_one(update, tmp_path, split):
    """And exchange each tensor once, whatever the terms and temperatures."""
    options = {"temperature": [1.0, 4.0]}
    results = of_two(update, split, tmp_path, EXCHANGED, **options)
    most = max(map(len, split))
    for method, widths in EXCHANGED.items():
        loss, change, _ = update(method, range(4), **options)
        losses, changes, all_gathers = zip(
            *(of_rank[method] for of_rank in results), strict=True
        )
        # Float32 leaves 1e-7 of each of some thousand sums.
        assert sum(losses) / 2 == pytest.approx(loss, rel=1e-5), method
        for other, gathers in zip(changes, all_gathers, strict=True):
            assert distance(change, other) < 1e-4, method
            # How many utterances there are, and the tensors; nothing backwards
            sizes = [(torch.float32, most * width) for width in widths]
            assert gathers == [(torch.int64, 2), *sizes], method


def test_without_gathering_each_process_relates_its_own(update, tmp_path):
    method = "iml_kd_plus"
    split, apart = SPLITS["equal"], {"gather_batch": False}
    results = of_two(update, split, tmp_path, [method], **apart)
    _, change, _ = update(method, range(4))
    _, other, gathers = results[0][method]
    assert distance(change, other) > 1e-3
    assert gathers == [(torch.int64, 2)]


def test_parts_of_batches_that_are_not_shared_evenly_count_alike(
    update, tmp_path, monkeypatch
):
    """Segments of the first of each process: of utterances 0 and 1."""

    def first(n_rows, share, seed):
        return [0, 2] if n_rows == 4 else [0]

    monkeypatch.setattr(parts, "draw_rows", first)
    method, options = "iml_kd_plus", {"segment_share": 0.5}
    split = [[0, 2, 3], [1]]
    results = of_two(update, split, tmp_path, [method], **options)
    # The order in which one process has them all
    loss, change, _ = update(method, [0, 2, 1, 3], **options)
    losses, changes, gathers = zip(*(r[method] for r in results), strict=True)
    assert sum(losses) / 2 == pytest.approx(loss, rel=1e-5)
    for other, exchanged in zip(changes, gathers, strict=True):
        assert distance(change, other) < 1e-4
        # The counts of both parts in one exchange
        assert exchanged[0] == (torch.int64, 4)
        assert [n for _, n in exchanged[1:]] == [
            n * width for n in (3, 1) for width in LOGITS
        ]


def test_labels_that_are_not_shared_evenly_count_alike(
    update, teacher_folder, tmp_path
):
    """Two of the utterances of one process have one, one of the other's."""
    names, labelled = tmp_path / "labelled.txt", TRAIN_SPEAKERS[:3]
    names.write_text("\n".join(labelled) + "\n")
    options = {
        "labelled_speakers": str(names),
        "teacher": load_teacher(teacher_folder, labelled),
        "batch_size": 2,
    }
    method = "decoupled_kd"  # it needs a label as AAM-softmax does
    results = of_two(update, SPLITS["equal"], tmp_path, [method], **options)
    loss, change, _ = update(method, range(4), **options)
    losses, changes, _ = zip(*(r[method] for r in results), strict=True)
    assert sum(losses) / 2 == pytest.approx(loss, rel=1e-5)
    assert distance(change, changes[0]) < 1e-4


@pytest.mark.parametrize("keep", [True, False])
def test_last_batches_that_are_not_full_end(make, tmp_path, keep):
    """8 utterances, 4 for each process: batches of 3, and 1 or none."""

    def train():
        brain = make(
            "relation_kd",
            batch_size=3 if not keep else 2,
            number_of_epochs=2,
            train_dataloader_options={"drop_last": not keep},
            run_opts={"distributed_backend": "gloo"},
        )
        return fit(brain).optimizer_step

    assert in_processes(2, tmp_path, train) == [4 if keep else 2] * 2
