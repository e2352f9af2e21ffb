"""Unit tests of ``imlkd_brain.distillation.teaching`` and teach.py."""

import errno

import numpy as np
import pytest
import teach
import torch
from helpers.answers import taught, teach_options
from helpers.instructions import cpu_of
from synthetic import TRAIN_SPEAKERS, write_corpus, write_model

from imlkd_brain.data.datasets import train_dataset
from imlkd_brain.distillation import answer_store
from imlkd_brain.distillation.answer_store import AnswerStore
from imlkd_brain.distillation.integrated_inputs import integrated_inputs
from imlkd_brain.distillation.teacher import Teacher, load_teacher
from imlkd_brain.errors import UserError


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("teacher"))


def bytes_of(folder):
    """The blocks of a store."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.glob("variant*/*"))
    }


def test_what_is_stored_is_what_the_teacher_says_of_the_crops(
    corpus, source, tmp_path
):
    """Crops, segments and gradients computed here, one utterance a time."""
    store = taught(
        corpus, source, tmp_path, seed=5, answers_variants=2, gate=0.75
    )
    teacher = load_teacher(source, TRAIN_SPEAKERS)
    dataset, drawn = train_dataset(
        str(corpus / "train.csv"), "", 0.5, 16000, seed=5
    )
    for variant in range(2):
        drawn.epoch = variant + 1
        for item in dataset:
            record = store.record(item["id"], variant)
            feats = teacher.features(item["sig"][None])
            start = None
            length = [30, 40][variant]
            assert record["weights"].shape == (length,)
            expected = teacher.embed_features(feats)[0]
            close(record["chunk"], expected)
            # The segment is one of those there can be; the seed says which.
            found = []
            for start in range(feats.shape[1] - length + 1):
                segment = feats[:, start : start + length]
                segment = segment - segment.mean(1, keepdim=True)
                embedding = teacher.embed_features(segment)[0].numpy()
                if np.allclose(embedding, record["segment"], rtol=1e-4):
                    found.append(segment)
            (segment,) = found
            halved = (segment / 2).requires_grad_()
            target = TRAIN_SPEAKERS.index(item["spk_id"])
            teacher.cosines(halved)[0, target].backward()
            attribution = segment * halved.grad
            per_frame = attribution.abs().sum(2)[0]
            weights = (per_frame / per_frame.mean()).clamp(max=3.0)
            close(record["weights"], weights)
            inputs = integrated_inputs(
                segment, attribution, "time_gate", gate=0.75
            )
            close(record["integrated"], teacher.embed_features(inputs)[0])


def close(found, expected):
    """Equal but for float32's rounding in batches of other sizes."""
    torch.testing.assert_close(
        torch.tensor(found), expected.detach(), rtol=2e-4, atol=1e-5
    )


def test_weights_alone_are_those_of_every_mode_that_weighs_frames(
    corpus, source, tmp_path
):
    fields = {"answers_fields": "[chunk, weights]"}
    found = []
    for mode in ("time_gate", "reversed_gate"):
        taught(corpus, source, tmp_path / mode, mode=mode, **fields)
        found.append(bytes_of(tmp_path / mode))
    assert found[0] == found[1]
    # The teacher's answers to I(x_d) are another matter.
    fields = {"answers_fields": "[chunk, integrated, weights]"}
    store = taught(
        corpus, source, tmp_path / "all", mode="reversed_gate", **fields
    )
    assert store.content["attribution"]["mode"] == "reversed_gate"


def test_fields_that_are_not_asked_for_cost_nothing(
    corpus, source, tmp_path, monkeypatch
):
    def attributed(*_, **__):
        raise AssertionError("no weights were asked for")

    monkeypatch.setattr(Teacher, "cosines", attributed)
    store = taught(corpus, source, tmp_path, answers_fields="[chunk]")
    assert store.record_type(0).names == ("levels", "chunk")
    # Neither segments nor classes are in it: any mode and target can read it.
    assert store.content["attribution"] == store.content["classes"] == {}


def test_a_killed_walk_goes_on_at_the_next_block(
    corpus, source, tmp_path, monkeypatch
):
    monkeypatch.setattr(answer_store, "BLOCK_ROWS", 3)
    options = {"answers_variants": 2, "rule": "stochastic"}
    taught(corpus, source, tmp_path / "whole", **options)
    written = []
    write = AnswerStore.write

    def stopped(store, block, records):
        if len(written) == 2:
            raise KeyboardInterrupt
        write(store, block, records)
        written.append(block.path)

    monkeypatch.setattr(AnswerStore, "write", stopped)
    with pytest.raises(KeyboardInterrupt):
        taught(corpus, source, tmp_path / "stopped", **options)
    monkeypatch.setattr(AnswerStore, "write", write)
    kept = [path.stat().st_mtime_ns for path in written]
    taught(corpus, source, tmp_path / "stopped", **options)
    assert bytes_of(tmp_path / "stopped") == bytes_of(tmp_path / "whole")
    assert kept == [path.stat().st_mtime_ns for path in written]


def test_more_variants_are_added_to_those_there_are(corpus, source, tmp_path):
    taught(corpus, source, tmp_path, answers_variants=1)
    before = bytes_of(tmp_path)
    store = taught(corpus, source, tmp_path, answers_variants=3)
    after = bytes_of(tmp_path)
    assert store.n_complete() == 3
    # Each block has its checksum beside it.
    assert before.items() <= after.items() and len(after) == 2 * 3


def test_several_processes_share_a_walk(corpus, source, tmp_path, monkeypatch):
    options = {"answers_variants": 3}
    threads = torch.get_num_threads()
    # Processes that share a walk have one thread each. More add up in
    # another order, which changes the last bits.
    torch.set_num_threads(1)
    taught(corpus, source, tmp_path / "one", **options)
    store = taught(corpus, source, tmp_path / "two", **options, processes=2)
    torch.set_num_threads(threads)
    assert store.n_complete() == 3
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")


def test_a_full_disk_is_one_sentence_and_the_walk_goes_on(
    corpus, source, tmp_path, monkeypatch
):
    save = np.save

    def full(stream, *_, **__):
        stream.write(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(UserError, match=r"No space left on device.*goes|make"):
        taught(corpus, source, tmp_path)
    assert not bytes_of(tmp_path).keys() - {"variant000/00000.lock"}
    monkeypatch.setattr(np, "save", save)
    assert taught(corpus, source, tmp_path).n_complete() == 1


@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_an_answer_that_is_not_finite_is_not_stored(
    corpus, source, tmp_path, monkeypatch, precision
):
    """1e6 is beyond half precision."""
    embed = Teacher.embed_features
    scale = 1e6 if precision == "float16" else float("nan")
    monkeypatch.setattr(
        Teacher, "embed_features", lambda *args: scale * embed(*args)
    )
    with pytest.raises(
        UserError,
        match=f"s1--1 is not finite in {precision}|s0--1 is not finite in {precision}",
    ):
        taught(corpus, source, tmp_path, answers_precision=precision)
    assert not AnswerStore.open(tmp_path).n_complete()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"teacher_answers": "null"}, "give `--teacher_answers`"),
        ({"answers_fields": "[chunks]"}, "answers_fields[0] is 'chunks'"),
        ({"answers_fields": "[]"}, "answers_fields is []"),
        ({"answers_precision": "int8"}, "answers_precision is 'int8'"),
        ({"answers_variants": 0}, "answers_variants is 0"),
        ({"processes": 0}, "processes is 0"),
        ({"mode": "gate"}, "give `--mode time_gate`"),
    ],
)
def test_what_cannot_be_stored_is_one_sentence(
    corpus, source, tmp_path, options, words
):
    folder = tmp_path / "answers"
    with pytest.raises(UserError) as caught:
        teach.main(teach_options(corpus, source, folder, **options))
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert not list(folder.glob("*.json"))


def test_a_walk_with_other_options_does_not_go_on(corpus, source, tmp_path):
    taught(corpus, source, tmp_path)
    before = bytes_of(tmp_path)
    with pytest.raises(UserError, match="n_steps: 1 there, 2 here"):
        taught(corpus, source, tmp_path, n_steps=2)
    assert bytes_of(tmp_path) == before


def test_a_cpu_without_bfloat16_answers_in_float32(
    corpus, source, tmp_path, monkeypatch
):
    cpu_of("AVX2", monkeypatch)
    store = taught(corpus, source, tmp_path, answers_arithmetic="bfloat16")
    assert store.content["arithmetic"] == "float32"
    # Another machine goes on with what is there.
    taught(corpus, source, tmp_path, answers_arithmetic="float32")


def test_bfloat16_changes_embeddings_alone_and_little(
    corpus, source, tmp_path, monkeypatch
):
    """8 bits of mantissa keep the directions of embeddings to 0.1 %."""
    cpu_of("AVX512", monkeypatch)
    walks = [
        taught(corpus, source, tmp_path / name, answers_arithmetic=name)
        for name in ("float32", "bfloat16")
    ]
    differs = 0
    for name in walks[0].rows:
        full, half = (store.record(name, 0) for store in walks)
        assert np.array_equal(full["weights"], half["weights"])
        for field in ("chunk", "segment", "integrated"):
            a, b = (np.float64(record[field]) for record in (full, half))
            differs += not np.array_equal(a, b)
            cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
            assert cosine > 0.999, (name, field)
    assert differs
    with pytest.raises(UserError, match="arithmetic: float32 there, bfloat16"):
        taught(
            corpus,
            source,
            tmp_path / "float32",
            answers_arithmetic="bfloat16",
        )
