"""The Brain with stored answers: as if it had asked the teacher."""

from pathlib import Path

import pytest
import torch
from helpers.answers import taught
from helpers.brains import fit, stats_of
from helpers.states import copy_of, same
from synthetic import TRAIN_SPEAKERS, load_yaml, small_model, write_model

from imlkd_brain.distillation import prototypes, stored_answers
from imlkd_brain.distillation.guidance import Guidance
from imlkd_brain.distillation.prototypes import kept_prototypes
from imlkd_brain.distillation.teacher import load_teacher
from imlkd_brain.distillation.teaching import RecipeGuidance
from imlkd_brain.errors import UserError
from imlkd_brain.models.folder import load_speaker_model


@pytest.fixture(scope="module")
def own_features(tmp_path_factory):
    """A teacher of 30 mels and a frame every 12.5 ms."""
    return write_model(
        tmp_path_factory.mktemp("own"),
        n_mels=30,
        compute_features={"hop_length": 12.5},
    )


@pytest.fixture(scope="module")
def stored(corpus, tmp_path_factory):
    """``stored(source, **walk)``: a folder of answers, made once."""
    made = {}

    def walk(source, **options):
        key = f"{source} {options}"
        if key not in made:
            made[key] = tmp_path_factory.mktemp("answers") / "folder"
            taught(corpus, source, made[key], **options)
        return made[key]

    return walk


@pytest.fixture
def answered(make, stored, teacher_folder):
    """``answered(method, walk=..., **overrides)``: Brain with answers."""
    plain = load_yaml("iml_kd", {"data_folder": "none", **small_model()})
    features = [
        plain[key]
        for key in ("compute_features", "mean_var_norm", "sample_rate")
    ]

    def build(method, walk, source=teacher_folder, **overrides):
        # A folder, or the options to make one with.
        if isinstance(walk, dict):
            walk = stored(source, **walk)
        return make(
            method,
            teacher=load_teacher(source, TRAIN_SPEAKERS, features=features),
            teacher_answers=str(walk),
            **{"answers_variants": 1, **overrides},
        )

    return build


@pytest.mark.parametrize(
    "method", ["vanilla_kd", "iml_kd", "iml_kd_plus", "iml_kd_attention"]
)
@pytest.mark.parametrize("source", ["teacher_folder", "own_features"])
def test_stored_answers_train_the_weights_that_the_teacher_would(
    answered, request, method, source
):
    shared = source == "teacher_folder"
    source = request.getfixturevalue(source)
    brains = []
    # In one case of two segments are cut from some of the chunks only.
    options = {"measure_interval": 1, "segment_share": 1.0 if shared else 0.6}
    for live in (False, True):
        brain = answered(method, walk={}, source=source, **options)
        hparams = brain.hparams
        # Linear in the gradient: rounding stays rounding.
        brain.opt_class = lambda params: torch.optim.SGD(params, lr=0.05)
        assert (hparams.teacher.front_end is None) == shared
        if live:
            hparams.guidance = RecipeGuidance(
                hparams.teacher, hparams.integrated_inputs, 16000
            )
        before = copy_of(brain.modules)
        brains.append(fit(brain))
        assert not same(copy_of(brain.modules), before)
    stored, asked = (b.modules.state_dict() for b in brains)
    for name, value in stored.items():
        # Rows of batches of other utterances: float32 rounds otherwise.
        torch.testing.assert_close(value, asked[name], rtol=1e-4, atol=1e-6)
    rows = [stats_of(brain) for brain in brains]
    losses = [name for name in rows[0] if name.startswith("train loss")]
    assert losses
    for name in losses:
        assert float(rows[0][name]) == pytest.approx(
            float(rows[1][name]), rel=1e-5
        )


def test_attributions_of_the_own_embedding_are_stored_without_classes(
    answered, monkeypatch
):
    def classes(*_, **__):
        raise AssertionError("prototypes were made")

    monkeypatch.setattr(prototypes, "embed_dataset", classes)
    target = {"attribution_target": "own_embedding"}
    walk = {"teacher_classes": "prototypes", **target}
    losses = []
    for live in (False, True):
        brain = answered("iml_kd_attention", walk=walk, **target)
        hparams = brain.hparams
        brain.opt_class = lambda params: torch.optim.SGD(params, lr=0.05)
        if live:
            hparams.guidance = RecipeGuidance(
                hparams.teacher, hparams.integrated_inputs, 16000
            )
        row = stats_of(fit(brain))
        losses.append(float(row["train segment/attention"]))
    # Written with three digits.
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)
    with pytest.raises(UserError, match="attribution_target"):
        answered("iml_kd_attention", walk=walk)


def test_plain_segments_are_answered_from_a_walk_with_attribution(answered):
    """``mode: identity`` against the answers of a ``time_gate`` walk."""
    rows = []
    for walk in ({}, {"mode": "identity"}):
        brain = answered("iml_kd", walk=walk, mode="identity")
        brain.opt_class = lambda params: torch.optim.SGD(params, lr=0.05)
        rows.append(stats_of(fit(brain)))
    # The same segments, whatever else was stored: to the digit.
    loss = "train integrated/instance"
    assert float(rows[0][loss]) > 0
    assert rows[0][loss] == rows[1][loss]
    gated = stats_of(fit(answered("iml_kd", walk={})))
    assert gated[loss] != rows[0][loss]
    fields = "[chunk, integrated, weights]"
    with pytest.raises(UserError, match=r"needs the field\(s\) segment"):
        answered("iml_kd", walk={"answers_fields": fields}, mode="identity")


def test_one_walk_serves_all_gates_of_frames(answered):
    """Where the student alone hears ``I(x_d)``, mode and gate are its own."""
    walk = {"answers_fields": "[chunk, weights]"}
    methods = {"short": {"cross": {"embedding": 1.0}}}
    losses = {}
    for mode, gate in [
        ("time_gate", 0.5),
        ("time_gate", 1.0),
        ("reversed_gate", 1.0),
    ]:
        rows = []
        for live in (False, True):
            brain = answered(
                "short", walk, mode=mode, gate=gate, methods=methods
            )
            brain.opt_class = lambda params: torch.optim.SGD(params, lr=0.05)
            if live:
                hparams = brain.hparams
                hparams.guidance = RecipeGuidance(
                    hparams.teacher, hparams.integrated_inputs, 16000
                )
            row = stats_of(fit(brain))
            rows.append(float(row["train cross/embedding"]))
        # Written with three digits.
        assert rows[0] == pytest.approx(rows[1], rel=1e-2)
        losses[mode, gate] = rows[0]
    assert len(set(losses.values())) == 3
    methods = {"whole": {"integrated": {"embedding": 1.0}}}
    walk = {"answers_fields": "[chunk, integrated, weights]"}
    with pytest.raises(UserError, match="mode: time_gate there, reversed_gate"):
        answered("whole", walk, mode="reversed_gate", methods=methods)


def test_attention_to_weights_that_were_not_stored_is_said(answered):
    with pytest.raises(UserError, match="mode: identity weighs all.*segment"):
        answered("iml_kd_attention", walk={"mode": "identity"}, mode="identity")
    # Plain segments without attention need no weights, and no mode.
    methods = {"short": {"segment": {"embedding": 1.0}}}
    options = {"walk": {"answers_fields": "[chunk]"}, "methods": methods}
    fit(answered("short", **options))
    with pytest.raises(UserError, match="durations"):
        answered("short", durations=[0.3], **options)


def test_the_teacher_is_asked_nothing(answered, monkeypatch):
    brain = answered("iml_kd_plus", walk={"answers_variants": 2})

    def asked(*_):
        raise AssertionError("the teacher was asked")

    for name in ("embed_features", "features", "cosines"):
        monkeypatch.setattr(brain.hparams.teacher, name, asked)
    for name in ("of_chunk", "of_segments", "answer"):
        monkeypatch.setattr(Guidance, name, asked)
    assert float(stats_of(fit(brain))["train loss"]) > 0


def test_noise_may_be_the_students_alone(answered, monkeypatch):
    """The answers are to clean chunks; each epoch hears other noise."""
    heard = []

    def louder(wavs, lens):
        heard.append(wavs)
        return 2 * wavs, lens

    louder.replicate_labels = lambda labels: labels
    brain = answered(
        "segments_kd",
        walk={},
        teacher_hears="clean",
        augmentation=True,
        edit=lambda hparams: hparams.update(wav_augment=louder),
        number_of_epochs=2,
    )
    said = []
    answer = brain.hparams.guidance._answer
    monkeypatch.setattr(
        brain.hparams.guidance,
        "_answer",
        lambda embeddings: said.append(embeddings) or answer(embeddings),
    )
    fit(brain)
    assert len(heard) == len(said) == brain.optimizer_step
    # The dataset checks that the chunks are the walk's before they are changed.
    store = brain.hparams.answers.store
    stored = {tuple(store.record(u, 0)["chunk"]) for u in store.utterances}
    assert {tuple(row.tolist()) for batch in said for row in batch} <= stored


def test_a_teacher_that_is_asked_hears_what_the_student_hears(make):
    with pytest.raises(UserError, match="teacher_hears: clean needs stored"):
        make("iml_kd", teacher_hears="clean")


def test_half_precision_is_close_to_single(answered):
    losses = []
    for precision in ("float16", "float32"):
        walk = {"answers_precision": precision}
        losses.append(stats_of(fit(answered("iml_kd", walk=walk))))
    half, single = (float(row["train loss"]) for row in losses)
    # Half precision has 11 bits; logits are 30 times a cosine.
    assert half == pytest.approx(single, rel=1e-2) and half != single


def test_an_epoch_that_was_interrupted_goes_on_with_its_chunks(answered):
    options = {
        "walk": {"answers_variants": 3},
        "answers_variants": 3,
        "number_of_epochs": 2,
        "batch_size": 2,
        "run_opts": {"ckpt_interval_steps": 1},
    }
    whole = fit(answered("iml_kd", **options))
    brain = answered("iml_kd", **options)
    save = brain._save_intra_epoch_ckpt

    def stopped():
        save()
        if brain.optimizer_step == 7:
            raise KeyboardInterrupt

    brain._save_intra_epoch_ckpt = stopped
    with pytest.raises(KeyboardInterrupt):
        fit(brain)
    output = {"output_folder": brain.hparams.output_folder}
    resumed = fit(answered("iml_kd", **options, **output))
    assert same(copy_of(resumed.modules), copy_of(whole.modules))


def test_prototypes_are_means_of_what_is_stored(
    answered, teacher_folder, tmp_path
):
    walk = {"answers_variants": 3}
    brain = answered("iml_kd", walk, answers_variants=2)
    dataset, _ = brain.data
    model = load_speaker_model(teacher_folder)
    path = tmp_path / "prototypes.pt"
    found = kept_prototypes(dataset, "cpu", model, 4, str(path), {})
    embeddings = {speaker: [] for speaker in TRAIN_SPEAKERS}
    for index in range(2 * len(dataset)):
        item = dataset[index]
        embedding = model.embed(item["sig"][None])[0]
        embeddings[item["id"].partition("-")[0]].append(
            embedding / embedding.norm()
        )
    for row, speaker in zip(found, TRAIN_SPEAKERS, strict=True):
        mean = torch.stack(embeddings[speaker]).mean(0)
        assert len(embeddings[speaker]) == 4
        torch.testing.assert_close(row, mean / mean.norm())
    # The teacher was not asked, so nothing has to be kept.
    assert not path.exists()


@pytest.mark.parametrize(
    ("walk", "training", "words"),
    [
        ({}, {"gate": 1.0}, "gate: 0.5 there, 1.0 here"),
        ({}, {"sentence_len": 0.45}, "seconds: 0.5 there, 0.45 here"),
        ({}, {"durations": [0.3]}, "durations: [0.3, 0.4] there, [0.3] here"),
        ({}, {"n_steps": 2}, "n_steps: 1 there, 2 here"),
        ({}, {"answers_variants": 2}, "(1 are complete)"),
        ({}, {"answers_variants": 0}, "answers_variants: 0"),
        ({}, {"mode": "gate"}, "give `--mode time_gate`"),
        ({}, {"speed_perturb": [1.0, 1.1]}, "utterance anna--s0--1-sp1.1"),
        ({}, {"augmentation": True}, "augmentation"),
        ({}, {"teacher_cache": "there"}, "teacher_cache"),
        (
            {"answers_fields": "[chunk]"},
            {},
            "needs the field(s) integrated, weights, and only chunk",
        ),
        (
            {"attribution_target": "predicted"},
            {},
            "attribution_target: predicted there, true_class here",
        ),
    ],
)
def test_what_does_not_fit_is_one_sentence(answered, walk, training, words):
    with pytest.raises(UserError) as caught:
        answered("iml_kd", walk, **training)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_answers_of_another_teacher_are_refused(
    answered, stored, teacher_folder, tmp_path
):
    other = write_model(tmp_path / "other", seed=1)
    with pytest.raises(UserError, match=r"teacher: content .* there"):
        answered("iml_kd", stored(teacher_folder), source=other)


def test_there_are_no_answers(answered):
    with pytest.raises(UserError, match="no stored answers of a teacher there"):
        answered("iml_kd", "nowhere")


def annotation(corpus, tmp_path, keep=lambda row: True, change=lambda row: row):
    """Some rows of the training's annotation, changed."""
    head, *rows = (corpus / "train.csv").read_text().splitlines()
    path = tmp_path / "changed.csv"
    rows = [change(row) for row in rows if keep(row)]
    path.write_text("\n".join([head, *rows]) + "\n")
    return str(path)


def test_a_training_takes_the_rows_of_some_speakers(answered, corpus, tmp_path):
    some = annotation(
        corpus, tmp_path, lambda row: row.startswith(("anna", "dora"))
    )
    brain = answered("iml_kd", walk={}, train_annotation=some)
    whole = answered("iml_kd", walk={})
    (few, _), (all_, _) = brain.data, whole.data
    assert few.data_ids == [k for k in all_.data_ids if k[:4] in "annadora"]
    for row, name in enumerate(few.data_ids):
        other = all_[all_.data_ids.index(name)]
        for key in ("sig", "frames", "answer_integrated", "answer_weights"):
            assert torch.equal(few[row][key], other[key])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda row: row.replace(",bert", ",dora"), "of the speaker bert"),
        (lambda row: row.replace("cleo--s1--1", "x--s1--1"), "utterance x--s1"),
        (
            lambda row: row.replace("cleo--s1--1,0.65", "cleo--s1--1,0.66"),
            "cleo--s1--1 was 0.65 s long there and is 0.66 s here",
        ),
    ],
)
def test_other_rows_are_refused_by_name(
    answered, corpus, tmp_path, change, words
):
    changed = annotation(corpus, tmp_path, change=change)
    with pytest.raises(UserError) as caught:
        answered("iml_kd", walk={}, train_annotation=changed)
    assert words in str(caught.value)


def test_other_audio_of_the_same_name_is_refused(answered, corpus, tmp_path):
    wavs = {p: p.read_bytes() for p in Path(corpus).glob("wav/bert/*/*.wav")}
    brain = answered("iml_kd", walk={})
    one, two = wavs
    try:
        one.write_bytes(wavs[two][: len(wavs[one])])
        with pytest.raises(UserError, match="bert.*has other levels there"):
            fit(brain)
    finally:
        one.write_bytes(wavs[one])


def test_numbers_that_are_not_finite_never_reach_a_loss(answered, monkeypatch):
    brain = answered("iml_kd", walk={})
    floats = stored_answers._floats
    monkeypatch.setattr(
        stored_answers, "_floats", lambda v: floats(v) * float("nan")
    )
    with pytest.raises(UserError, match="not finite"):
        fit(brain)
