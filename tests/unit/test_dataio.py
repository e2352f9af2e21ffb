"""Chunks, audio files, label encoders, trial lists and the command line."""

import csv
import os
import pickle
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import soundfile
import torch
from hyperpyyaml import load_hyperpyyaml, resolve_references
from synthetic import (
    DEV_SPEAKERS,
    RATE,
    TRAIN_SPEAKERS,
    in_processes,
    write_corpus,
    write_wav,
)
from torch.utils.data import DataLoader, DistributedSampler

from imlkd_brain import dataio
from imlkd_brain.dataio import (
    RandomChunks,
    SpeakerIndex,
    batches_per_epoch,
    check_batches,
    check_dev_speakers,
    check_known_speakers,
    encode_speakers,
    find_list,
    load_hyperparameters,
    read_audio,
    repeat_to,
    train_dataset,
    valid_dataset,
    valid_trials,
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


def train(csv_path, seconds=0.5, seed=1, speeds=(1.0,)):
    return train_dataset(csv_path, "", seconds, RATE, seed, speeds)


# Chunks -----------------------------------------------------------------


def test_chunks_depend_on_seed_epoch_and_utterance_only():
    names = [f"u{i}" for i in range(200)]
    one, other = RandomChunks(3), RandomChunks(3)
    first = {name: one(name, 1000, 400) for name in names}
    # Another instance, in another order, after other global draws.
    torch.manual_seed(5)
    second = {name: other(name, 1000, 400) for name in reversed(names)}
    assert first == second
    # Both ends can be drawn: 601 starts, all within the bounds.
    assert all(0 <= start <= 600 for start in first.values())
    assert min(first.values()) < 60 and max(first.values()) > 540
    assert len(set(first.values())) > 100

    one.epoch = 1
    next_epoch = {name: one(name, 1000, 400) for name in names}
    other_seed = {name: RandomChunks(4)(name, 1000, 400) for name in names}
    for starts in (next_epoch, other_seed):
        # 200 draws of 601: about one in three coincides by chance.
        assert sum(starts[n] == first[n] for n in names) < 10
    other.epoch = 1
    assert next_epoch == {name: other(name, 1000, 400) for name in names}


def test_chunks_of_short_files_start_at_zero():
    assert RandomChunks(0)("a", 400, 400) == RandomChunks(0)("a", 10, 400) == 0


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


def test_repeat_to():
    signal = torch.arange(4)
    assert torch.equal(repeat_to(signal, 2), signal[:2])
    assert repeat_to(signal, 9).tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0]


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


# Audio files ------------------------------------------------------------


def test_each_broken_file_has_its_sentence(tmp_path):
    good = write_wav(tmp_path / "good.wav", 0.1, 200, 0)
    stereo = write_wav(tmp_path / "stereo.wav", 0.1, 200, 0, channels=2)
    slow = write_wav(tmp_path / "slow.wav", 0.1, 200, 0, rate=8000)
    empty = write_wav(tmp_path / "empty.wav", 0.0, 200, 0)
    text = tmp_path / "text.wav"
    text.write_text("not audio")
    for value in ("nan", "-inf"):
        samples = np.zeros(1600, "float32")
        samples[700] = float(value)
        soundfile.write(tmp_path / f"{value}.wav", samples, RATE, "FLOAT")
    assert read_audio(good).shape == (1600,)
    assert torch.equal(read_audio(good, 100, 50), read_audio(good)[100:150])
    for path, words in {
        str(tmp_path / "none.wav"): "missing; restore",
        str(text): "broken; restore",
        str(tmp_path): "broken; restore",
        stereo: "2 channel.*16000 Hz; convert",
        slow: "1 channel.*8000 Hz; convert",
        empty: "no samples from 0 on",
        str(tmp_path / "nan.wav"): "sample 700 is NaN or infinite; restore",
        str(tmp_path / "-inf.wav"): "sample 700 is NaN or infinite; restore",
    }.items():
        with pytest.raises(UserError, match=f"^{path}: .*{words}") as raised:
            read_audio(path)
        assert "\n" not in str(raised.value)
    # Where in the file, also if it is read from another sample on.
    with pytest.raises(UserError, match="nan.wav: sample 700 is NaN"):
        read_audio(str(tmp_path / "nan.wav"), 650, 100)
    with pytest.raises(UserError, match="no samples from 5000 on; the CSV"):
        read_audio(good, 5000, 10)


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


# Annotations ------------------------------------------------------------


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
        (COLUMNS, [], "holds no utterances"),
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


# Label encoders ---------------------------------------------------------


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


# Trial lists ------------------------------------------------------------


def test_find_list(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    (two / "meta").mkdir(parents=True)
    one.mkdir()
    folders = f"{one}, {two}"
    assert find_list(None, folders, "save") is None
    url = "https://nowhere.invalid/meta/veri_test2.txt"
    (two / "meta" / "veri_test2.txt").write_text("1 a b")
    found = str(two / "meta" / "veri_test2.txt")
    assert find_list(url, folders, "save") == found
    assert find_list("veri_test2.txt", folders, "save") == found
    assert find_list(found, folders, "save") == found
    (one / "veri_test2.txt").write_text("1 a b")
    assert find_list(url, folders, "save") == str(one / "veri_test2.txt")
    with pytest.raises(UserError, match=f"x.txt: no such file.*{one} as x.txt"):
        find_list("x.txt", folders, "save")


def test_a_list_is_downloaded_whole_or_not_at_all(tmp_path, monkeypatch):
    url = "https://nowhere.invalid/meta/veri_test2.txt"
    save = tmp_path / "save"

    def broken_off(source, path, replace_existing):
        with open(path, "w") as stream:
            stream.write("1 a")
        raise ConnectionResetError("gone")

    def complete(source, path, replace_existing):
        with open(path, "w") as stream:
            stream.write("1 a b")

    monkeypatch.setattr(dataio, "download_file", broken_off)
    for _ in range(2):
        with pytest.raises(UserError, match=r"cannot be downloaded \(gone\)"):
            find_list(url, str(tmp_path), str(save))
    monkeypatch.setattr(dataio, "download_file", complete)
    expected = str(save / "veri_test2.txt")
    assert find_list(url, str(tmp_path), str(save)) == expected
    assert (save / "veri_test2.txt").read_text() == "1 a b"
    # It is kept: the next run needs no line.
    monkeypatch.setattr(dataio, "download_file", broken_off)
    assert find_list(url, str(tmp_path), str(save)) == expected
    assert [path.name for path in save.iterdir()] == ["veri_test2.txt"]


class OneList(BaseHTTPRequestHandler):
    """A server of one trial list, which counts its downloads."""

    downloads = 0

    def do_GET(self):
        type(self).downloads += 1
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"1 a b")

    def log_message(self, *_):
        pass


def test_processes_that_train_together_download_a_list_once(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), OneList)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/veri_test2.txt"
    save = tmp_path / "save"
    try:
        found = in_processes(
            2, tmp_path, lambda: find_list(url, str(tmp_path), str(save))
        )
    finally:
        server.shutdown()
    assert found == [str(save / "veri_test2.txt")] * 2
    assert [path.read_text() for path in save.iterdir()] == ["1 a b"]
    assert OneList.downloads == 1


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


def test_dev_trials_must_be_in_the_annotation(corpus, tmp_path):
    valid = valid_dataset(str(corpus / "dev.csv"), "", RATE)
    assert valid_trials(None, valid) is None
    trials = valid_trials(str(corpus / "dev.txt"), valid)
    assert len(trials.pairs) == 15 and int(trials.labels.sum()) == 6
    path = tmp_path / "t.txt"
    path.write_text(
        "1 emil/s0/1.wav emil/s1/1.wav\n0 emil/s0/1.wav x/y/1.wav\n"
    )
    with pytest.raises(UserError, match="1 utterances.*first: x/y/1"):
        valid_trials(str(path), valid)


def test_dev_trials_of_training_speakers_are_refused(tmp_path):
    """Whoever prepared the data, and at any speed of the training."""
    data = write_corpus(tmp_path)
    valid = valid_dataset(str(data / "dev.csv"), "", RATE)
    trials = valid_trials(str(data / "dev.txt"), valid)
    clean, _ = train(data / "train.csv")
    check_dev_speakers(trials, valid, clean)
    check_dev_speakers(None, valid, clean)
    text = (data / "train.csv").read_text()
    leaking = tmp_path / "leaking.csv"
    leaking.write_text(text.replace("anna", "fred"))
    for speeds in ((1.0,), (0.9, 1.1)):
        trained, _ = train(leaking, speeds=speeds)
        with pytest.raises(UserError, match="1 of 2 .*first: fred.*allow_tr"):
            check_dev_speakers(trials, valid, trained)
        check_dev_speakers(trials, valid, trained, allow=True)


def test_dev_trials_find_utterances_without_a_session(tmp_path):
    """`<speaker>/<utterance>` of the list is the annotation's file."""
    rows = ["ID,duration,wav,start,stop,spk_id"]
    for speaker in ("emil", "fred"):
        for i in range(2):
            path = write_wav(
                tmp_path / "wav" / speaker / f"{i}.wav", 0.3, 90, i
            )
            rows.append(f"{speaker}{i},0.3,{path},0,4800,{speaker}")
    annotation = tmp_path / "dev.csv"
    annotation.write_text("\n".join(rows) + "\n")
    valid = valid_dataset(str(annotation), "", RATE)
    path = tmp_path / "t.txt"
    path.write_text("1 emil/0.wav emil/1.wav\n0 emil/0.wav fred/1.wav\n")
    trials = valid_trials(str(path), valid)
    known = {valid[i]["utterance"] for i in range(4)}
    assert set(trials.utterances) <= known and len(trials.utterances) == 3
    path.write_text("1 emil/0.wav emil/1.wav\n0 emil/0.wav 1.wav\n")
    with pytest.raises(UserError, match="1 may be wav/emil/1 or wav/fred/1"):
        valid_trials(str(path), valid)


# Command line -----------------------------------------------------------

YAML = """
seed: 3
data_folder: !PLACEHOLDER
other: !PLACEHOLDER
wavs: !ref <data_folder>/wav
lengths: [1.0, 2.0]
n_steps: 4
rule: midpoint
integrated_inputs: !new:imlkd_brain.integrated_inputs.IntegratedInputs
    mode: gate
    rule: !ref <rule>
    n_steps: !ref <n_steps>
    target: true_class
    baseline: zero
    durations: !ref <lengths>
    gate: 1.0
    max_weight: 3.0
    keep: 0.5
    internal_batch_size: null
"""


@pytest.fixture
def yaml(tmp_path):
    (tmp_path / "minivox").mkdir()
    for folder in (tmp_path, tmp_path / "minivox"):
        (folder / "train.yaml").write_text(YAML)
    return str(tmp_path / "train.yaml")


def test_command_line(yaml):
    file, hparams, run_opts, overrides = load_hyperparameters(
        [yaml, "--data_folder", "/a b", "--other=1", "--lengths", "[0.5]"]
        + ["--device", "cpu"]
    )
    assert file == yaml and run_opts.device == "cpu"
    assert hparams["wavs"] == "/a b/wav" and hparams["other"] == 1
    assert hparams["integrated_inputs"].durations == (0.5,) or (
        list(hparams["integrated_inputs"].durations) == [0.5]
    )
    assert "data_folder: /a b" in overrides


def test_each_mistake_on_the_command_line_has_its_sentence(yaml, tmp_path):
    filled = [yaml, "--data_folder", "d", "--other", "o"]
    minivox = str(tmp_path / "minivox" / "train.yaml")
    for argv, words in (
        ([], "first argument must be a hyperparameter file"),
        (["--seed", "1"], "first argument must be a hyperparameter file"),
        (["none.yaml"], "^none.yaml: no such hyperparameter file"),
        ([yaml], f"--data_folder /path/to/VoxCeleb1.*minivox.*{minivox}"),
        ([yaml, "--data_folder", "d"], "give `--other ...`, it has no"),
        ([*filled, "--sed", "4"], "--sed` names no key"),
        ([*filled, "--rule", "trapezoid"], "rule.*trapezoid.*midpoint"),
        ([*filled, "--lengths", "[1.0, 2"], "--lengths.*cannot be read"),
        ([*filled, "--seed", "1: 2"], "--seed.*cannot be read"),
        ([*filled, "--seed", "{a: 1}"], "structure.*seed"),
    ):
        with pytest.raises(UserError, match=words) as raised:
            load_hyperparameters(argv)
        assert "\n" not in str(raised.value), argv
    with pytest.raises(UserError) as raised:
        load_hyperparameters([minivox])
    # MiniVox's own YAML does not point to itself.
    assert "imlkd_brain.minivox" not in str(raised.value)


def test_a_broken_yaml_has_its_sentence(tmp_path):
    path = tmp_path / "a.yaml"
    for text, words in (
        ("a: [1\n", "cannot be read"),
        ("a: !new:no.such.Class\n", "no.such.Class"),
        ("a: !ref <b>\n", 'reference "b"'),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=f"^{path}.*{words}") as raised:
            load_hyperparameters([str(path)])
        assert "\n" not in str(raised.value)


def test_a_yaml_with_a_base_is_the_base_with_changes(tmp_path):
    (tmp_path / "whole.yaml").write_text(
        "out: results\n"
        "report: !ref <out>/main\n"
        "methods:\n    a: {eta: 1}\n    b: {eta: 2}\n"
        "folds: [0, 1]\n"
    )
    (tmp_path / "other").mkdir()
    middle = tmp_path / "other" / "middle.yaml"
    middle.write_text(
        "base: ../whole.yaml\n"
        "report: !ref <out>/middle\n"
        "methods:\n    a: null\n    c: {eta: 3}\n"
        "folds: [2]\n"
    )
    last = tmp_path / "last.yaml"
    last.write_text("base: other/middle.yaml\nmethods: {b: {tau: 4}}\n")
    file, hparams, _, overrides = load_hyperparameters(
        [str(last), "--out", "elsewhere"]
    )
    assert file == str(tmp_path / "whole.yaml")
    assert hparams == {
        "out": "elsewhere",
        "report": "elsewhere/middle",
        "methods": {"a": None, "b": {"eta": 2, "tau": 4}, "c": {"eta": 3}},
        "folds": [2],
    }
    # What is written beside the results is the same.
    resolved = resolve_references((tmp_path / "whole.yaml").open(), overrides)
    assert load_hyperpyyaml(resolved) == hparams


def test_each_mistake_with_a_base_has_its_sentence(tmp_path):
    (tmp_path / "whole.yaml").write_text("eta: 1\n")
    mine = tmp_path / "mine.yaml"
    for text, words in (
        ("base: none.yaml\n", "mine.yaml: its base .*none.yaml is missing"),
        ("base: mine.yaml\n", "mine.yaml leads back to itself"),
        ("base: whole.yaml\nteta: 2\n", "`teta` is not in its base .*whole"),
        ("base: whole.yaml\neta: [1\n", "mine.yaml, line.*cannot be read"),
    ):
        mine.write_text(text)
        with pytest.raises(UserError, match=words):
            load_hyperparameters([str(mine)])
