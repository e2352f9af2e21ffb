"""Every kind of state file times every corruption.

A new kind of file is a row of :data:`STATES`. What a script reads after the
damage is what it read before (the file was made again, or the damage is where
nothing is read), or a sentence that names the file. It is never another value,
and never a traceback.
"""

import atexit
import shutil
import tempfile
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.corruption import CORRUPTIONS, nothing_ran
from helpers.prepared import write_wav
from synthetic import write_model
from voxceleb_prepare import prepare_voxceleb

import speechbrain as sb
from imlkd_brain import files
from imlkd_brain.comparison.scores import kept_numbers
from imlkd_brain.comparison.tables import read_table
from imlkd_brain.corpora import building
from imlkd_brain.data.annotations import read_annotation
from imlkd_brain.data.cohort import read_cohort
from imlkd_brain.data.datasets import encode_speakers
from imlkd_brain.data.measured import MeasuredFiles
from imlkd_brain.data.sources import file_states
from imlkd_brain.data.unlabelled_folder import prepare_unlabelled
from imlkd_brain.distillation.answer_store import AnswerStore
from imlkd_brain.distillation.teacher_cache import TeacherCache
from imlkd_brain.errors import UserError
from imlkd_brain.locks import locked
from imlkd_brain.models.card import read_results
from imlkd_brain.models.decision import (
    Decision,
    fingerprint,
    read_decision,
    write_decision,
)
from imlkd_brain.models.folder import load_speaker_model
from imlkd_brain.trained_with import read_record
from imlkd_brain.verification.gallery import Gallery, read_gallery
from imlkd_brain.verification.store import EmbeddingStore

# `make test` takes these, `make test-all` the others as well.
QUICK = ("emptied", "halved", "flipped", "pickled")
NAMES = [f"speaker {n}" for n in range(5)]
VALUES = torch.linspace(0, 1, 200)


@dataclass(frozen=True)
class State:
    """A kind of file that a run leaves and a later one reads.

    Arguments
    ---------
    make : callable
        Writes it into a folder; returns its path.
    read : callable
        Reads it from the folder as scripts do; returns what can be compared.
    sealed : bool
        Whether a changed byte can be told from what was written. It cannot
        in a text without a checksum.
    optional : bool
        Whether there may be none.
    more : dict of str to callable
        Corruptions of this kind alone: another shape, NaN.
    """

    make: object
    read: object
    sealed: bool = True
    optional: bool = False
    more: dict = field(default_factory=dict)


def put(name, content):
    """A corruption that writes something else with torch."""
    return lambda path: torch.save(content, path)


def arrays(**content):
    """A corruption that writes other arrays with numpy."""

    def write(path):
        with np.load(path) as before:
            kept = dict(before)
        with open(path, "wb") as stream:
            np.savez(stream, **{**kept, **content})

    return write


def array(content):
    """A corruption that writes another array with numpy."""

    def write(path):
        with open(path, "wb") as stream:
            np.save(stream, content)

    return write


def as_text(text):
    return lambda path: path.write_text(text)


# One file in a folder of files: cached results, caches of answers


def make_cached(folder):
    read_cached(folder)
    return folder / "maps.pt"


def read_cached(folder):
    return files.cached(folder, "maps", ["x"], lambda: [VALUES])[0].tolist()


def make_teacher_cache(folder):
    read_teacher_cache(folder)
    (path,) = folder.rglob("*.pt")
    return path


def read_teacher_cache(folder):
    cache = TeacherCache(folder / "cache")
    return cache("a", VALUES, lambda: (VALUES,))[0].tolist()


def make_embeddings(folder):
    read_embeddings(folder)
    (path,) = folder.rglob("*.npz")
    return path


def read_embeddings(folder):
    store = EmbeddingStore(folder, "f" * 64, "full")
    for name in NAMES:
        if name not in store.rows:
            store.add(name, VALUES.numpy(), 1.0)
    store.write()
    return [store.rows[name][0].tolist() for name in NAMES]


def make_bootstrap(folder):
    np.savez(folder / "kept.npz", eer=VALUES.numpy())
    return folder / "kept.npz"


def read_bootstrap(folder):
    found = kept_numbers(folder / "kept.npz", len(VALUES))
    return (VALUES.numpy() if found is None else found).tolist()


# Stored answers of a teacher


CONTENT = {
    "format": 1,
    "precision": "float32",
    "dimension": 4,
    "weights": [],
    "fields": ["chunk"],
}


def open_answers(folder):
    walk = {name: (name, 1.0) for name in NAMES}
    return AnswerStore.create(folder / "answers", CONTENT, walk)


def make_answers(folder):
    store = open_answers(folder)
    (block,) = store.blocks(1)
    records = np.zeros(len(block), store.record_type(0))
    records["chunk"] = np.arange(20.0).reshape(5, 4)
    store.write(block, records)
    return block.path


def file_of_answers(name):
    return lambda folder: make_answers(folder).parents[1] / name


def read_answers(folder):
    store = open_answers(folder)
    store.check_files(1)
    return [store.record(name, 0)["chunk"].tolist() for name in NAMES]


# What a training keeps beside its checkpoints


def read_encoder(folder):
    rows = {name: {"spk_id": name} for name in NAMES}
    dataset = sb.dataio.dataset.DynamicItemDataset(rows)
    return encode_speakers(dataset, folder / "label_encoder.txt").lab2ind


def make_encoder(folder):
    read_encoder(folder)
    return folder / "label_encoder.txt"


def make_epochs(folder):
    path = folder / "train_stats.csv"
    for epoch in (1, 2):
        files.append_epoch(path, {"epoch": epoch, "loss": 1 / epoch})
    return path


def read_epochs(folder):
    """The next epoch is written, whatever there was."""
    files.append_epoch(folder / "train_stats.csv", {"epoch": 3, "loss": 0.25})
    rows = pd.read_csv(folder / "train_stats.csv")
    return {"epoch": int(rows["epoch"].iloc[-1])}


def make_record(folder):
    files.write_json(
        folder / "trained_with.json", {"hyperparameters": {"a": 1}}
    )
    return folder / "trained_with.json"


# What is prepared from a corpus


def corpus_of(folder):
    corpus = folder.parent / f"{folder.name}-corpus"
    if not corpus.exists():
        for speaker in ("id1", "id2"):
            for session in ("s1", "s2", "s3"):
                write_wav(corpus / "wav" / speaker / session / "1.wav", 0.5)
    return corpus


def prepare(folder):
    prepare_voxceleb(
        data_folder=str(corpus_of(folder)),
        save_folder=str(folder),
        verification_pairs_file=None,
        splits=["train", "dev"],
        split_ratio=[60, 40],
        seg_dur=0.5,
        amp_th=5e-4,
    )


def prepared_file(name):
    def make(folder):
        prepare(folder)
        return folder / name

    return make


def read_prepared(folder):
    prepare(folder)
    return [
        sorted(read_annotation(str(folder / f"{split}.csv"), ""))
        for split in ("train", "dev")
    ]


def read_measured(folder):
    paths = [str(p) for p in sorted(corpus_of(folder).rglob("*.wav"))]
    states = file_states(paths, 1)
    with MeasuredFiles(str(folder), states, 1, 16000) as measured:
        found = measured.measure(paths, 4000, "files")
    return [(m.n_samples, len(m.levels)) for m in found]


def make_measured(folder):
    read_measured(folder)
    (path,) = folder.glob("*.csv")
    return path


def read_unlabelled(folder):
    path = prepare_unlabelled(
        str(corpus_of(folder)), str(folder), 16000, 0.1, set()
    )
    return sorted(read_annotation(path, ""))


def unlabelled_file(name):
    def make(folder):
        read_unlabelled(folder)
        return folder / name

    return make


def make_own_annotation(folder):
    prepare(folder)
    (folder / "opt_voxceleb_prepare.json").unlink()
    return (folder / "train.csv").rename(folder / "mine.csv")


# Corpora


BUILD = {"corpus": "a corpus", "format": 1}


def make_build(folder):
    building.keep_or_drop(folder, BUILD, ("wav",))
    return folder / building.WORK / "options.json"


def read_build(folder):
    work = building.keep_or_drop(folder, BUILD, ("wav",))
    return files.read_json(work / "options.json")


def make_manifest(folder):
    (folder / "wav").mkdir()
    building.write_json(folder / "manifest.json", {"options": BUILD})
    return folder / "manifest.json"


def read_manifest(folder):
    """Without one, what is there is not taken for a corpus."""
    found = building.finished(folder, BUILD, ("wav",))
    if found is None:
        building.keep_or_drop(folder, BUILD, ("wav",))
    return found["options"]


def make_row(folder):
    files.write_json(folder / "row.json", {"utterances": 3})
    return folder / "row.json"


def read_row(folder):
    """It is built again where it cannot be read."""
    return files.read_json(folder / "row.json") or {"utterances": 3}


# Reports, galleries, locks


def make_results(folder):
    rows = [{"list": "a", "duration": "full", "eer": 0.5, "model": "m"}]
    content = {"results": rows, "models": {"m": {"key": "k"}}}
    files.write_json(folder / "results.json", content)
    return folder / "results.json"


def make_table(folder):
    files.write_csv(folder / "runs.csv", [{"method": "a", "eer": 0.5}] * 9)
    return folder / "runs.csv"


def make_gallery(folder):
    gallery = Gallery("m")
    for name in NAMES:
        gallery.add(name, VALUES, 1.0, f"{name}.wav", name)
    gallery.write(folder / "gallery.npz")
    return folder / "gallery.npz"


def read_a_gallery(folder):
    gallery = read_gallery(folder / "gallery.npz", "m")
    return [e.tolist() for e in gallery.embeddings], gallery.names


def make_holder(folder):
    files.write_json(folder / ".lock.json", {"pid": 1})
    return folder / ".lock.json"


def read_holder(folder):
    with locked(folder / ".lock", "busy"):
        with pytest.raises(UserError, match="^busy"):
            with locked(folder / ".lock", "busy", "come again"):
                pass


def json_of(name, function):
    return lambda folder: function(folder / name)


STATES = {
    "kept maps, prototypes": State(
        make_cached, read_cached, more={"of other things": put("maps", VALUES)}
    ),
    "teacher's cache": State(
        make_teacher_cache,
        read_teacher_cache,
        more={"of other things": put("cache", [VALUES[:3]])},
    ),
    "embedding store": State(
        make_embeddings,
        read_embeddings,
        more={
            "another shape": arrays(embeddings=np.ones((5, 2, 2), "f4")),
            "another number": arrays(embeddings=np.ones((4, 200), "f4")),
            "NaN": arrays(embeddings=np.full((5, 200), np.nan, "f4")),
        },
    ),
    "bootstrap": State(
        make_bootstrap,
        read_bootstrap,
        more={
            "another shape": arrays(eer=np.zeros(3)),
            "beyond 1": arrays(eer=np.full(200, 2.0)),
        },
    ),
    "stored answers": State(
        make_answers,
        read_answers,
        more={
            "another shape": array(np.zeros(3)),
            "NaN": lambda path: array(np.full(5, np.nan, np.load(path).dtype))(
                path
            ),
        },
    ),
    "stored answers' content": State(
        file_of_answers("answers.json"), read_answers
    ),
    "stored answers' walk": State(
        file_of_answers("utterances.csv"), read_answers
    ),
    "label encoder": State(make_encoder, read_encoder),
    "train_stats.csv": State(make_epochs, read_epochs),
    "trained_with.json": State(
        make_record, read_record, sealed=False, optional=True
    ),
    **{
        f"prepared {name}": State(prepared_file(name), read_prepared)
        for name in ("train.csv", "dev.csv", "opt_voxceleb_prepare.json")
    },
    "measured files": State(make_measured, read_measured, sealed=False),
    **{
        name: State(unlabelled_file(name), read_unlabelled, sealed=False)
        for name in ("unlabelled.csv", "options.json")
    },
    "a user's annotation": State(
        make_own_annotation,
        lambda folder: sorted(read_annotation(str(folder / "mine.csv"), "")),
        sealed=False,
    ),
    "cohort": State(
        make_own_annotation,
        lambda folder: sorted(
            read_cohort(str(folder / "mine.csv"), "", 99, 0).values()
        ),
        sealed=False,
    ),
    "unfinished build": State(make_build, read_build),
    "speaker of a build": State(make_row, read_row, sealed=False),
    "manifest": State(make_manifest, read_manifest),
    "results.json": State(
        make_results,
        json_of("results.json", lambda path: read_results(path, "k")[1]),
        sealed=False,
    ),
    "runs.csv": State(
        make_table,
        json_of("runs.csv", lambda path: len(read_table(path, ["eer"]))),
        sealed=False,
    ),
    "gallery": State(
        make_gallery,
        read_a_gallery,
        more={
            "another shape": arrays(embeddings=np.ones((5, 2, 2), "f4")),
            "NaN": arrays(embeddings=np.full((5, 200), np.nan, "f4")),
        },
    ),
    "holder of a lock": State(make_holder, read_holder),
}


# Model folders


@cache
def a_model():
    """A model folder with everything that can be in one."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write_model(folder)
    (folder / "inference" / "teacher_speakers.txt").write_text("zoe\n")
    files.write_sums(folder / "inference")
    model = load_speaker_model(folder)
    about = {"slope": 2.0, "offset": 1.0, "eer": 0.1, "trials": 9}
    about |= {"list": "dev", "duration": "full", "threshold": 0.5}
    known = {f.name for f in fields(Decision)} - about.keys() - {"fingerprint"}
    about |= dict.fromkeys(known, "2026-11-26")
    decision = Decision(fingerprint=fingerprint(model), **about)
    write_decision(folder / "inference", decision)
    return folder


def model_file(name):
    def make(folder):
        shutil.copytree(a_model(), folder, dirs_exist_ok=True)
        return folder / "inference" / name

    return make


def read_model(folder):
    model = load_speaker_model(folder)
    speakers = model.speakers, model.teacher_speakers
    decision = read_decision(folder / "inference", model)
    return model.key, speakers, decision


def state_dict(change):
    """A corruption of a module's weights."""

    def write(path):
        state = torch.load(path)
        name = next(k for k, v in state.items() if v.is_floating_point())
        state[name] = change(state[name])
        torch.save(state, path)

    return write


WEIGHTS = {
    "another shape": state_dict(lambda value: value[:1]),
    "NaN": state_dict(lambda value: value * torch.nan),
    "a list": put("", [VALUES]),
}
STATES |= {
    f"model's {name}": State(
        model_file(name),
        read_model,
        optional=optional,
        more=WEIGHTS if name == "embedding_model.ckpt" else {},
    )
    for name, optional in (
        ("embedding_model.ckpt", False),
        ("classifier.ckpt", False),
        ("label_encoder.ckpt", False),
        ("hyperparams.yaml", False),
        ("teacher_speakers.txt", False),
        ("checksums.json", True),
        ("decision.json", True),
    )
}


def check(folder, path, state, corrupt):
    """Corrupt a file and read it twice."""
    wanted = state.read(folder)
    if not path.exists():
        state.make(folder)  # a reader that tidies up, as of a lock's holder
    corrupt(path)
    for _ in range(2):
        try:
            found = state.read(folder)
        except UserError as error:
            said = str(error)
            assert "\n" not in said and (
                path.name in said or path.stem in said or str(folder) in said
            )
        except OSError as error:
            # one_sentence_errors names the file.
            assert error.filename is not None and error.errno
        else:
            name = getattr(corrupt, "__name__", "")
            assert (
                found == wanted
                or (name == "flipped" and not state.sealed)
                or (name == "gone" and state.optional)
            )
        assert nothing_ran(folder)


def cases(states):
    """Every state times every corruption, and its own."""
    return [
        pytest.param(
            kind,
            name,
            id=f"{kind}, {name}",
            marks=() if name in {*QUICK, *state.more} else pytest.mark.slow,
        )
        for kind, state in states.items()
        for name in (*CORRUPTIONS, *state.more)
    ]


@pytest.mark.parametrize(("kind", "corruption"), cases(STATES))
def test_damaged_state_is_made_again_or_a_sentence(kind, corruption, tmp_path):
    state, folder = STATES[kind], tmp_path / "state"
    folder.mkdir()
    path = state.make(folder)
    corrupt = CORRUPTIONS.get(corruption) or state.more[corruption]
    check(folder, path, state, corrupt)
