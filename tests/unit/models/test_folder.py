"""Unit tests of ``imlkd_brain.models.folder``."""

import shutil

import pytest
import torch
from helpers.teacher import training_set
from synthetic import TRAIN_SPEAKERS, write_corpus, write_model
from torch.nn.functional import normalize

from imlkd_brain.distillation.prototypes import embed_dataset
from imlkd_brain.distillation.teacher import Teacher, load_teacher
from imlkd_brain.errors import UserError
from imlkd_brain.models.export import TrainedModel, export_inference_folder
from imlkd_brain.models.folder import find_inference_folder, load_speaker_model
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.inference.classifiers import EncoderClassifier
from speechbrain.inference.speaker import SpeakerRecognition
from speechbrain.lobes.models.ECAPA_TDNN import Classifier
from speechbrain.lobes.models.Xvector import Classifier as XvectorClassifier


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training output folder; its inference folder is in it."""
    return write_model(tmp_path_factory.mktemp("models") / "run").parent


@pytest.fixture
def folder(trained, tmp_path):
    """An inference folder that a test may break."""
    return shutil.copytree(trained / "inference", tmp_path / "model")


@pytest.fixture(scope="module")
def wavs():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 8000, generator=generator)


def edit(folder, change, file="embedding_model.ckpt"):
    """Rewrite a checkpoint with a changed state."""
    state = torch.load(folder / file)
    changed = change(state)
    torch.save(state if changed is None else changed, folder / file)


@pytest.mark.parametrize("kind", [SpeakerRecognition, EncoderClassifier])
def test_speechbrains_inference_classes_load_the_folder(
    trained, folder, wavs, kind
):
    ours = load_speaker_model(folder)
    theirs = kind.from_hparams(
        source=str(folder), savedir=str(folder), run_opts={"device": "cpu"}
    )
    with torch.no_grad():
        expected = theirs.encode_batch(wavs).squeeze(1)
        assert torch.equal(ours.embed(wavs), expected)
        lens = torch.tensor([1.0, 0.5, 0.75])
        expected = theirs.encode_batch(wavs, lens).squeeze(1)
        assert torch.equal(ours.embed(wavs, lens), expected)
        if kind is EncoderClassifier:
            cosines, score, index, names = theirs.classify_batch(wavs)
            ours_cosines = ours.cosines(ours.features(wavs))
            assert torch.equal(ours_cosines, cosines.squeeze(1))
            assert names == [ours.speakers[i] for i in index.flatten()]
        else:
            score, _ = theirs.verify_batch(wavs[:1], wavs[1:2])
            one, two = normalize(ours.embed(wavs[:2]), dim=-1)
            # A cosine in another order of operations.
            assert score.item() == pytest.approx(float(one @ two), abs=1e-6)


def test_a_training_folder_is_as_good_as_its_inference_folder(trained):
    one = load_speaker_model(trained)
    two = load_speaker_model(trained / "inference")
    assert one.key == two.key and one.name == trained.name
    assert one.speakers == TRAIN_SPEAKERS
    assert (one.sample_rate, one.embedding_dim) == (16000, 8)


def test_an_export_replaces_an_older_one_whole(trained, tmp_path):
    model = load_speaker_model(trained)
    encoder = CategoricalEncoder()
    encoder.update_from_iterable(model.speakers)
    target = tmp_path / "inference"
    for leftover in (target, target.with_name("inference.building")):
        leftover.mkdir()
        (leftover / "old.ckpt").write_text("old")
    result = export_inference_folder(
        target,
        trained / "hyperparams.yaml",
        TrainedModel(model.embedding_model, model.classifier, encoder),
    )
    assert result == target
    assert [path.name for path in tmp_path.iterdir()] == ["inference"]
    assert {path.name for path in target.iterdir()} == {
        "hyperparams.yaml",
        "embedding_model.ckpt",
        "classifier.ckpt",
        "label_encoder.ckpt",
        "checksums.json",
    }
    assert load_speaker_model(target).key == model.key


def test_the_teachers_speakers_travel_with_its_students(trained, tmp_path):
    """Through a chain of three models; a folder without them still loads."""
    first = load_speaker_model(trained)
    assert first.teacher_speakers == []
    encoder = CategoricalEncoder()
    encoder.update_from_iterable(["zoë", "yan"])
    taught = first
    for name in ("second", "third"):
        teacher = Teacher(taught, ["zoë", "yan"], torch.eye(8)[:2])
        export_inference_folder(
            tmp_path / name,
            trained / "hyperparams.yaml",
            TrainedModel(
                first.embedding_model, Classifier(8, out_neurons=2), encoder
            ),
            teacher_speakers=teacher.learnt_speakers,
        )
        taught = load_speaker_model(tmp_path / name)
        assert taught.speakers == ["zoë", "yan"]
        assert set(TRAIN_SPEAKERS) <= set(taught.teacher_speakers)
    assert taught.learnt_speakers == sorted([*TRAIN_SPEAKERS, "yan", "zoë"])
    names = tmp_path / "third" / "teacher_speakers.txt"
    assert names.read_text(encoding="utf-8").splitlines() == sorted(
        [*TRAIN_SPEAKERS, "yan", "zoë"]
    )
    names.write_bytes(b"\xff")
    with pytest.raises(UserError, match="teacher_speakers.txt has another ch"):
        load_speaker_model(tmp_path / "third")
    (tmp_path / "third" / "checksums.json").unlink()
    with pytest.raises(UserError, match="teacher_speakers.txt: not a readable"):
        load_speaker_model(tmp_path / "third")


def test_an_export_without_a_key_says_which(trained, tmp_path):
    text = (trained / "hyperparams.yaml").read_text()
    (tmp_path / "h.yaml").write_text(text.replace("mean_var_norm", "norm"))
    model = load_speaker_model(trained)
    with pytest.raises(UserError, match="h.yaml.*`mean_var_norm` is missing"):
        export_inference_folder(
            tmp_path / "inference",
            tmp_path / "h.yaml",
            TrainedModel(
                model.embedding_model, model.classifier, CategoricalEncoder()
            ),
        )
    assert not (tmp_path / "inference").exists()


def drop_first(state):
    del state[next(iter(state))]


def first_to(value):
    def change(state):
        key = next(iter(state))
        state[key] = value(state[key])

    return change


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("embedding_model", drop_first, "does not fit.*missing: "),
        ("classifier", drop_first, "does not fit.*missing: "),
        (
            "embedding_model",
            lambda state: state.update(extra=torch.zeros(1)),
            "does not fit.*unknown: extra",
        ),
        (
            "embedding_model",
            first_to(lambda w: w[:-1]),
            r"another shape: blocks.0.conv.conv.weight \(7, 20, 5\), expected",
        ),
        (
            "classifier",
            first_to(lambda w: w[:, :-1]),
            r"shape: weight \(4, 7\), expected \(4, 8\)",
        ),
        (
            "embedding_model",
            first_to(lambda w: w.fill_(torch.nan)),
            "blocks.0.*holds NaN.*train again",
        ),
        (
            "embedding_model",
            first_to(lambda w: w.index_fill(0, torch.tensor([1]), torch.inf)),
            "holds NaN or infinite",
        ),
        ("classifier", first_to(lambda w: w.tolist()), "does not fit.*weight"),
        (
            "embedding_model",
            lambda state: state.update(
                {k: 3 for k in state if k.endswith("tracked")}
            ),
            "does not fit.*tracked",
        ),
        ("embedding_model", lambda state: torch.zeros(3), "not a readable"),
        ("embedding_model", lambda state: [1, 2], "not a readable"),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused(folder, file, change, words):
    path = folder / f"{file}.ckpt"
    edit(folder, change, path.name)
    with pytest.raises(UserError, match=f"^{path}: .*{words}") as raised:
        load_speaker_model(folder)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("length", [0, 1, 1000])
@pytest.mark.parametrize("file", ["embedding_model.ckpt", "classifier.ckpt"])
def test_checkpoints_cut_short_are_refused(folder, file, length):
    path = folder / file
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UserError, match=f"^{path}: not a readable"):
        load_speaker_model(folder)


def test_pickles_are_not_executed(folder, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "made"), "w"))

    torch.save(Evil(), folder / "embedding_model.ckpt")
    with pytest.raises(UserError, match="not a readable checkpoint"):
        load_speaker_model(folder)
    assert not (tmp_path / "made").exists()


def test_label_encoders_of_other_models_are_refused(folder):
    path = folder / "label_encoder.ckpt"
    text = path.read_text()
    path.write_text(text.replace("'dora' => 3\n", ""))
    with pytest.raises(UserError, match="names 3 speakers.*classifier has 4"):
        load_speaker_model(folder)
    for broken in ("", "nonsense", text[:10], text[:-12], "'a' => 7\n====\n"):
        path.write_text(broken)
        with pytest.raises(UserError, match=str(folder)) as raised:
            load_speaker_model(folder)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("mean_var_norm:", "norm:"), "mean_var_norm"),
        (lambda text: text[: len(text) // 2], "hyperparams.yaml"),
        (lambda text: "", "hyperparams.yaml"),
        (lambda text: "a: [", "cannot be read"),
        (lambda text: text.replace("ECAPA_TDNN.ECAPA", "No.Such"), "No.Such"),
        (lambda text: text.replace("kernel_sizes", "kernels"), "kernels"),
    ],
)
def test_descriptions_that_cannot_be_built_are_refused(folder, change, words):
    path = folder / "hyperparams.yaml"
    path.write_text(change(path.read_text()))
    with pytest.raises(UserError, match=f"^{folder}.*{words}") as raised:
        load_speaker_model(folder)
    assert "\n" not in str(raised.value)


def test_folders_without_a_model_say_what_to_do(folder, tmp_path):
    with pytest.raises(UserError, match="nowhere: no trained model there"):
        load_speaker_model(tmp_path / "nowhere")
    unfinished = tmp_path / "run"
    (unfinished / "save").mkdir(parents=True)
    with pytest.raises(UserError, match="run: .*has not finished.*again"):
        load_speaker_model(unfinished)
    (folder / "hyperparams.yaml").unlink()
    with pytest.raises(UserError, match="hyperparams.yaml: missing"):
        load_speaker_model(folder)
    assert find_inference_folder(str(folder)) == folder


def test_the_model_is_frozen_whatever_is_asked_of_it(trained, wavs):
    model = load_speaker_model(trained)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert model.train() is model
    torch.nn.ModuleList([model]).train()
    assert not any(module.training for module in model.modules())
    feats = model.features(wavs).requires_grad_()
    model.cosines(feats).sum().backward()
    assert feats.grad.abs().sum() > 0
    assert all(p.grad is None for p in model.parameters())
    assert not any(p.requires_grad for p in model.parameters())
    after = model.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    cosines = model.cosines(feats)
    assert cosines.shape == (3, 4) and cosines.abs().max() <= 1 + 1e-6


def test_the_key_is_of_weights_and_description(trained, folder):
    key = load_speaker_model(trained).key
    assert len(key) == 64 and key == load_speaker_model(folder).key

    def add_half(state):
        state["blocks.0.conv.conv.bias"][0] += 0.5

    edit(folder, add_half)
    changed = load_speaker_model(folder).key
    assert changed != key
    # What has no weights counts as well: features and wiring.
    path = folder / "hyperparams.yaml"
    text = path.read_text()
    keys = {key, changed}
    for old, new in (
        ("std_norm: false", "std_norm: true"),
        ("n_mels: 20", "n_mels: 20\n  f_max: 4000"),
        ("n_mels: 20", "n_mels: 20\n  hop_length: 12"),
        ("dilations: [1, 2, 3, 4, 1]", "dilations: [1, 2, 2, 4, 1]"),
    ):
        variant = text.replace(old, new, 1)
        assert variant != text, (old, text)
        path.write_text(variant)
        keys.add(load_speaker_model(folder).key)
    assert len(keys) == 6


def test_a_model_of_embeddings_alone(folder, wavs):
    """Without a classifier it verifies, and says that it cannot classify."""
    (folder / "classifier.ckpt").unlink()
    model = load_speaker_model(folder)
    assert model.classifier is None
    assert model.embed(wavs).shape == (3, 8)
    with pytest.raises(UserError, match="no classifier"):
        model.cosines(model.features(wavs))
    with pytest.raises(UserError, match="no classifier.*prototypes"):
        load_teacher(folder, TRAIN_SPEAKERS)


def test_a_classifier_without_rows_is_none(folder, wavs):
    """SpeechBrain's x-vector hub model ends in a softmax, not in cosines."""
    path = folder / "hyperparams.yaml"
    text = path.read_text().replace(
        "speechbrain.lobes.models.ECAPA_TDNN.Classifier",
        "speechbrain.lobes.models.Xvector.Classifier",
    )
    text = text.replace("input_size: 8", "input_shape: [null, null, 8]")
    path.write_text(text)
    classifier = XvectorClassifier([None, None, 8], out_neurons=4)
    torch.save(classifier.state_dict(), folder / "classifier.ckpt")
    model = load_speaker_model(folder)
    assert model.classifier is None
    assert model.embed(wavs).shape == (3, 8)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def test_prototypes_are_embedded_where_the_run_is(trained, corpus, monkeypatch):
    model = load_speaker_model(trained)
    places = []
    move = type(model).to
    monkeypatch.setattr(
        type(model), "to", lambda self, d: places.append(d) or move(self, d)
    )
    # What the machine would choose for itself does not matter.
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: 1 / 0)
    embed_dataset(model, training_set(corpus), "cpu", batch_size=8)
    assert places == ["cpu", torch.device("cpu")]
