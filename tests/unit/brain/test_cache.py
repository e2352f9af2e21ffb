"""The Brain: the teacher's answers, kept for the next student."""

import multiprocessing

import pytest
import torch
from helpers.brains import N_UPDATES, fit, spy
from helpers.states import copy_of, same
from synthetic import (
    HPARAMS,
    load_yaml,
)

from imlkd_brain.distillation import teacher_cache
from imlkd_brain.distillation.teacher import Teacher
from imlkd_brain.distillation.teacher_cache import cache_bytes, check_cache_size
from imlkd_brain.errors import UserError


@pytest.mark.parametrize(
    "method", ["iml_kd", "iml_kd_plus", "iml_kd_attention"]
)
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
    # Another gate is another input, another rule also other weights: none of
    # the segments is found.
    other = {"rule": "right"} if method == "iml_kd_attention" else {"gate": 0.9}
    assert train(teacher_cache=cache, **other)[1] > 0
    # And another seed is other chunks.
    assert train(teacher_cache=cache, seed=7)[1] == asked


def test_two_trainings_at_once_share_a_cache(make, tmp_path):
    """Neither reads half an entry of the other's."""
    plain = copy_of(fit(make("iml_kd")).modules.embedding_model)
    context = multiprocessing.get_context("fork")
    brains = [make("iml_kd", teacher_cache=str(tmp_path / "c")) for _ in "ab"]
    meeting = context.Barrier(2)

    def train(number):
        # A forked process cannot use the threads of its parent.
        torch.set_num_threads(1)
        meeting.wait(60)
        fit(brains[number])
        state = brains[number].modules.embedding_model.state_dict()
        torch.save(state, tmp_path / f"{number}.pt")

    processes = [context.Process(target=train, args=(n,)) for n in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    for number in (0, 1):
        assert same(plain, torch.load(tmp_path / f"{number}.pt"))


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
    sizes = spy(monkeypatch, teacher_cache, "check_cache_size")
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


def test_a_cache_of_voxceleb_is_terabytes(tmp_path):
    """By hand: 30 epochs of 600,000 rows, speeds included."""
    overrides = {"data_folder": "none", "output_folder": str(tmp_path)}
    hparams = load_yaml("iml_kd", overrides, HPARAMS.parent)
    n_batches = 30 * 600_000 // 96
    n_bytes = cache_bytes(
        hparams["objective"],
        hparams["integrated_inputs"],
        n_batches,
        (96, 201, 80),
        (3633, 192),
    )
    # 150 frames of 80 bands in the mean, and one answer, in four bytes.
    by_hand = n_batches * (96 * 4 * (150 * 80 + 3633 + 192) + 2 * 2000)
    assert n_bytes == by_hand and n_bytes > 1.1e12
    with pytest.raises(UserError, match="about 1,140.* GB.*limit.*100 GB"):
        check_cache_size(n_bytes, hparams["teacher_cache_limit"], "cache")
