"""The Brain: what a step of each method touches, and what it may not."""

import contextlib
import copy
import csv
import math
import re
import time

import pytest
import torch
import train_kd
from helpers.states import copy_of, same
from hyperpyyaml import load_hyperpyyaml, resolve_references
from synthetic import (
    DEV_SPEAKERS,
    HPARAMS,
    RATE,
    TRAIN_SPEAKERS,
    in_processes,
    small_model,
    write_corpus,
    write_model,
    write_wav,
)
from torch.nn.functional import cosine_similarity
from torch.utils._python_dispatch import TorchDispatchMode
from train_kd import (
    add_speaker_modules,
    add_teacher,
    check_before_training,
    dataio_prep,
    updates_per_epoch,
)

import speechbrain as sb
from imlkd_brain.brain import IMLKDBrain
from imlkd_brain.data.audio import read_audio
from imlkd_brain.data.augmentation import AddNoise, AddReverb
from imlkd_brain.distillation.integrated_inputs import IntegratedInputs
from imlkd_brain.distillation.teacher import Teacher, load_teacher
from imlkd_brain.distillation.teacher_cache import cache_bytes, check_cache_size
from imlkd_brain.errors import UserError
from imlkd_brain.models.export import export_inference_folder
from imlkd_brain.models.folder import load_speaker_model
from imlkd_brain.precision import set_tf32
from speechbrain.augment.augmenter import Augmenter
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.inference.speaker import SpeakerRecognition
from speechbrain.lobes.models.ResNet import ResNet
from speechbrain.lobes.models.Xvector import Xvector
from speechbrain.processing.features import InputNormalization
from speechbrain.utils.metric_stats import EER as speechbrain_eer
from speechbrain.utils.run_opts import RunOptions
from speechbrain.utils.train_logger import TensorboardLogger

METHODS = list(
    load_hyperpyyaml(
        re.search(
            r"^methods:\n(?: .*\n)+",
            (HPARAMS / "iml_kd.yaml").read_text(encoding="utf-8"),
            re.MULTILINE,
        )[0].replace("!ref", "")
    )["methods"]
)
N_UPDATES = 2  # 8 utterances in batches of 4


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def teacher_folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="module")
def teacher(teacher_folder):
    """One for all tests: none of them may change it."""
    return load_teacher(teacher_folder, TRAIN_SPEAKERS)


@pytest.fixture
def make(corpus, teacher, tmp_path):
    """``make(method, run_opts=..., **overrides)``: Brain and its data."""
    count = iter(range(100))

    def build(method, run_opts=None, edit=None, **overrides):
        overrides = {
            "method": method,
            "output_folder": str(tmp_path / f"{method}{next(count)}"),
            "data_folder": str(corpus),
            "train_annotation": str(corpus / "train.csv"),
            "valid_annotation": str(corpus / "dev.csv"),
            "valid_trials": str(corpus / "dev.txt"),
            "number_of_epochs": 1,
            "batch_size": 4,
            "sentence_len": 0.5,
            "durations": [0.3, 0.4],
            "valid_durations": [None, 0.3],
            "speed_perturb": [1.0],
            "eta": 1.0,
            "eta_schedule": "constant",
            "eta_warmup_steps": 0,
            "batchnorm": "raw_only",
            "measure_interval": 0,
            "augmentation": False,
            "base_lr": 0.001,
            **small_model(),
            **overrides,
        }
        with open(HPARAMS / "iml_kd.yaml", encoding="utf-8") as stream:
            hparams = load_hyperpyyaml(stream, overrides)
        if edit:
            edit(hparams)
        train, valid, encoder, hparams["dev_trials"], hparams["chunks"] = (
            dataio_prep(hparams)
        )
        check_before_training(hparams)
        options = RunOptions.from_dictionary(
            {"device": "cpu", "noprogressbar": True} | (run_opts or {})
        )
        n_updates = updates_per_epoch(hparams, options, len(train))
        add_speaker_modules(hparams, len(encoder), n_updates)
        hparams["teacher"] = lambda speakers, prototypes: teacher
        # As the script's main block does it.
        if not hparams["augmentation"]:
            hparams["wav_augment"] = None
        add_teacher(hparams, options, encoder, train)
        hparams["loggers"] = [hparams["train_logger"]]
        brain = IMLKDBrain(
            modules=hparams["modules"],
            opt_class=hparams["opt_class"],
            hparams=hparams,
            run_opts=options,
            checkpointer=hparams["checkpointer"],
        )
        brain.data = train, valid
        return brain

    return build


def fit(brain):
    """Train for the epochs of the YAML; return the brain."""
    brain.fit(
        brain.hparams.epoch_counter,
        *brain.data,
        train_loader_kwargs=dict(brain.hparams.train_dataloader_options),
        valid_loader_kwargs=dict(brain.hparams.valid_dataloader_options),
    )
    return brain


def stats_of(brain):
    """The last epoch's row of the statistics."""
    path = f"{brain.hparams.output_folder}/train_stats.csv"
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))[-1]


def spy(monkeypatch, owner, name):
    """Record what a method is called with and returns."""
    calls = []
    method = getattr(owner, name)

    def recorded(*args, **kwargs):
        result = method(*args, **kwargs)
        calls.append((args, kwargs, result))
        return result

    monkeypatch.setattr(owner, name, recorded)
    return calls


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
    } | {"CKPT.yaml"}

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


@pytest.mark.parametrize("method", ["iml_kd", "iml_kd_plus"])
def test_a_cache_changes_no_result_and_spares_the_teacher(
    make, monkeypatch, tmp_path, method
):
    taught = spy(monkeypatch, Teacher, "embed_features")

    def train(**overrides):
        brain = make(method, **overrides)
        taught.clear()
        fit(brain)
        return copy_of(brain.modules.embedding_model), len(taught)

    plain, asked = train()
    cache = str(tmp_path / "cache")
    first, again = train(teacher_cache=cache)
    assert again == asked > 0
    second, again = train(teacher_cache=cache)
    assert again == 0
    assert same(plain, first) and same(plain, second)
    # Another gate is another input: none of the segments is found.
    assert train(teacher_cache=cache, gate=0.9)[1] > 0
    # And another seed is other chunks.
    assert train(teacher_cache=cache, seed=7)[1] == asked


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("vanilla_kd", {}),
        ("iml_kd", {"durations": [0.4, 0.5]}),
        ("iml_kd_plus", {"durations": [0.25]}),
        (
            "iml_kd_plus",
            {
                "durations": [0.25],
                "augmentation": True,
                "wav_augment": {"concat_original": True, "augment_prob": 1.0},
            },
        ),
    ],
)
def test_the_size_of_a_cache_is_said_before_it_is_filled(
    make, monkeypatch, tmp_path, method, options
):
    sizes = spy(monkeypatch, train_kd, "check_cache_size")
    cache = tmp_path / "cache"
    options = {"number_of_epochs": 3, "teacher_cache": str(cache), **options}
    fit(make(method, **options))
    ((said, limit, folder), _, _) = sizes[0]
    assert (limit, folder) == (100, str(cache))
    files = [p.stat().st_size for p in cache.rglob("*.pt")]
    n_tensors = {"vanilla_kd": 1}.get(method, 2)
    assert len(files) == 3 * N_UPDATES * n_tensors
    # Files have some bytes around the numbers, durations are drawn.
    slack = 1_000 * len(files)
    if "durations" in options and len(options["durations"]) > 1:
        slack += 3 * N_UPDATES * 4 * 4 * 20 * 6
    assert abs(said - sum(files)) <= slack


def test_a_cache_above_its_limit_stops_the_training_before_it(make, tmp_path):
    cache = tmp_path / "cache"
    options = {"teacher_cache": str(cache), "number_of_epochs": 1000}
    with pytest.raises(
        UserError, match=r"about 0.0 GB.*limit \(0.001 GB\).*--teacher_cache nu"
    ):
        make("iml_kd", teacher_cache_limit=0.001, **options)
    assert not cache.exists()
    for enough in (1, None):
        make("iml_kd", teacher_cache_limit=enough, **options)
    with pytest.raises(UserError, match="teacher_cache_limit: 'much' is no nu"):
        make("iml_kd", teacher_cache_limit="much", **options)


def test_a_cache_of_voxceleb_is_terabytes():
    """By hand: 30 epochs of 600,000 rows, speeds included."""
    with open(HPARAMS.parent / "iml_kd.yaml", encoding="utf-8") as stream:
        hparams = load_hyperpyyaml(
            stream, {"data_folder": "none", "output_folder": "none"}
        )
    n_batches = 30 * 600_000 // 96
    n_bytes = cache_bytes(
        hparams["objective"],
        hparams["integrated_inputs"],
        n_batches,
        96,
        n_frames=201,
        n_bands=80,
        n_speakers=3633,
        embedding_dim=192,
    )
    # 150 frames of 80 bands in the mean, and one answer, in four bytes.
    by_hand = n_batches * (96 * 4 * (150 * 80 + 3633 + 192) + 2 * 2000)
    assert n_bytes == by_hand and n_bytes > 1.1e12
    with pytest.raises(UserError, match="about 1,140.* GB.*limit.*100 GB"):
        check_cache_size(n_bytes, hparams["teacher_cache_limit"], "cache")


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


def test_bf16_keeps_distillation_in_float32(make, monkeypatch):
    brain = make("iml_kd", run_opts={"precision": "bf16"}, measure_interval=1)
    model = brain.modules.embedding_model
    outputs = []
    model.register_forward_hook(
        lambda module, _, output: (
            outputs.append(output.dtype) if module.training else None
        )
    )
    terms = spy(monkeypatch, brain.hparams.objective, "branch_terms")
    taught = spy(monkeypatch, brain, "_teacher")
    fit(brain)
    assert len(terms) == N_UPDATES
    for _, _, result in terms:
        assert all(v.dtype == torch.float32 for v in result.values())
        assert all(v.isfinite() for v in result.values())
    assert all(v.dtype == torch.float32 for _, _, r in taught for v in r)
    assert outputs == [torch.bfloat16] * 2 * N_UPDATES
    assert all(p.isfinite().all() for p in brain.modules.parameters())


def test_the_teacher_and_the_classifier_stay_in_float32_whatever_the_key(
    make, monkeypatch
):
    """Where ``allow_tf32: True`` lets the student's network use TF32."""
    brain = make("iml_kd_plus", measure_interval=1)
    seen = {"student": set(), "exact": set()}

    def note(where):
        def hook(*_):
            seen[where].add(torch.backends.cuda.matmul.allow_tf32)

        return hook

    handles = [
        module.register_forward_hook(note(where))
        for where, module in (
            ("student", brain.modules.embedding_model),
            ("exact", brain.modules.classifier),
            ("exact", brain.hparams.teacher.embedding_model),
        )
    ]
    set_tf32(True)
    try:
        fit(brain)
    finally:
        set_tf32(False)
        for handle in handles:
            handle.remove()
    assert seen == {"student": {True}, "exact": {False}}


def test_segments_are_cut_by_the_hop_of_the_features(make, monkeypatch):
    """0.3 s at a hop of 20 ms are 15 frames."""
    hop = {"compute_features": {"hop_length": 20}, "durations": [0.3]}
    brain = make("iml_kd", **hop)
    assert brain.hparams.integrated_inputs.frame_rate == 50
    cut = spy(monkeypatch, IntegratedInputs, "segments")
    fit(brain)
    assert {result.features.shape[1] for _, _, result in cut} == {15}


def test_a_chunk_shorter_than_a_duration_is_refused(make):
    with pytest.raises(UserError, match=r"durations: 0.6 s .* 0.5 s"):
        make("iml_kd", durations=[0.3, 0.6])
    make("scratch", durations=[0.3, 0.6])


def test_global_normalisation_is_kept_and_exported(make, corpus, tmp_path):
    brain = fit(make("scratch", mean_var_norm={"norm_type": "global"}))
    norm = brain.modules.mean_var_norm
    assert norm.count > 0
    # A checkpoint has the statistics: whoever goes on from it has the same.
    again = make(
        "scratch",
        mean_var_norm={"norm_type": "global"},
        output_folder=brain.hparams.output_folder,
    )
    again.on_fit_start()
    assert again.modules.mean_var_norm.count == norm.count
    assert torch.equal(again.modules.mean_var_norm.glob_mean, norm.glob_mean)

    resolved = tmp_path / "hyperparams.yaml"
    overrides = {
        "data_folder": "none",
        "mean_var_norm": {"norm_type": "global"},
        **small_model(),
    }
    with open(HPARAMS / "iml_kd.yaml", encoding="utf-8") as stream:
        resolved.write_text(resolve_references(stream, overrides).getvalue())
    encoder = CategoricalEncoder()
    encoder.update_from_iterable(TRAIN_SPEAKERS)

    def export(**more):
        return export_inference_folder(
            tmp_path / "inference",
            resolved,
            brain.modules.embedding_model,
            brain.modules.classifier,
            encoder,
            **more,
        )

    with pytest.raises(UserError, match="norm_type global"):
        export()
    unused = InputNormalization(norm_type="global")
    with pytest.raises(UserError, match="has seen no features"):
        export(mean_var_norm=unused)
    folder = export(mean_var_norm=norm)

    wavs = torch.randn(2, RATE, generator=torch.Generator().manual_seed(0))
    brain.modules.eval()
    with torch.no_grad():
        # By the definition: less the mean of all frames that were seen.
        feats = brain.modules.compute_features(wavs) - norm.glob_mean
        expected = brain.modules.embedding_model(feats).squeeze(1)
    model = load_speaker_model(folder)
    assert torch.equal(model.embed(wavs), expected)
    inference = SpeakerRecognition.from_hparams(
        source=str(folder), savedir=str(folder), run_opts={"device": "cpu"}
    )
    assert torch.equal(inference.encode_batch(wavs).squeeze(1), expected)
    # The statistics go where the weights go, and are part of the key.
    assert model.to("meta").mean_var_norm.glob_mean.is_meta
    state = torch.load(folder / "mean_var_norm.ckpt")
    state["glob_mean"] += 1
    torch.save(state, folder / "mean_var_norm.ckpt")
    assert load_speaker_model(folder).key != model.key
    state["glob_mean"][0] = torch.nan
    torch.save(state, folder / "mean_var_norm.ckpt")
    with pytest.raises(UserError, match="mean_var_norm.ckpt.*NaN"):
        load_speaker_model(folder)
    (folder / "mean_var_norm.ckpt").unlink()
    with pytest.raises(UserError, match="mean_var_norm.ckpt: missing"):
        load_speaker_model(folder)


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
        brain._check_modules()


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
            valid_durations=[None],
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


def test_a_resumed_epoch_has_the_row_of_a_whole_one(make):
    """Stopped after three of an epoch's four updates: all four are in its row.

    Also what is measured before the interruption only.
    """
    options = {
        "number_of_epochs": 2,
        "batch_size": 2,
        "measure_interval": 3,
        "run_opts": {"ckpt_interval_steps": 1},
    }
    whole = stats_of(fit(make("iml_kd", **options)))
    assert "train completeness_gap" in whole
    brain = make("iml_kd", **options)
    save = brain._save_intra_epoch_ckpt

    def stopped():
        save()
        if brain.optimizer_step == 7:
            raise KeyboardInterrupt

    brain._save_intra_epoch_ckpt = stopped
    with pytest.raises(KeyboardInterrupt):
        fit(brain)
    seconds = time.monotonic() - brain.stage_began
    output = {"output_folder": brain.hparams.output_folder}
    resumed = stats_of(fit(make("iml_kd", **options, **output)))
    # The time until the checkpoint counts as well.
    assert float(resumed.pop("train seconds")) > 0.5 * seconds
    assert resumed == {k: v for k, v in whole.items() if k != "train seconds"}


def test_an_interrupted_run_adds_the_noise_of_an_uninterrupted_one(
    make, tmp_path
):
    """Other files, and from other samples on, would give other weights."""
    rows = ["ID,duration,wav,wav_format,wav_opts"]
    for i in range(5):
        path = write_wav(tmp_path / f"{i}.wav", 0.4 + 0.1 * i, 80 + 70 * i, i)
        rows.append(f"{i},{0.4 + 0.1 * i},{path},wav,")
    csv_file = tmp_path / "noise.csv"
    csv_file.write_text("\n".join(rows) + "\n")

    def augmented(hparams):
        hparams["wav_augment"] = Augmenter(
            min_augmentations=2,
            max_augmentations=2,
            augmentations=[AddNoise(str(csv_file)), AddReverb(str(csv_file))],
        )

    options = {
        "augmentation": True,
        "edit": augmented,
        "number_of_epochs": 2,
        "run_opts": {"ckpt_interval_steps": 1},
    }
    whole = fit(make("scratch", **options))
    broken = make("scratch", **options)
    save = broken._save_intra_epoch_ckpt

    def stopped():
        save()
        if broken.optimizer_step == 3:
            raise KeyboardInterrupt

    broken._save_intra_epoch_ckpt = stopped
    with pytest.raises(KeyboardInterrupt):
        fit(broken)
    output = {"output_folder": broken.hparams.output_folder}
    resumed = fit(make("scratch", **options, **output))
    assert same(copy_of(whole.modules), copy_of(resumed.modules))


def test_validation_is_deterministic_and_its_eer_speechbrains(make, corpus):
    brain = make("scratch", valid_dataloader_options={"batch_size": 1})
    results = []
    for _ in range(2):
        brain.on_stage_start(sb.Stage.VALID, 1)
        brain.modules.eval()
        loader = brain.make_dataloader(
            brain.data[1], sb.Stage.VALID, None, batch_size=1
        )
        for batch in loader:
            brain.evaluate_batch(batch, sb.Stage.VALID)
        results.append(
            [brain._dev_eer(s) for s in brain.hparams.valid_durations]
        )
    assert results[0] == results[1]

    # The same figure from files, one utterance at a time.
    hparams = brain.hparams
    embeddings = {}
    for name in hparams.dev_trials.utterances:
        signal = read_audio(f"{corpus}/wav/{name}.wav").unsqueeze(0)
        lens = torch.ones(1)
        with torch.no_grad():
            feats = hparams.mean_var_norm(
                hparams.compute_features(signal), lens
            )
            embeddings[name] = brain.modules.embedding_model(feats, lens)[0, 0]
    positive, negative = [], []
    for line in (corpus / "dev.txt").read_text().splitlines():
        label, enrol, test = line.replace(".wav", "").split()
        score = cosine_similarity(embeddings[enrol], embeddings[test], dim=0)
        (positive if label == "1" else negative).append(score)
    expected, _ = speechbrain_eer(torch.stack(positive), torch.stack(negative))
    # Scores differ in rounding, the EER of 15 trials in nothing.
    assert results[0][0] == pytest.approx(100 * float(expected), abs=1e-4)
    lengths = {len(brain._crop(batch, 0.3)[0][0]) for batch in loader}
    assert lengths == {int(0.3 * RATE)}


def test_dev_eer_of_known_embeddings(make):
    """One trial of each label on the wrong side: SpeechBrain's EER too."""
    brain = make("scratch")
    names = brain.trials.utterances
    torch.manual_seed(1)
    full = {name: torch.randn(8) for name in names}
    cropped = {name: torch.randn(8) for name in names}
    brain.embeddings = {None: full, 0.3: cropped}
    labels = brain.trials.labels
    scores = torch.stack(
        [
            cosine_similarity(full[names[a]], cropped[names[b]], dim=0)
            for a, b in brain.trials.pairs.tolist()
        ]
    )
    expected, _ = speechbrain_eer(scores[labels], scores[~labels])
    assert brain._dev_eer(0.3) == pytest.approx(100 * float(expected), abs=1e-4)


def test_without_dev_trials_the_error_rate_decides(make, corpus):
    brain = make(
        "iml_kd",
        valid_trials=None,
        valid_annotation=str(corpus / "train.csv"),
        valid_durations=[None],
        valid_dataloader_options={"batch_size": 3},
    )
    wrong = []
    evaluate = brain.evaluate_batch

    def counted(batch, stage):
        loss = evaluate(batch, stage)
        with torch.no_grad():
            cosines = brain._validate(batch.to("cpu"))
        target = batch.spk_id_encoded.data.squeeze(1)
        wrong.extend((cosines.argmax(-1) != target).tolist())
        return loss

    brain.evaluate_batch = counted
    fit(brain)
    assert len(wrong) == 8
    stats = stats_of(brain)
    # Batches of 3, 3 and 2 count by their utterances.
    assert float(stats["valid ErrorRate"]) == pytest.approx(sum(wrong) / 8)
    (checkpoint,) = brain.checkpointer.list_checkpoints()
    assert checkpoint.meta["ErrorRate"] == pytest.approx(sum(wrong) / 8)


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


def test_tensorboard_steps_are_epochs_also_after_an_interruption(make):
    written = []
    output = {}
    for epochs in (1, 2):
        brain = make("scratch", number_of_epochs=epochs, **output)
        output = {"output_folder": brain.hparams.output_folder}
        # SpeechBrain's logger around a writer that only remembers.
        logger = TensorboardLogger.__new__(TensorboardLogger)
        logger.global_step = {"train": {}, "valid": {}, "test": {}, "meta": 0}
        logger.writer = logger
        logger.add_scalar = lambda *scalar: written.append(scalar)
        brain.hparams.loggers.append(logger)
        fit(brain)
    for tag in ("loss/train", "EER/valid", "lr"):
        assert [step for name, _, step in written if name == tag] == [1, 2]


@pytest.mark.parametrize("n_files", [0, 2])
def test_an_interrupted_checkpoint_is_none(make, monkeypatch, n_files):
    """Stopped while it is written, the training goes on from the last one."""
    whole = fit(make("scratch", number_of_epochs=2))
    brain = fit(make("scratch", number_of_epochs=1))
    output = {"output_folder": brain.hparams.output_folder}
    brain = make("scratch", number_of_epochs=2, **output)
    written, save = [], torch.save

    def stopped(*args, **kwargs):
        if len(written) == n_files:
            raise KeyboardInterrupt
        written.append(args)
        save(*args, **kwargs)

    with monkeypatch.context() as context:
        context.setattr(torch, "save", stopped)
        with pytest.raises(KeyboardInterrupt):
            fit(brain)
    resumed = fit(make("scratch", number_of_epochs=2, **output))
    assert same(
        copy_of(whole.modules.embedding_model),
        copy_of(resumed.modules.embedding_model),
    )
    folders = {
        path.name for path in resumed.checkpointer.checkpoints_dir.glob("*/")
    }
    assert "CKPT+epoch_002" in folders and "building" not in folders


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


def test_configurations_that_cannot_be_trained_are_refused(make, monkeypatch):
    with pytest.raises(UserError, match="batch_size: 9 .* 8 training"):
        make("scratch", batch_size=9)
    with pytest.raises(UserError, match="export: 'first'"):
        make("scratch", export="first")
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
    monkeypatch.setattr(train_kd, "find_spec", lambda _: None)
    with pytest.raises(UserError, match="tensorboard is not installed"):
        make("scratch", use_tensorboard=True)


def drawn(brain, monkeypatch):
    """Record what each batch of a training draws at random."""
    draws = []
    seed = brain._seed_step

    def seeded():
        seed()
        state = torch.random.get_rng_state()
        draws.append({"augmentation": torch.rand(3).tolist()})
        torch.random.set_rng_state(state)

    monkeypatch.setattr(brain, "_seed_step", seeded)
    segments = brain.hparams.integrated_inputs.segments

    def cropped(feats, *generators):
        segment = segments(feats, *generators)
        draws[-1].update(
            frames=segment.features.shape[1], starts=segment.start.tolist()
        )
        return segment

    monkeypatch.setattr(brain.hparams.integrated_inputs, "segments", cropped)
    return draws


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
        if brain._rank == rank:
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


def test_a_single_process_draws_as_rank_zero_does(make):
    """The numbers of earlier trainings: seed and update alone."""
    brain = make("scratch", seed=7)
    brain.step, brain.optimizer_step = 5, 12
    assert brain._step_seed() == brain._step_seed(brain._rank) == 7_000_033


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


def test_a_resumed_training_draws_and_learns_what_an_uninterrupted_one_does(
    make, monkeypatch
):
    """Stopped amid an update of three batches, one of four left over."""
    options = {
        "run_opts": {"grad_accumulation_factor": 3, "ckpt_interval_steps": 1},
        "batch_size": 2,
        "number_of_epochs": 3,
        "augmentation": True,
    }
    whole = make("iml_kd", **options)
    expected = drawn(whole, monkeypatch)
    fit(whole)
    assert whole.optimizer_step == 3

    broken = make("iml_kd", **options)
    draws = drawn(broken, monkeypatch)
    seeded = broken._seed_step

    def stopped():
        seeded()
        if len(draws) == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(broken, "_seed_step", stopped)
    with pytest.raises(KeyboardInterrupt):
        fit(broken)
    resumed = make(
        "iml_kd", **options, output_folder=broken.hparams.output_folder
    )
    again = drawn(resumed, monkeypatch)
    fit(resumed)
    assert again and again == expected[-len(again) :]
    assert same(copy_of(whole.modules), copy_of(resumed.modules))


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


class NoBlockingCopy(TorchDispatchMode):
    """Refuse a copy to the device that waits for the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func.overloadpacket in (
            torch.ops.aten._to_copy,
            torch.ops.aten.copy_,
        ):
            waits = not kwargs.get("non_blocking", False)
            source = args[-1] if "copy_" in str(func) else args[0]
            assert not (waits and source.device != result.device), func
        return result


@pytest.mark.parametrize(
    ("method", "options"),
    [
        *((method, {"mode": "time_gate"}) for method in METHODS),
        ("iml_kd", {"mode": "mask", "rule": "stochastic"}),
        ("iml_kd", {"mode": "overlay", "attribution_baseline": "noise"}),
        ("iml_kd", {"mode": "gate", "attribution_baseline": [0.0] * 20}),
        ("iml_kd", {"mode": "gate", "attribution_target": "predicted"}),
    ],
)
def test_a_step_never_waits_for_the_device(make, monkeypatch, method, options):
    """On a device whose numbers nobody can read, as on a GPU far behind."""
    brain = make(method, **options)
    loader = brain.make_dataloader(brain.data[0], sb.Stage.TRAIN, batch_size=4)
    batch = next(iter(loader))
    brain.on_fit_start()
    brain.on_stage_start(sb.Stage.TRAIN, 1)
    # SpeechBrain's features and autocast do not know the device `meta`.
    monkeypatch.setattr(
        torch, "autocast", lambda *_, **__: contextlib.nullcontext()
    )
    feats = torch.empty(4, 51, small_model()["n_mels"], device="meta")
    modules = brain.modules.to("meta")
    monkeypatch.setattr(modules.compute_features, "forward", lambda _: feats)
    monkeypatch.setattr(modules.mean_var_norm, "forward", lambda x, _: x)
    if brain.distils:
        brain.hparams.teacher = copy.deepcopy(brain.hparams.teacher).to("meta")
    brain.device = "meta"
    brain.modules.train()
    with NoBlockingCopy():
        outputs = brain.compute_forward(batch, sb.Stage.TRAIN)
        loss = brain.compute_objectives(outputs, batch, sb.Stage.TRAIN)
        loss.backward()
    assert loss.device.type == "meta"
