"""The Brain: what a training step of each method touches, and what it may not."""

from collections import Counter

import pytest
import torch
from helpers.brains import METHODS, N_UPDATES, fit, spy, stats_of
from helpers.states import copy_of, same
from synthetic import (
    small_model,
)

from imlkd_brain.distillation.integrated_inputs import IntegratedInputs
from speechbrain.lobes.models.ResNet import ResNet
from speechbrain.lobes.models.Xvector import Xvector


@pytest.mark.parametrize("method", METHODS)
def test_an_epoch_changes_the_student_and_nothing_else(
    make, teacher, monkeypatch, method
):
    calls = spy(monkeypatch, IntegratedInputs, "__call__")
    brain = make(method)
    modules = brain.modules
    objective = brain.hparams.objective
    assert "teacher" not in modules and "projection" not in modules
    if method == "scratch":
        # Not even loaded: the key still holds the constructor.
        assert not isinstance(brain.hparams.teacher, torch.nn.Module)
    else:
        assert brain.hparams.teacher is teacher
    frozen = copy_of(teacher)
    before = {name: copy_of(modules[name]) for name in modules}
    modules.train()
    fit(brain)

    assert same(frozen, copy_of(teacher))
    assert not any(m.training for m in teacher.modules())
    assert all(p.grad is None for p in teacher.parameters())
    for name in ("embedding_model", "classifier"):
        after = dict(modules[name].named_parameters())
        assert after and all(
            not torch.equal(before[name][key], value)
            for key, value in after.items()
        )
    for name in set(modules) - {"embedding_model", "classifier"}:
        assert same(before[name], copy_of(modules[name]))

    student = [
        *modules.embedding_model.parameters(),
        *modules.classifier.parameters(),
    ]
    optimised = [
        p for group in brain.optimizer.param_groups for p in group["params"]
    ]
    assert {id(p) for p in optimised} == {id(p) for p in student}
    assert sum(p.numel() for p in modules.parameters()) == sum(
        p.numel() for p in student
    )
    (checkpoint,) = brain.checkpointer.list_checkpoints()
    assert set(checkpoint.paramfiles) == {
        "embedding_model",
        "classifier",
        "counter",
        "optimizer",
        "lr_annealing",
        "brain",
        "dataloader-TRAIN",
    }
    assert {path.name for path in checkpoint.path.iterdir()} == {
        f"{name}.ckpt" for name in checkpoint.paramfiles
    } | {"CKPT.yaml", "checksums.json"}

    has_branch = objective.needs("integrated") or objective.needs("cross")
    assert len(calls) == (N_UPDATES if has_branch else 0)
    assert (method == "scratch") == (not objective.terms)
    logged = {key for key in stats_of(brain) if "/" in key}
    assert logged == {
        f"train {term}{what}"
        for term in objective.terms
        for what in ("", " weighted")
    }
    # The learning rate moves with the updates.
    assert brain.hparams.lr_annealing.clr_iterations == N_UPDATES
    assert brain.optimizer_step == N_UPDATES


def test_integrated_inputs_are_constants_for_the_student(make, monkeypatch):
    brain = make("iml_kd", mode="gate")
    produced = spy(monkeypatch, IntegratedInputs, "__call__")
    seen = []
    brain.modules.embedding_model.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0])
    )
    taught = spy(monkeypatch, type(brain.hparams.teacher), "embed_features")
    fit(brain)
    integrated = [result[0] for _, _, result in produced]
    assert len(integrated) == N_UPDATES
    for values in integrated:
        assert not values.requires_grad and values.grad_fn is None
        # The very same tensor goes to the student and to the teacher.
        assert any(values is s for s in seen)
        assert any(torch.equal(values, args[1]) for args, _, _ in taught)
    assert all(not values.requires_grad for values in seen)


def test_cross_branch_sets_the_segment_against_the_whole_chunk(
    make, monkeypatch
):
    brain = make("iml_kd_plus")
    objective = brain.hparams.objective
    assert objective.needs("raw") and objective.needs("cross")
    assert not objective.needs("integrated")
    produced = spy(monkeypatch, IntegratedInputs, "__call__")
    taught = spy(monkeypatch, type(brain.hparams.teacher), "embed_features")
    compared = spy(monkeypatch, objective, "branch_terms")
    fit(brain)
    # One pass of the teacher a step outside the attribution, on x alone.
    chunks = [
        (args[1], result)
        for args, _, result in taught
        if not args[1].requires_grad
    ]
    assert len(produced) == len(chunks) == N_UPDATES
    for (_, _, (inputs, _)), (feats, _) in zip(produced, chunks, strict=True):
        assert inputs.shape[1] < feats.shape[1]
    by_branch = {"raw": [], "cross": []}
    for args, _, _ in compared:
        by_branch[args[0]].append(args[1])
    for step, (_, teacher_embeddings) in enumerate(chunks):
        raw, cross = (by_branch[b][step] for b in ("raw", "cross"))
        assert torch.equal(raw.teacher_embeddings, teacher_embeddings)
        assert torch.equal(cross.teacher_embeddings, teacher_embeddings)
        assert torch.equal(raw.teacher, cross.teacher)
        # But the student has seen two things.
        assert not torch.equal(raw.student_embeddings, cross.student_embeddings)


def test_zero_eta_is_scratch_bit_for_bit_unless_batchnorm_is_shared(make):
    scratch = fit(make("scratch")).modules

    def states(brain):
        return [
            {**copy_of(m.embedding_model), **copy_of(m.classifier)}
            for m in (scratch, fit(brain).modules)
        ]

    assert same(*states(make("iml_kd", eta=0.0, batchnorm="raw_only")))
    # A policy of BatchNorm is seen in its buffers and, here, in nothing else.
    for policy, follows in (("running", False), ("shared", True)):
        brain = make("iml_kd", eta=0.0, batchnorm=policy)
        alone, after = states(brain)
        differ = {k for k in after if not torch.equal(alone[k], after[k])}
        assert differ == {
            key
            for key in after
            if follows and ("running" in key or "num_batches" in key)
        }
        brain.modules.train()
        norms = list(brain.modules.embedding_model.modules())
        assert all(m.training for m in norms)
    # And it is eta that made it so.
    assert not same(*states(make("iml_kd", eta=1.0)))


def test_all_methods_start_from_the_same_student_and_data(make, monkeypatch):
    scratch = make("scratch")
    # A teacher of another dimension, so that there is a projection too.
    other = make("iml_kd", lin_neurons=12)
    same_dim = make("iml_kd")
    assert "projection" in other.modules
    start = copy_of(scratch.modules.embedding_model)
    assert same(start, copy_of(same_dim.modules.embedding_model))
    seen = {}
    for brain in (scratch, same_dim):
        calls = spy(monkeypatch, brain, "_target")
        hook = brain.modules.compute_features.register_forward_pre_hook(
            lambda _, inputs, brain=brain: (
                seen.setdefault(brain, []).append(inputs[0])
                if brain.modules.training
                else None
            )
        )
        fit(brain)
        hook.remove()
        assert calls
    one, two = seen.values()
    assert len(one) == N_UPDATES and all(map(torch.equal, one, two))


def test_projection_where_dimensions_differ_and_embeddings_are_compared(make):
    brain = make("embedding_kd", lin_neurons=12)
    projection = brain.modules["projection"]
    assert projection.weight.shape == (8, 12)
    before = copy_of(projection)
    fit(brain)
    assert not same(before, copy_of(projection))
    optimised = [
        p for group in brain.optimizer.param_groups for p in group["params"]
    ]
    assert any(p is projection.weight for p in optimised)
    (checkpoint,) = brain.checkpointer.list_checkpoints()
    assert "projection" in checkpoint.paramfiles
    assert "projection" not in make("vanilla_kd", lin_neurons=12).modules
    assert "projection" not in make("embedding_kd").modules


def test_projection_where_dimensions_agree(make):
    always = {"embedding_projection": "always"}
    brain = make("embedding_kd", number_of_epochs=1, **always)
    projection = brain.modules["projection"]
    assert projection.weight.shape == (8, 8)
    # Students start alike, with the key and without it.
    student = brain.modules.embedding_model
    assert same(
        copy_of(student), copy_of(make("embedding_kd").modules.embedding_model)
    )
    before = copy_of(projection)
    fit(brain)
    trained = copy_of(projection)
    assert not same(before, trained)
    # A second start goes on with the projection that was learnt.
    again = make(
        "embedding_kd",
        output_folder=brain.hparams.output_folder,
        number_of_epochs=2,
        **always,
    )
    assert same(before, copy_of(again.modules["projection"]))
    again.checkpointer.recover_if_possible()
    assert same(trained, copy_of(again.modules["projection"]))
    assert "projection" not in make("vanilla_kd", **always).modules


def test_gradient_shares_and_completeness_are_logged(make):
    stats = stats_of(fit(make("iml_kd", measure_interval=1, rule="midpoint")))
    shares = {k: float(v) for k, v in stats.items() if "gradient_share" in k}
    assert set(shares) == {
        f"train {name} gradient_share"
        for name in (
            "loss_ce",
            "integrated/instance",
            "integrated/embedding",
            "integrated/class",
            "integrated/batch",
        )
    }
    # Means over updates of shares that sum to one, in float64.
    assert sum(shares.values()) == pytest.approx(1, abs=1e-9)
    assert all(0 < share < 1 for share in shares.values())
    assert 0 <= float(stats["train completeness_gap"]) < 2
    # The loss is the sum of what is logged: float32 sums of few numbers.
    weighted = sum(float(v) for k, v in stats.items() if "weighted" in k)
    assert float(stats["train loss"]) == pytest.approx(
        float(stats["train loss_ce"]) + weighted, rel=1e-5
    )


def test_teacher_and_student_see_the_same_augmented_view(make, monkeypatch):
    seen = {}
    for method in ("vanilla_kd", "embedding_kd"):
        brain = make(
            method, augmentation=True, wav_augment={"augment_prob": 1.0}
        )
        augmented = spy(monkeypatch, brain.hparams.wav_augment, "forward")
        student = seen[method] = []
        brain.modules.embedding_model.register_forward_pre_hook(
            lambda module, inputs, student=student: (
                student.append(inputs[0]) if module.training else None
            )
        )
        with monkeypatch.context() as context:
            taught = spy(context, brain.hparams.teacher, "embed_features")
            fit(brain)
        assert len(student) == len(taught) == len(augmented) == N_UPDATES
        for ours, (args, _, _) in zip(student, taught, strict=True):
            assert torch.equal(ours, args[0])
        for (before, _), _, (after, _) in augmented:
            assert not torch.equal(before, after)
    # The same view for all methods at a seed.
    assert all(map(torch.equal, *seen.values()))


def test_augmentations_repeat_labels_with_items(make):
    brain = make(
        "iml_kd",
        augmentation=True,
        wav_augment={"augment_prob": 1.0, "concat_original": True},
    )
    fit(brain)
    assert float(stats_of(brain)["train loss"]) > 0


def test_segments_are_cut_by_the_hop_of_the_features(make, monkeypatch):
    """0.3 s at a hop of 20 ms are 15 frames."""
    hop = {"compute_features": {"hop_length": 20}, "durations": [0.3]}
    brain = make("iml_kd", **hop)
    assert brain.hparams.integrated_inputs.frame_rate == 50
    cut = spy(monkeypatch, IntegratedInputs, "segments")
    fit(brain)
    assert {result.features.shape[1] for _, _, result in cut} == {15}


XVECTOR = {
    "tdnn_blocks": 2,
    "tdnn_channels": [8, 16],
    "tdnn_kernel_sizes": [3, 1],
    "tdnn_dilations": [1, 1],
    "lin_neurons": 8,
    "in_channels": small_model()["n_mels"],
}


RESNET = {
    "input_size": small_model()["n_mels"],
    "channels": [4, 4, 4, 4],
    "block_sizes": [1, 1, 1, 1],
    "lin_neurons": 8,
}


@pytest.mark.parametrize(
    "kind, options", [(Xvector, XVECTOR), (ResNet, RESNET)]
)
def test_any_speechbrain_embedding_model_can_be_the_student(
    make, kind, options
):
    def other(hparams):
        model = kind(device="cpu", **options)
        hparams["embedding_model"] = hparams["modules"]["embedding_model"] = (
            model
        )
        hparams["checkpointer"].recoverables["embedding_model"] = model

    brain = make("iml_kd", edit=other)
    before = copy_of(brain.modules.embedding_model)
    fit(brain)
    assert not same(before, copy_of(brain.modules.embedding_model))


@pytest.mark.parametrize(
    ("method", "students", "answers", "maps"),
    [
        ("scratch", 1, 0, 0),
        ("multi_level_kd", 1, 1, 0),
        ("iml_kd", 2, 1, 1),
        ("iml_kd_plus", 2, 1, 1),
        ("segments_kd", 2, 1, 0),
    ],
)
def test_how_often_an_update_asks_the_networks(
    make, teacher, method, students, answers, maps
):
    """What an update costs is decided by these passes."""
    brain = make(method, n_steps=1)
    passes = Counter()

    def student(module, given, _):
        passes["student"] += module.training

    def asked(module, given, _):
        passes["map" if torch.is_grad_enabled() else "answer"] += 1

    handles = [
        brain.modules.embedding_model.register_forward_hook(student),
        teacher.embedding_model.register_forward_hook(asked),
    ]
    fit(brain)
    for handle in handles:
        handle.remove()
    assert passes["student"] == students * N_UPDATES
    assert passes["answer"] == answers * N_UPDATES
    assert passes["map"] == maps * N_UPDATES
