"""Trial lists, embeddings, scores and reports, against direct computations."""

import json
import math
import os

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from imlkd_brain import plots, reports
from imlkd_brain import verification as ver
from imlkd_brain.errors import UserError
from imlkd_brain.metrics import EER, det_points

RATE = 16000


class Model(torch.nn.Module):
    """An embedding that can be computed by hand: moments of the samples."""

    key = "0123456789abcdef" * 4
    source = "model"
    sample_rate = RATE
    speakers = ("a", "z")

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.batches = []

    def embed(self, wavs, lens):
        self.batches.append([round(float(n)) for n in lens * wavs.shape[1]])
        powers = torch.stack([wavs.abs() ** k for k in (1, 2, 3)], dim=1)
        return powers.sum(dim=2) / (lens * wavs.shape[1]).unsqueeze(1)


@pytest.fixture
def corpus(tmp_path):
    """Noise of 3 speakers in 2 packs, 2 utterances each, 1 to 2 seconds."""
    rng = np.random.default_rng(0)
    for index, speaker in enumerate(("x-a", "x-b", "y-c")):
        for utterance in range(2):
            path = tmp_path / "wav" / speaker / "s1" / f"0000{utterance}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            samples = rng.uniform(-0.5, 0.5, RATE + 4000 * (index % 2))
            soundfile.write(path, samples.astype(np.float32), RATE)
    (tmp_path / "list.txt").write_text(
        "1 x-a/s1/00000.wav x-a/s1/00001.wav\n"
        "0 x-a/s1/00000.wav x-b/s1/00001.wav\n"
        "1 x-b/s1/00000.wav x-b/s1/00001.wav\n"
        "0 y-c/s1/00000.wav x-a/s1/00001.wav\n"
    )
    return tmp_path


def write(path, text):
    """Write a text file and return its path."""
    path.write_text(text)
    return path


# Trial lists


def test_both_orders_give_the_same_trials(tmp_path):
    """SpeechBrain's order with 1 and 0, Kaldi's with words, suffix or not."""
    speechbrain = ver.read_trials(
        write(tmp_path / "sb.txt", "1 a/s/1.wav a/s/2.wav\n0 a/s/1.wav b/s/1")
    )
    kaldi = ver.read_trials(
        write(tmp_path / "k.txt", "a/s/1 a/s/2 target\n\na/s/1 b/s/1 nontarget")
    )
    for trials in (speechbrain, kaldi):
        assert trials.utterances == ["a/s/1", "a/s/2", "b/s/1"]
        assert trials.pairs.tolist() == [[0, 1], [0, 2]]
        assert trials.labels.tolist() == [True, False]
        assert trials.enrol == ["a/s/1", "a/s/1"]
        assert trials.test == ["a/s/2", "b/s/1"]
    assert list(kaldi.lines) == [1, 3]


GOOD = "1 a/s/1 a/s/2\n0 a/s/1 b/s/1\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        ("one two\n", r"not a trial in 1 lines \(line 1: 'one two'\)"),
        (GOOD + "0 a/s/1\n", r"not a trial in 1 lines \(line 3: '0 a/s/1'\)"),
        (GOOD + "0 a b c\n" * 5, r"in 5 lines \(line 3: .*, \.\.\.\)"),
        (
            GOOD + "a/s/1 b/s/2 nontarget\n",
            r"another label style .*line 3: 'a/s/1 b/s/2 nontarget'",
        ),
        (GOOD + "target a/s/1 c/s/1\n", "another label style .*line 3"),
        (GOOD + "2 a/s/1 c/s/1\n", "not a trial in 1 lines .*line 3"),
        (GOOD + "1 a/s/1.wav a/s/2\n", r"1 trials are repeated \(line 3: a/s"),
        ("1 a/s/1 a/s/2\n1 b/s/1 b/s/2\n", "all 2 trials are target trials"),
        ("0 a/s/1 b/s/2\n", "all 1 trials are nontarget trials"),
    ],
)
def test_bad_lists_get_one_sentence(tmp_path, text, sentence):
    """The file, what is wrong, and the first lines that are."""
    path = write(tmp_path / "list.txt", text)
    with pytest.raises(UserError, match=sentence) as error:
        ver.read_trials(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_lists_that_are_no_text_files(tmp_path):
    """Missing, a folder, or audio given in its place."""
    with pytest.raises(UserError, match="no such trial list"):
        ver.read_trials(tmp_path / "none.txt")
    with pytest.raises(UserError, match="expected a text file"):
        ver.read_trials(tmp_path)
    (tmp_path / "audio").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UserError, match="expected a text file"):
        ver.read_trials(tmp_path / "audio")


def test_repeated_trials_count_when_asked_to(tmp_path):
    """Official lists are taken as published."""
    path = write(tmp_path / "list.txt", GOOD + "1 a/s/1 a/s/2\n")
    trials = ver.read_trials(path, allow_repeated_trials=True)
    assert trials.labels.tolist() == [True, False, True]


def test_unknown_utterances_are_named_with_their_lines(corpus):
    """One sentence with the first trials that name them."""
    path = write(
        corpus / "bad.txt",
        "1 x-a/s1/00000 x-a/s1/00001\n0 x-a/s1/00000 q/s1/7\n0 r/s/1 q/s1/7\n",
    )
    with pytest.raises(UserError) as error:
        ver.locate_trials(ver.read_trials(path), corpus)
    assert "2 utterances are not in" in str(error.value)
    assert "(line 2: q/s1/7, line 3: r/s/1)" in str(error.value)
    with pytest.raises(UserError, match="no such folder; --data_folder"):
        ver.locate_trials(ver.read_trials(path), corpus / "none")


def test_kaldi_names_and_several_folders_find_the_audio(corpus, tmp_path):
    """speaker-session-utterance is a path, dashes in the speaker or not."""
    path = write(
        corpus / "kaldi.txt",
        "x-a-s1-00000 x-a-s1-00001 target\nx-a-s1-00000 y-c-s1-00000 nontarget",
    )
    (tmp_path / "other").mkdir()
    located = ver.locate_trials(
        ver.read_trials(path), f"{tmp_path / 'other'},{corpus}"
    )
    assert located.enrol_files == [[str(corpus / "wav/x-a/s1/00000.wav")]]
    assert located.test_speakers == ["x-a", "y-c"]
    assert located.pairs.tolist() == [[0, 0], [0, 1]]


def test_official_lists_are_found_by_name(tmp_path):
    """Under their official file names, with the source if they are absent."""
    with pytest.raises(UserError, match="veri_test2.txt.*robots.ox.ac.uk"):
        ver.find_trial_list("Vox1-O", tmp_path)
    (tmp_path / "meta").mkdir()
    expected = write(tmp_path / "meta" / "list_test_hard2.txt", GOOD)
    assert ver.find_trial_list("Vox1-H", tmp_path) == expected
    with pytest.raises(UserError, match="neither the name of an official"):
        ver.find_trial_list("Vox2", tmp_path)


def test_several_enrolment_utterances(corpus):
    """A model's embedding is the mean of its unit-length embeddings."""
    enrolments = ver.read_enrolments(
        write(corpus / "models.txt", "m1 x-a/s1/00000.wav x-a/s1/00001.wav\n")
    )
    path = write(corpus / "m.txt", "1 m1 x-a/s1/00001\n0 m1 x-b/s1/00000\n")
    located = ver.locate_trials(ver.read_trials(path), corpus, enrolments)
    assert [len(files) for files in located.enrol_files] == [2]
    embeddings = torch.tensor([[3.0, 0.0], [0.0, 0.5], [2.0, 2.0]])
    scores = ver.score_trials(
        ver.enrol_models(embeddings, [[0, 1]]),
        embeddings,
        torch.tensor([[0, 0], [0, 2]]),
    )
    # The mean direction is the diagonal. One float32 rounding per step.
    torch.testing.assert_close(
        scores, torch.tensor([math.sqrt(0.5), 1.0]), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("text", ["m1\n", "m1 a/s/1\nm1 a/s/2\n"])
def test_bad_enrolments_get_one_sentence(tmp_path, text):
    """A model without utterances, or with two lines."""
    path = write(tmp_path / "models.txt", text)
    with pytest.raises(UserError, match=r"line \d: the model m1"):
        ver.read_enrolments(path)


# Embeddings


def test_each_utterance_is_embedded_once_and_kept(corpus):
    """A second list, or another spelling of the path, costs no embedding."""
    paths = sorted(str(path) for path in corpus.glob("wav/*/*/*.wav"))
    model = Model()
    store = ver.EmbeddingStore(corpus / "store", model.key, "full")
    first, speech = ver.embed_utterances(model, paths + paths[:2], store)
    assert sum(map(len, model.batches)) == 6
    assert speech.tolist() == [1, 1, 1.25, 1.25, 1, 1, 1, 1]
    for path, embedding in zip(paths, first, strict=False):
        samples = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
        # Sums of 20,000 float32 numbers in another order.
        torch.testing.assert_close(
            embedding,
            torch.stack([(samples.abs() ** k).mean() for k in (1, 2, 3)]),
            rtol=1e-5,
            atol=0,
        )
    again = Model()
    store = ver.EmbeddingStore(corpus / "store", again.key, "full")
    second, _ = ver.embed_utterances(again, paths[::-1], store)
    assert again.batches == []
    assert torch.equal(second, first[:6].flip(0))
    # Changed audio, another model or another crop is not found.
    soundfile.write(paths[0], np.zeros(RATE) + 0.25, RATE)
    ver.embed_utterances(again, paths, store)
    assert again.batches == [[RATE]]
    for key, crop in (("f" * 64, "full"), (again.key, "1s-seed0")):
        assert ver.EmbeddingStore(corpus / "store", key, crop).rows == {}


def test_audio_that_was_edited_in_secret_is_embedded_anew(corpus):
    """Of equal size and with its old time, as tools that restore it leave."""
    path = str(corpus / "wav/x-a/s1/00000.wav")
    located = ver.locate_trials(ver.read_trials(corpus / "list.txt"), corpus)
    before, state = ver.audio_state(located), os.stat(path)
    model = Model()
    store = ver.EmbeddingStore(corpus / "store", model.key, "full")
    first, _ = ver.embed_utterances(model, [path], store)
    samples, _ = soundfile.read(path, dtype="float32")
    soundfile.write(path, samples / 2, RATE)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert os.stat(path).st_size == state.st_size
    second, _ = ver.embed_utterances(model, [path], store)
    # 16-bit samples: halving rounds each by half a step at most.
    torch.testing.assert_close(
        second[0, 0], first[0, 0] / 2, atol=2**-16, rtol=0
    )
    assert ver.audio_state(located) != before


def test_only_equal_lengths_share_a_batch_unless_padding_is_allowed(corpus):
    """Without padding an embedding does not depend on its batch."""
    paths = sorted(str(path) for path in corpus.glob("wav/*/*/*.wav"))
    exact, padded = Model(), Model()
    for name, model, padding in (("e", exact, 0.0), ("p", padded, 1.0)):
        store = ver.EmbeddingStore(corpus / name, model.key, "full")
        ver.embed_utterances(model, paths, store, max_padding_seconds=padding)
    assert exact.batches == [[20000] * 2, [16000] * 4]
    assert padded.batches == [[20000] * 2 + [16000] * 4]


@given(
    lengths=st.lists(st.integers(1, 50), max_size=40),
    max_total=st.integers(1, 200),
    max_padding=st.integers(0, 10),
)
@settings(max_examples=100, deadline=None)
def test_batches_hold_every_item_once_within_the_budget(
    lengths, max_total, max_padding
):
    """Sorted, bounded, and no batch that the next item would still fit."""
    batches = ver.length_sorted_batches(lengths, max_total, max_padding)
    items = [item for batch in batches for item in batch]
    assert sorted(items) == list(range(len(lengths)))
    ordered = [lengths[item] for item in items]
    assert ordered == sorted(ordered, reverse=True)
    for batch in batches:
        longest, shortest = lengths[batch[0]], lengths[batch[-1]]
        assert len(batch) == 1 or len(batch) * longest <= max_total
        assert longest - shortest <= max_padding
    for batch, following in zip(batches, batches[1:], strict=False):
        longest, item = lengths[batch[0]], lengths[following[0]]
        assert (
            len(batch) + 1
        ) * longest > max_total or longest - item > max_padding


def test_crops_depend_on_seed_and_utterance_only(corpus):
    """The same samples whatever the list; another seed gives other ones."""
    path = str(corpus / "wav/x-b/s1/00000.wav")
    samples, _ = soundfile.read(path, dtype="float32")
    start = ver.crop_start("x-b/s1/00000", len(samples), RATE // 2, seed=5)
    model = Model()
    store = ver.EmbeddingStore(corpus / "store", model.key, "crop")
    embedding, speech = ver.embed_utterances(
        model, [path], store, seconds=0.5, seed=5
    )
    assert speech.tolist() == [0.5]
    crop = torch.from_numpy(samples[start : start + RATE // 2])
    # Sums of 8,000 float32 numbers in another order.
    torch.testing.assert_close(
        embedding[0, 0], crop.abs().mean(), rtol=1e-5, atol=0
    )
    starts = {
        ver.crop_start("x-b/s1/00000", len(samples), RATE // 2, seed)
        for seed in range(20)
    }
    assert len(starts) > 10 and max(starts) <= len(samples) - RATE // 2
    # Shorter than the crop: whole.
    _, speech = ver.embed_utterances(
        model,
        [path],
        ver.EmbeddingStore(corpus / "store", model.key, "long"),
        seconds=3,
    )
    assert speech.tolist() == [1.25]


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_audio_that_is_not_finite_is_named(corpus, value):
    """The file, not the model, and never an embedding."""
    paths = sorted(str(path) for path in corpus.glob("wav/*/*/*.wav"))
    samples = np.zeros(16000, "float32")
    samples[123] = float(value)
    soundfile.write(paths[2], samples, 16000, "FLOAT")
    store = ver.EmbeddingStore(corpus / "store", Model.key, "full")
    with pytest.raises(UserError, match=f"^{paths[2]}: sample 123 is NaN or"):
        ver.embed_utterances(Model(), paths, store)


def test_what_was_embedded_survives_an_interruption(corpus):
    """Embeddings before a failure are on disk, and only the rest is redone."""
    paths = sorted(str(path) for path in corpus.glob("wav/*/*/*.wav"))

    class Failing(Model):
        def embed(self, wavs, lens):
            if len(self.batches) == 1:
                raise KeyboardInterrupt
            return super().embed(wavs, lens)

    store = ver.EmbeddingStore(corpus / "store", Model.key, "full")
    with pytest.raises(KeyboardInterrupt):
        ver.embed_utterances(Failing(), paths, store)
    model = Model()
    store = ver.EmbeddingStore(corpus / "store", model.key, "full")
    ver.embed_utterances(model, paths, store)
    assert model.batches == [[16000] * 4]


def test_a_broken_store_is_named(corpus):
    """A part that was cut short says which file to delete."""
    paths = sorted(str(path) for path in corpus.glob("wav/*/*/*.wav"))
    store = ver.EmbeddingStore(corpus / "store", Model.key, "full")
    ver.embed_utterances(Model(), paths, store)
    (part,) = store.folder.glob("*.npz")
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(UserError, match=f"{part}.*delete it"):
        ver.EmbeddingStore(corpus / "store", Model.key, "full")


def test_audio_of_no_use_is_named(corpus):
    """Wrong rate, channels, empty, not audio, gone."""
    store = ver.EmbeddingStore(corpus / "store", Model.key, "full")
    bad = corpus / "wav" / "bad.wav"
    for samples, rate, sentence in (
        (np.zeros(100), 8000, "but found 1 at 8000 Hz"),
        (np.zeros((100, 2)), RATE, "but found 2 at 16000 Hz"),
        (np.zeros(0), RATE, "is empty"),
    ):
        soundfile.write(bad, samples, rate)
        with pytest.raises(UserError, match=sentence):
            ver.embed_utterances(Model(), [str(bad)], store)
    bad.write_text("no audio")
    with pytest.raises(UserError, match="not a readable audio file"):
        ver.embed_utterances(Model(), [str(bad)], store)
    bad.unlink()
    with pytest.raises(UserError, match="there is no such audio file"):
        ver.embed_utterances(Model(), [str(bad)], store)


def test_embeddings_that_are_not_finite_are_refused(corpus):
    """A diverged model is said to be one, with the utterance."""

    class Diverged(Model):
        def embed(self, wavs, lens):
            return super().embed(wavs, lens) * math.nan

    path = str(corpus / "wav/x-b/s1/00000.wav")
    store = ver.EmbeddingStore(corpus / "store", Model.key, "full")
    with pytest.raises(UserError, match=f"{path}.*NaN or infinity"):
        ver.embed_utterances(Diverged(), [path], store)
    assert ver.EmbeddingStore(corpus / "store", Model.key, "full").rows == {}


# Scores


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_scores_are_torchs_cosine_similarity(block):
    """In blocks, with a zero embedding and huge ones among them."""
    generator = torch.Generator().manual_seed(0)
    enrol = torch.randn(20, 16, generator=generator)
    test = torch.randn(30, 16, generator=generator) * 1000
    enrol[3] = 0
    pairs = torch.stack(
        [
            torch.randint(20, (100,), generator=generator),
            torch.randint(30, (100,), generator=generator),
        ],
        dim=1,
    )
    cosine = torch.nn.CosineSimilarity(dim=-1, eps=1e-6)
    expected = cosine(enrol[pairs[:, 0]], test[pairs[:, 1]])
    scores = ver.score_trials(enrol, test, pairs, block=block)
    # float32: dividing before or after the product, 16 terms.
    torch.testing.assert_close(scores, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("method", ver.NORMALISATIONS)
@pytest.mark.parametrize("block", [3, 1000])
def test_normalisation_is_the_per_trial_formula(method, block):
    """Each trial on its own, with cosines against the whole cohort."""
    generator = torch.Generator().manual_seed(1)
    enrol = torch.randn(8, 12, generator=generator)
    test = torch.randn(9, 12, generator=generator)
    cohort = torch.randn(50, 12, generator=generator)
    pairs = torch.cartesian_prod(torch.arange(8), torch.arange(9))
    top = 10 if method == "as-norm" else None
    scores = ver.normalise_scores(
        ver.score_trials(enrol, test, pairs),
        pairs,
        ver.cohort_statistics(enrol, cohort, top, block=block),
        ver.cohort_statistics(test, cohort, top, block=block),
        method,
    )
    cosine = torch.nn.CosineSimilarity(dim=-1, eps=1e-6)
    for score, (i, j) in zip(scores, pairs.tolist(), strict=True):
        raw = cosine(enrol[i], test[j])
        sides = []
        for embedding in (enrol[i], test[j]):
            impostors = cosine(embedding.expand_as(cohort), cohort)
            if top:
                impostors = impostors.topk(top).values
            sides.append((raw - impostors.mean()) / impostors.std())
        expected = {"z-norm": sides[0], "t-norm": sides[1]}.get(
            method, (sides[0] + sides[1]) / 2
        )
        # A float32 mean and deviation, divided by a deviation of about 0.1.
        torch.testing.assert_close(score, expected, atol=2e-5, rtol=2e-5)


def test_cohorts_without_statistics_are_refused():
    """One utterance has no deviation; more than there are cannot be used."""
    one = torch.ones(1, 4)
    with pytest.raises(ValueError, match="at least two"):
        ver.cohort_statistics(one, one)
    with pytest.raises(ValueError, match="no more than there are"):
        ver.cohort_statistics(one, torch.ones(5, 4), top=6)
    with pytest.raises(ValueError, match="unknown score normalisation"):
        ver.normalise_scores(torch.ones(1), torch.zeros(1, 2), 0, 0, "x-norm")


def test_mean_subtraction_and_normalisation_of_whole_lists(corpus):
    """The scorer does what its parts do, in order."""
    located = ver.locate_trials(ver.read_trials(corpus / "list.txt"), corpus)
    generator = torch.Generator().manual_seed(2)
    table = {}

    def embed(model, paths, seconds):
        for path in paths:
            if (path, seconds) not in table:
                table[path, seconds] = torch.randn(5, generator=generator) + 1
        rows = [table[path, seconds] for path in paths]
        return torch.stack(rows), torch.full((len(paths),), seconds or 9.0)

    cohort = [f"cohort{i}" for i in range(6)]
    scorer = ver.Scorer(
        Model(), embed, cohort=cohort, subtract_mean=True, score_norm="s-norm"
    )
    scores, (enrol_speech, test_speech) = scorer.score(located, 2)
    assert enrol_speech.tolist() == [9.0] * 4  # only the test side is cropped
    assert test_speech.tolist() == [2.0] * 4
    impostors = torch.stack([table[path, None] for path in cohort])
    mean = impostors.mean(dim=0)
    cosine = torch.nn.CosineSimilarity(dim=-1, eps=1e-6)
    wav = str(corpus / "wav")
    for trial, score in enumerate(scores):
        enrol = table[f"{wav}/{located.trials.enrol[trial]}.wav", None] - mean
        test = table[f"{wav}/{located.trials.test[trial]}.wav", 2] - mean
        raw, sides = cosine(enrol, test), []
        for side in (enrol, test):
            against = cosine(side.expand(6, 5), impostors - mean)
            sides.append((raw - against.mean()) / against.std())
        # float32, divided by a deviation of a few tenths.
        torch.testing.assert_close(score, sum(sides) / 2, atol=1e-5, rtol=1e-5)


def test_calibration_finds_the_log_likelihood_ratio():
    """Gaussian scores of variance 1 and means +-1 have the ratio 2 * score."""
    pytest.importorskip("sklearn")
    generator = torch.Generator().manual_seed(3)
    labels = torch.rand(60000, generator=generator) < 0.2
    scores = torch.randn(60000, generator=generator) + 2.0 * labels - 1.0
    seconds = torch.full((60000,), 3.0)
    features = ver.calibration_features(scores, seconds, seconds)
    weights, offset = ver.train_calibration(features, labels)
    grid = torch.linspace(-2, 2, 5)
    ratio = ver.calibration_features(grid, seconds[:5], seconds[:5])
    # 12,000 targets: the slope's standard error is about 0.02.
    torch.testing.assert_close(
        ratio @ weights + offset, 2.0 * grid.double(), atol=0.15, rtol=0
    )


def test_calibration_trusts_short_speech_less():
    """Where 1 s says half as much as 4 s, its scores count for less."""
    pytest.importorskip("sklearn")
    generator = torch.Generator().manual_seed(4)
    labels = torch.rand(20000, generator=generator) < 0.5
    short = torch.rand(20000, generator=generator) < 0.5
    separation = torch.where(short, 0.5, 2.0) * (2.0 * labels - 1.0)
    scores = torch.randn(20000, generator=generator) + separation
    test_seconds = torch.where(short, 1.0, 4.0)
    enrol_seconds = torch.full((20000,), 6.0)
    weights, offset = ver.train_calibration(
        ver.calibration_features(scores, enrol_seconds, test_seconds), labels
    )
    ratios = ver.calibration_features(
        torch.ones(2), torch.full((2,), 6.0), torch.tensor([1.0, 4.0])
    )
    one_second, four_seconds = (ratios @ weights + offset).tolist()
    # True ratios: 2 * separation * score, 1 and 4.
    assert one_second == pytest.approx(1.0, abs=0.3)
    assert four_seconds == pytest.approx(4.0, abs=0.6)


def test_speakers_that_were_learnt_are_refused(corpus):
    """With the source and the names; allowed only when told so."""
    located = ver.locate_trials(ver.read_trials(corpus / "list.txt"), corpus)
    sources = {"the training data of the model m": ["q", "x-a", "x-b"]}
    with pytest.raises(
        UserError, match=r"model m holds 2 of its 3 speakers \(x-a, x-b\)"
    ):
        ver.check_held_out(located, sources)
    assert len(ver.check_held_out(located, sources, allow=True)) == 1
    assert ver.check_held_out(located, {"the cohort": ["q"]}) == []


def test_cohort_is_drawn_from_an_annotation(tmp_path):
    """One entry a file, the same ones for the same seed."""
    rows = [
        f"u{i}_{part},3,$data_root/wav/s{i % 3}/s1/{i}.wav,0,9,s{i % 3}"
        for i in range(20)
        for part in range(2)
    ]
    header = "ID,duration,wav,start,stop,spk_id\n"
    path = write(tmp_path / "train.csv", header + "\n".join(rows))
    everything = ver.read_cohort(path, "/data", 100, seed=0)
    assert len(everything) == 20
    assert everything["/data/wav/s1/s1/4.wav"] == "s1"
    some = ver.read_cohort(path, "/data", 5, seed=1)
    assert len(some) == 5
    assert some == ver.read_cohort(path, "/data", 5, seed=1)
    with pytest.raises(UserError, match="no such cohort"):
        ver.read_cohort(tmp_path / "none.csv", "/data", 5, seed=1)
    with pytest.raises(UserError, match="column wav is missing"):
        ver.read_cohort(write(tmp_path / "b.csv", "a,b\n1,2"), "/", 5, seed=1)


def test_model_size_by_hand():
    """A convolution and a linear layer, counted on paper."""

    class Sized(Model):
        def __init__(self):
            super().__init__()
            self.embedding_model = torch.nn.ModuleDict(
                {
                    "conv": torch.nn.Conv1d(4, 8, 3),
                    "linear": torch.nn.Linear(8, 5),
                }
            )

        def features(self, wavs):
            return wavs.reshape(1, 4, -1)[..., :100]

        def embed_features(self, feats):
            hidden = self.embedding_model["conv"](feats).mean(dim=2)
            return self.embedding_model["linear"](hidden)

    parameters, macs = ver.model_size(Sized())
    assert parameters == (4 * 3 + 1) * 8 + (8 + 1) * 5
    assert macs == 98 * 8 * 4 * 3 + 8 * 5


# Reports


@pytest.fixture
def measured(corpus):
    """A list with its scores at two durations, and their rows."""
    lines, draw = [], np.random.default_rng(6)
    names = [f"{s}/s1/0000{u}" for s in ("x-a", "x-b", "y-c") for u in (0, 1)]
    for enrol in names:
        for test in names:
            label = enrol.split("/")[0] == test.split("/")[0]
            lines.append(f"{int(label)} {enrol} {test}")
    path = write(corpus / "all.txt", "\n".join(lines))
    located = ver.locate_trials(ver.read_trials(path), corpus)
    labels = located.trials.labels
    scores = {
        duration: torch.from_numpy(draw.normal(size=36)).float() + labels
        for duration in ("full", "1s")
    }
    rows = reports.measure(
        located,
        "m",
        scores,
        {name: 3 * values for name, values in scores.items()},
        p_targets=[0.05],
        group_separator="-",
        bootstrap_samples=20,
    )
    return located, scores, rows


def test_figures_of_durations_groups_and_all_together(measured):
    """Each row is the metric on its own trials."""
    located, scores, rows = measured
    labels = located.trials.labels
    found = {(row["duration"], row["group"]): row for row in rows}
    # The group y has one speaker, so no nontarget trials: it is left out.
    assert set(found) == {
        (duration, group)
        for duration in ("full", "1s", "pooled")
        for group in ("all", "x")
    }
    for duration in scores:
        values = scores[duration]
        assert (
            found[duration, "all"]["eer"]
            == EER(values[labels], values[~labels])[0]
        )
        inside = torch.tensor(
            [
                enrol[0] == test[0] == "x"
                for enrol, test in zip(
                    located.trials.enrol, located.trials.test, strict=True
                )
            ]
        )
        assert (
            found[duration, "x"]["eer"]
            == EER(values[inside & labels], values[inside & ~labels])[0]
        )
        assert found[duration, "x"]["trials"] == 16
    together = torch.cat(list(scores.values()))
    assert (
        found["pooled", "all"]["eer"]
        == EER(together[labels.repeat(2)], together[~labels.repeat(2)])[0]
    )
    row = found["full", "all"]
    assert row["eer_low"] <= row["eer_high"]
    assert {"cllr", "actual_dcf_0.05", "min_dcf_0.05"} <= set(row)


def test_every_figure_has_its_convention(measured):
    """A reader of results.json finds what each name means."""
    *_, rows = measured
    described = " ".join(reports.CONVENTIONS).replace("<p>", "0.05")
    labels = {"model", "list", "group", "trials", "targets", "eer_threshold"}
    for row in rows:
        for name in set(row) - labels:
            assert name in described.replace(",", " ").split(), name


def test_tables_and_score_files(measured, tmp_path):
    """What is printed and written can be read back."""
    located, scores, rows = measured
    table = reports.format_tables(rows, {"m": (1200000, 45 * 10**6)}, 0.05)
    line = next(x for x in table.splitlines() if x.startswith("m "))
    assert "1.20 M" in line and "0.045 G" in line
    assert f"{100 * rows[0]['eer']:.2f}" in line
    assert f"{rows[0]['min_dcf_0.05']:.3f}" in line
    keyed = {("all", "m 1", name): values for name, values in scores.items()}
    reports.write_scores(tmp_path, [located], keyed)
    header, *lines = (tmp_path / "scores.txt").read_text().splitlines()
    assert header == "list enrol test label m_1@full m_1@1s"
    assert len(lines) == 36
    fields = lines[7].split()
    assert fields[:4] == ["all", "x-a/s1/00001", "x-a/s1/00001", "1"]
    # Six decimals are written.
    assert float(fields[4]) == pytest.approx(float(scores["full"][7]), abs=1e-6)
    single = (tmp_path / "scores/all/m_1/1s.txt").read_text().splitlines()
    assert single[7].split() == [*fields[1:4], fields[5]]
    assert not list(tmp_path.glob("*.tmp"))


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    """Half a file is never in the place of a whole one."""
    path = tmp_path / "results.json"
    reports.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        reports.write_json(path, {"a": 2, "b": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("scores", ["spread", "separated", "equal"])
def test_plots_are_drawn_for_any_scores(tmp_path, scores):
    """Perfect and useless systems have a plot too."""
    matplotlib_image = pytest.importorskip("matplotlib.image")
    targets, nontargets = torch.randn(50) + 1, torch.randn(50)
    if scores == "separated":
        targets = targets + 100
    if scores == "equal":
        targets, nontargets = torch.zeros(9), torch.zeros(9)
    keys = [("model a", d) for d in ("full", "1s")]
    threshold = EER(targets, nontargets)[1]
    plots.det_plot(
        tmp_path / "det.png",
        dict.fromkeys(keys, det_points(targets, nontargets)),
        "list",
    )
    plots.score_histogram(
        tmp_path / "histogram.png",
        dict.fromkeys(keys, (targets, nontargets, threshold)),
        "list",
    )
    for name in ("det.png", "histogram.png"):
        image = matplotlib_image.imread(tmp_path / name)
        assert image.shape[0] > 300 and image.shape[1] > 600
        assert image[..., :3].std() > 0.02  # not blank
