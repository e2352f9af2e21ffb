"""Unit tests of ``imlkd_brain.data.datasets``."""

import csv
import os
import pickle

import pytest
import soundfile
import torch
from helpers.dataio import train
from synthetic import DEV_SPEAKERS, RATE, TRAIN_SPEAKERS, write_corpus
from torch.utils.data import DataLoader, DistributedSampler

from imlkd_brain.data.audio import read_audio
from imlkd_brain.data.datasets import (
    SpeakerIndex,
    batches_per_epoch,
    check_batches,
    check_known_speakers,
    encode_speakers,
    valid_dataset,
)
from imlkd_brain.errors import UserError, one_sentence_errors
from speechbrain.dataio.dataloader import make_dataloader

COLUMNS = ("ID", "duration", "wav", "start", "stop", "spk_id")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def write_csv(path, rows, columns=COLUMNS):
    """A CSV of rows (sequences); its path as str."""
    with open(path, "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([columns, *rows])
    return str(path)


@pytest.mark.parametrize("n_workers", [0, 1])
def test_epochs_move_the_chunks_also_in_workers(corpus, n_workers):
    def epoch(number):
        chunks.epoch = number
        loader = make_dataloader(dataset, batch_size=8, num_workers=n_workers)
        return next(iter(loader)).sig.data

    dataset, chunks = train(str(corpus / "train.csv"))
    first, second, again = epoch(1), epoch(2), epoch(1)
    assert torch.equal(first, again) and not torch.equal(first, second)
    # And they are samples of the files.
    dataset_again, chunks_again = train(str(corpus / "train.csv"))
    chunks_again.epoch = 2
    assert torch.equal(dataset_again[3]["sig"], second[3])


@pytest.mark.parametrize(
    ("start_method", "persistent"),
    # One more process of another start method takes seconds.
    [("fork", False), ("fork", True), ("spawn", True), ("forkserver", True)],
)
def test_workers_of_any_start_method_and_life_give_the_same_batches(
    corpus, tmp_path, start_method, persistent
):
    """Also in the next epoch, which workers that persist are told."""

    def data():
        dataset, chunks = train(str(corpus / "train.csv"), speeds=[0.9, 1.0])
        encoder = encode_speakers(dataset, str(tmp_path / "l.txt"))
        dataset.add_dynamic_item(
            SpeakerIndex(encoder), takes="spk_id", provides="spk_id_encoded"
        )
        dataset.set_output_keys(["id", "sig", "spk_id_encoded"])
        return dataset, chunks

    def epochs(dataset, chunks, **options):
        loader = make_dataloader(dataset, batch_size=8, **options)
        for chunks.epoch in (1, 2):
            for batch in loader:
                yield batch.id, batch.sig.data, batch.spk_id_encoded.data

    expected = list(epochs(*data()))
    assert len(expected) == 4
    assert not torch.equal(expected[0][1], expected[2][1])
    found = epochs(
        *data(),
        num_workers=1,
        persistent_workers=persistent,
        multiprocessing_context=start_method,
    )
    for one, other in zip(expected, found, strict=True):
        assert one[0] == other[0]
        assert torch.equal(one[1], other[1]) and torch.equal(one[2], other[2])


@pytest.mark.parametrize(
    ("options", "n_items", "words"),
    [
        ({}, None, "batch_size: 1 is not possible.*at least"),
        ({"batch_size": 0}, None, "batch_size: 0 is not possible"),
        ({"batch_size": 2.5}, None, "batch_size: 2.5 is not possible"),
        ({"batch_size": 4}, 5, "last batch .* one utterance of 5.*drop_last"),
        ({"batch_size": 4, "drop_last": True}, 5, None),
        ({"batch_size": 4}, 6, None),
        (
            {"batch_size": 4, "persistent_workers": True},
            None,
            "persistent_workers is True without workers.*--num_workers 1",
        ),
        (
            {"batch_size": 4, "multiprocessing_context": "spawn"},
            None,
            "multiprocessing_context is 'spawn' without workers",
        ),
        (
            {"batch_size": 4, "persistent_workers": True, "num_workers": 1},
            None,
            None,
        ),
    ],
)
def test_batches_that_cannot_be_are_one_sentence(options, n_items, words):
    if words is None:
        return check_batches(options, n_items)
    with pytest.raises(UserError, match=words) as raised:
        check_batches(options, n_items)
    assert "\n" not in str(raised.value)


def test_datasets_survive_a_pickle(corpus):
    """As spawn and forkserver hand them to each worker of each epoch."""
    dataset, chunks = train(str(corpus / "train.csv"), speeds=[0.9, 1.0])
    chunks.epoch = 3
    valid = valid_dataset(str(corpus / "dev.csv"), "", RATE)
    for original in (dataset, valid):
        copy = pickle.loads(pickle.dumps(original))
        for one, other in zip(original, copy, strict=True):
            assert one.keys() == other.keys() and one["id"] == other["id"]
            assert torch.equal(one["sig"], other["sig"])


def test_training_items_are_cuts_of_their_files(corpus):
    dataset, chunks = train(str(corpus / "train.csv"))
    for item in dataset:
        speaker, session, name = item["id"].split("--")
        signal = read_audio(f"{corpus}/wav/{speaker}/{session}/{name}.wav")
        n_chunk = int(0.5 * RATE)
        start = chunks(item["id"], len(signal), n_chunk)
        assert torch.equal(item["sig"], signal[start : start + n_chunk])
        assert item["spk_id"] == speaker


def test_short_files_are_repeated(corpus):
    dataset, _ = train(str(corpus / "train.csv"), seconds=1.3)
    item = dataset[0]
    signal = read_audio(f"{corpus}/wav/anna/s0/1.wav")
    assert len(signal) == int(0.55 * RATE)
    expected = torch.cat([signal, signal, signal])[: int(1.3 * RATE)]
    assert torch.equal(item["sig"], expected)


def test_speeds_make_new_speakers_of_the_same_length(corpus):
    path = str(corpus / "train.csv")
    dataset, _ = train(path, speeds=[0.9, 1.0, 1.1])
    plain, _ = train(path)
    speakers = {row["spk_id"] for row in dataset.data.values()}
    assert speakers == {
        name + suffix
        for name in TRAIN_SPEAKERS
        for suffix in ("", "-sp0.9", "-sp1.1")
    }
    assert len(dataset) == 3 * len(plain)
    by_id = {item["id"]: item for item in dataset}
    assert {len(item["sig"]) for item in by_id.values()} == {RATE // 2}
    for item in plain:
        assert torch.equal(item["sig"], by_id[item["id"]]["sig"])

    # 1.1 times faster: a tone's pitch rises by as much.
    tone = torch.sin(2 * torch.pi * 440 * torch.arange(RATE) / RATE)
    wav = corpus / "wav" / "tone.wav"
    soundfile.write(wav, 0.5 * tone.numpy(), RATE)
    rows = [["t", 1.0, wav, 0, RATE, "t"]]
    tones, _ = train(write_csv(corpus / "tone.csv", rows), speeds=[0.9, 1.1])
    for item, speed in zip(tones, (0.9, 1.1), strict=True):
        peak = torch.fft.rfft(item["sig"]).abs().argmax()
        # Bins are 2 Hz apart.
        assert abs(2 * peak.item() - 440 * speed) <= 2


def test_a_missing_file_in_a_worker_is_one_sentence(tmp_path, capsys):
    gone = str(tmp_path / "gone.wav")
    path = write_csv(
        tmp_path / "a.csv",
        [["a", 1.0, gone, 0, RATE, "a"], ["b", 1.0, gone, 0, RATE, "b"]],
    )
    dataset, _ = train(path)
    with pytest.raises(SystemExit) as stopped, one_sentence_errors():
        next(iter(make_dataloader(dataset, batch_size=2, num_workers=1)))
    said = capsys.readouterr().err.strip()
    assert stopped.value.code == 2
    assert said.startswith(f"error: {gone}: ") and "\n" not in said


def test_annotations_of_speechbrains_own_preparation(corpus):
    """Chunked rows, as SpeechBrain's voxceleb_prepare.py writes them."""
    wav = str(corpus / "wav" / "anna" / "s1" / "1.wav")
    duration = len(read_audio(wav)) / RATE
    rows = [
        [
            f"anna--s1--1_{a}_{b}",
            duration,
            wav,
            int(a * RATE),
            int(b * RATE),
            "anna",
        ]
        for a, b in ((0.0, 0.3), (0.3, 0.6))
    ]
    path = write_csv(corpus / "chunked.csv", rows)
    dataset, chunks = train(path, seconds=0.3)
    starts = set()
    for chunks.epoch in range(40):
        for item in dataset:
            assert item["sig"].shape == (int(0.3 * RATE),)
            starts.add(
                chunks(item["id"], int(duration * RATE), int(0.3 * RATE))
            )
    # A chunk may start anywhere in the file, whatever its row.
    assert min(starts) < 0.05 * RATE and max(starts) > 0.3 * RATE
    valid = valid_dataset(path, "", RATE)
    for item, row in zip(valid, rows, strict=True):
        expected = read_audio(wav)[row[3] : row[4]]
        assert torch.equal(item["sig"], expected)
        assert item["utterance"] == "anna/s1/1"


def test_data_root_stands_for_the_data_folder(corpus, tmp_path):
    rows = [["a", 0.55, "$data_root/wav/anna/s0/1.wav", 0, 100, "anna"]]
    path = write_csv(tmp_path / "a.csv", rows)
    (item,) = valid_dataset(path, str(corpus), RATE)
    assert item["sig"].shape == (100,)


def test_validation_is_longest_first(corpus):
    valid = valid_dataset(str(corpus / "dev.csv"), "", RATE)
    lengths = [len(item["sig"]) for item in valid]
    assert lengths == sorted(lengths, reverse=True) and len(lengths) == 6
    ids = [item["id"] for item in valid]
    assert ids[:2] == [f"{s}--s2--1" for s in DEV_SPEAKERS]


@pytest.mark.parametrize(
    ("columns", "rows", "words"),
    [
        (COLUMNS, [], "holds no utterances; .*data_folder .*split_ratio"),
        (COLUMNS[:5], [["a", 1, "a.wav", 0, 1]], "column.*spk_id .*missing"),
        (COLUMNS[1:], [[1, "a.wav", 0, 1, "a"]], "column.*ID .*missing"),
        (COLUMNS, [["a", 1, "a", 0, 1, "a"]] * 2, "`a`.*more than once"),
        (COLUMNS, [["a", "one", "a", 0, 1, "a"]], "line 2.*duration.*'one'"),
        (COLUMNS, [["a", 1, "a", 0, "end", "a"]], "line 2.*stop.*'end'"),
        (COLUMNS, [["a", 1, "a"]], "line 2.*start"),
        (COLUMNS, [["a", 1, "a", 9, 9, "a"]], "line 2.*stop.*after start"),
        (COLUMNS, [["a", 0, "a", 0, 9, "a"]], "line 2.*duration.*above 0"),
    ],
)
def test_each_broken_annotation_has_its_sentence(
    tmp_path, columns, rows, words
):
    path = write_csv(tmp_path / "a.csv", rows, columns)
    for load in (train, lambda p: valid_dataset(p, "", RATE)):
        with pytest.raises(UserError, match=f"^{path}.*{words}") as raised:
            load(path)
        assert "\n" not in str(raised.value)


def test_a_missing_annotation_has_its_sentence(tmp_path):
    with pytest.raises(UserError, match="none.csv: missing.*--skip_prep"):
        train(str(tmp_path / "none.csv"))


def test_speakers_are_numbered_by_name(corpus, tmp_path):
    rows = [[s, 1, s, 0, 1, s] for s in ("dora", "anna", "cleo", "bert")]
    shuffled, _ = train(write_csv(tmp_path / "a.csv", rows))
    one = encode_speakers(shuffled, str(tmp_path / "one.txt"), 4)
    other, _ = train(str(corpus / "train.csv"))
    two = encode_speakers(other, str(tmp_path / "two.txt"))
    for encoder in (one, two):
        assert encoder.encode_sequence(TRAIN_SPEAKERS) == [0, 1, 2, 3]
    # Kept: the next run reads it, with the order it has.
    kept = (tmp_path / "one.txt").read_text()
    swapped = kept.replace("'anna'", "'x'").replace("'bert'", "'anna'")
    (tmp_path / "one.txt").write_text(swapped.replace("'x'", "'bert'"))
    again = encode_speakers(shuffled, str(tmp_path / "one.txt"))
    assert again.encode_sequence(["bert", "anna"]) == [0, 1]


def test_label_encoders_of_other_speakers_are_refused(corpus, tmp_path):
    dataset, _ = train(str(corpus / "train.csv"))
    path = str(tmp_path / "label_encoder.txt")
    with pytest.raises(UserError, match="out_n_neurons.* 7 .* has 4"):
        encode_speakers(dataset, path, 7)
    assert not os.path.exists(path)
    few, _ = train(
        write_csv(tmp_path / "f.csv", [["a", 1, "a", 0, 1, s] for s in "a"])
    )
    with pytest.raises(UserError, match="fewer than two speakers"):
        encode_speakers(few, path)
    encode_speakers(dataset, path)
    others, _ = train(
        write_csv(tmp_path / "o.csv", [[s, 1, s, 0, 1, s] for s in "abcd"])
    )
    with pytest.raises(UserError, match="other speakers.*give a new one"):
        encode_speakers(others, path)
    more, _ = train(
        write_csv(tmp_path / "m.csv", [[s, 1, s, 0, 1, s] for s in "abcde"])
    )
    with pytest.raises(UserError, match="other speakers.*give a new one"):
        encode_speakers(more, path)
    # A start that ended before its first checkpoint has learnt nobody.
    encoder = encode_speakers(more, path, begun=False)
    assert sorted(encoder.lab2ind) == list("abcde")
    assert sorted(encode_speakers(more, path).lab2ind) == list("abcde")


def test_a_label_encoder_cut_short_is_refused_or_rebuilt(corpus, tmp_path):
    dataset, _ = train(str(corpus / "train.csv"))
    path = tmp_path / "label_encoder.txt"
    encode_speakers(dataset, str(path))
    whole = path.read_text()
    for length in range(0, len(whole), 7):
        path.write_text(whole[:length])
        try:
            encoder = encode_speakers(dataset, str(path))
        except UserError as error:
            assert str(path) in str(error)
        else:
            assert encoder.encode_sequence(TRAIN_SPEAKERS) == [0, 1, 2, 3]


def test_speakers_without_a_class_are_refused_before_training(corpus, tmp_path):
    dataset, _ = train(str(corpus / "train.csv"))
    encoder = encode_speakers(dataset, str(tmp_path / "l.txt"))
    own = valid_dataset(str(corpus / "train.csv"), "", RATE)
    check_known_speakers(own, encoder, "train.csv")
    others = valid_dataset(str(corpus / "dev.csv"), "", RATE)
    with pytest.raises(UserError, match="dev.csv: 2 speakers.*emil"):
        check_known_speakers(others, encoder, "dev.csv")


@pytest.mark.parametrize("drop_last", [False, True])
def test_batches_per_epoch_are_those_of_the_sampler_and_the_loader(drop_last):
    for n_processes in (1, 2, 3, 4):
        for batch_size in (1, 2, 3, 5, 8):
            for n_items in range(1, 50):
                sampler = DistributedSampler(
                    range(n_items), n_processes, rank=0, drop_last=drop_last
                )
                loader = DataLoader(
                    range(n_items),
                    batch_size=batch_size,
                    sampler=sampler,
                    drop_last=drop_last,
                )
                assert len(loader) == batches_per_epoch(
                    n_items, n_processes, batch_size, drop_last
                )
