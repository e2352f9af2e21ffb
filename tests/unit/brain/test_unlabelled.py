"""The Brain on batches of labelled and unlabelled utterances."""

import pytest
import torch
from helpers.brains import fit, stats_of
from helpers.states import copy_of, same
from synthetic import TRAIN_SPEAKERS, write_model

from imlkd_brain.distillation.teacher import load_teacher
from imlkd_brain.errors import UserError
from imlkd_brain.training import NoClasses
from speechbrain.core import Stage

LABELLED = TRAIN_SPEAKERS[:2]


@pytest.fixture
def names(tmp_path):
    path = tmp_path / "labelled.txt"
    path.write_text("\n".join(LABELLED) + "\n")
    return str(path)


@pytest.fixture
def taught(teacher_folder):
    """The teacher with the classes of the labelled speakers."""
    return load_teacher(teacher_folder, LABELLED)


def one_batch(brain, change=None):
    """The first batch of the first epoch, changed, and what is said of it."""
    brain.on_fit_start()
    brain.on_stage_start(Stage.TRAIN, 1)
    options = brain.hparams.train_dataloader_options
    loader = brain.make_dataloader(brain.data[0], Stage.TRAIN, **options)
    batch = next(iter(loader))
    if change is not None:
        change(batch)
    brain.modules.train()
    predictions = brain.compute_forward(batch, Stage.TRAIN)
    return batch, predictions


@pytest.mark.parametrize("method", ["embedding_kd", "decoupled_kd"])
def test_the_gradient_is_that_of_aam_on_labelled_and_terms_on_all(
    make, taught, names, method
):
    brain = make(method, teacher=taught, labelled_speakers=names)
    batch, predictions = one_batch(brain)
    target = batch.spk_id_encoded.data.squeeze(1)
    rows = [i for i, value in enumerate(target.tolist()) if value >= 0]
    assert 0 < len(rows) < len(target)
    assert {batch.id[i].split("--")[0] for i in rows} <= set(LABELLED)

    weight = brain.modules.embedding_model.fc.conv.weight
    loss = brain.compute_objectives(predictions, batch, Stage.TRAIN)
    (ours,) = torch.autograd.grad(loss, weight, retain_graph=True)

    raw = predictions["raw"]
    # AAM-softmax by its definition, margin 0.2 and scale 30
    cosines = raw.student[rows]
    angles = torch.acos(cosines.clamp(-1 + 1e-7, 1 - 1e-7))
    hot = torch.nn.functional.one_hot(target[rows], len(LABELLED)).bool()
    logits = 30 * torch.where(hot, torch.cos(angles + 0.2), cosines)
    expected = torch.nn.functional.cross_entropy(logits, target[rows])
    if method == "embedding_kd":
        cosine = torch.nn.functional.cosine_similarity(
            raw.student_embeddings, raw.teacher_embeddings
        )
        expected = expected + 10 * (2 - 2 * cosine).mean()
    else:
        # Two classes: none is left among the others, so the binary part alone
        weight_of = 0.25
        for tau in brain.hparams.objective.temperature:
            student, teacher = (
                torch.log_softmax(30 * value[rows].double() / tau, 1)
                for value in (raw.student, raw.teacher)
            )
            kl = (teacher.exp() * (teacher - student)).sum(1).mean()
            expected = expected + weight_of * tau**2 * kl
    (theirs,) = torch.autograd.grad(expected.float(), weight)
    # Both in float32, of the same sums in another order
    assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-5 * ours.abs().max())
    means = brain.means.values()
    assert means["labelled_share"] == len(rows) / len(target)
    right = raw.student[rows].argmax(1) == target[rows]
    assert means["accuracy"] == pytest.approx(float(right.float().mean()))


def test_a_batch_without_labels_has_no_loss_of_labels(make, taught, names):
    brain = make("decoupled_kd", teacher=taught, labelled_speakers=names)
    batch, predictions = one_batch(
        brain, lambda batch: batch.spk_id_encoded.data.fill_(-1)
    )
    brain.on_stage_start(Stage.TRAIN, 1)
    loss = brain.compute_objectives(predictions, batch, Stage.TRAIN)
    loss.backward()
    assert loss == 0
    weights = [
        *brain.modules.embedding_model.parameters(),
        *brain.modules.classifier.parameters(),
    ]
    # Zero, not missing: DDP waits for all of them.
    assert all(w.grad is not None and not w.grad.any() for w in weights)
    assert brain.means.values()["labelled_share"] == 0


def test_all_speakers_labelled_is_a_training_without_the_key(make, tmp_path):
    path = tmp_path / "all.txt"
    path.write_text("\n".join(TRAIN_SPEAKERS) + "\n")
    plain = fit(make("iml_kd"))
    listed = fit(make("iml_kd", labelled_speakers=str(path)))
    assert same(copy_of(plain.modules), copy_of(listed.modules))


def test_without_a_teacher_only_labelled_utterances_are_there(make, names):
    brain = make("scratch", labelled_speakers=names, batch_size=2)
    assert {row["spk_id"] for row in brain.data[0].data.values()} == {*LABELLED}
    fit(brain)


def test_without_any_labels_there_is_no_classifier(make, tmp_path):
    folder = write_model(tmp_path / "teacher", ["others", "more"])
    teacher = load_teacher(
        folder, [], "prototypes", lambda model, n_speakers: torch.zeros(0, 8)
    )

    def build(**more):
        return make(
            "embedding_kd",
            teacher=teacher,
            labelled_speakers="none",
            **more,
        )

    brain = build()
    assert isinstance(brain.modules.classifier, NoClasses)
    fit(brain)
    stats = stats_of(brain)
    assert "valid EER" in stats and "train accuracy" not in stats

    blind = fit(build(valid_trials=None))
    assert blind.dev_figure == "loss" and blind.data[1] is None
    (checkpoint,) = blind.checkpointer.list_checkpoints()
    assert checkpoint.meta["end-of-epoch"] and "loss" in checkpoint.meta


@pytest.mark.parametrize("target", ["true_class", "log_posterior"])
def test_attribution_of_a_true_class_is_refused(make, taught, names, target):
    with pytest.raises(UserError, match="attribution_target predicted"):
        make(
            "iml_kd",
            teacher=taught,
            labelled_speakers=names,
            attribution_target=target,
        )


@pytest.mark.parametrize("trials", [True, False])
def test_a_training_that_goes_on_draws_what_it_would_have_drawn(
    make, taught, names, tmp_path, corpus, trials
):
    def build(n_epochs, **more):
        if not trials:
            # Dev utterances of labelled speakers instead
            more["valid_trials"] = None
            more["valid_annotation"] = str(corpus / "train.csv")
        return make(
            "embedding_kd",
            teacher=taught,
            labelled_speakers=names,
            number_of_epochs=n_epochs,
            **more,
        )

    whole = fit(build(3))
    folder = str(tmp_path / "parts")
    fit(build(1, output_folder=folder))
    parts = fit(build(3, output_folder=folder))
    assert same(copy_of(whole.modules), copy_of(parts.modules))


def test_an_epoch_that_was_interrupted_goes_on_with_its_mixed_batches(
    make, taught, names
):
    options = {
        "teacher": taught,
        "labelled_speakers": names,
        "number_of_epochs": 2,
        "batch_size": 3,
        "run_opts": {"ckpt_interval_steps": 1},
    }
    whole = fit(make("embedding_kd", **options))
    n_updates = whole.optimizer_step // 2
    assert n_updates > 1
    brain = make("embedding_kd", **options)
    save = brain._save_intra_epoch_ckpt

    def stopped():
        save()
        if brain.optimizer_step == n_updates + 1:
            raise KeyboardInterrupt

    brain._save_intra_epoch_ckpt = stopped
    with pytest.raises(KeyboardInterrupt):
        fit(brain)
    output = {"output_folder": brain.hparams.output_folder}
    resumed = fit(make("embedding_kd", **options, **output))
    assert same(copy_of(resumed.modules), copy_of(whole.modules))


@pytest.mark.parametrize("trials", [True, False])
def test_without_labels_it_goes_on_as_well(
    make, teacher_folder, tmp_path, trials
):
    teacher = load_teacher(
        teacher_folder,
        [],
        "prototypes",
        lambda model, n_speakers: torch.zeros(0, 8),
    )

    def build(n_epochs, **more):
        if not trials:
            more["valid_trials"] = None
        return make(
            "embedding_kd",
            teacher=teacher,
            labelled_speakers="none",
            number_of_epochs=n_epochs,
            **more,
        )

    whole = fit(build(3))
    folder = str(tmp_path / "parts")
    fit(build(1, output_folder=folder))
    parts = fit(build(3, output_folder=folder))
    assert same(copy_of(whole.modules), copy_of(parts.modules))
    assert parts.optimizer_step == whole.optimizer_step
