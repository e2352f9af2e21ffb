"""Failing disks at every write."""

import errno
import os
from dataclasses import fields

import numpy as np
import pytest
import torch
from helpers.killing import is_killed
from helpers.prepared import write_wav
from voxceleb_prepare import prepare_voxceleb

from imlkd_brain import files
from imlkd_brain.checkpoints import AtomicCheckpointer
from imlkd_brain.corpora import building
from imlkd_brain.distillation.answer_store import AnswerStore
from imlkd_brain.distillation.teacher_cache import TeacherCache
from imlkd_brain.errors import one_sentence_errors
from imlkd_brain.models.decision import Decision, write_decision
from imlkd_brain.verification.gallery import Gallery
from imlkd_brain.verification.store import EmbeddingStore

ERRORS = ("ENOSPC", "EROFS", "EDQUOT", "EIO", "EACCES")
# `make test` takes the first two, `make test-all` the others as well.
FAILURES = [
    *ERRORS[:2],
    *(pytest.param(name, marks=pytest.mark.slow) for name in ERRORS[2:]),
]
CALLS = ("os.replace", "os.rename", "builtins.open", "torch.save")


def write_text(folder, version):
    files.write_whole(folder / "a.txt", f"version {version}")


def write_json(folder, version):
    files.write_json(folder / "a.json", {"version": version})


def write_csv(folder, version):
    files.write_csv(folder / "a.csv", [{"version": version}])


def write_epoch(folder, version):
    files.append_epoch(folder / "train_stats.csv", {"epoch": version})


def write_cached(folder, version):
    files.cached(folder, "a", [version], lambda: torch.full((3,), version))


def write_embeddings(folder, version):
    store = EmbeddingStore(folder, "f" * 64, "full")
    store.add(f"utterance {version}", np.ones(3, dtype=np.float32), 1.0)
    store.write()


def write_teacher_cache(folder, version):
    feats = torch.full((3,), float(version))
    TeacherCache(folder)("a", feats, lambda: (feats,))


def write_checkpoint(folder, version):
    model = torch.nn.Linear(2, 1)
    AtomicCheckpointer(folder, {"model": model}).save_and_keep_only(
        name=f"epoch_{version}", meta={"epoch": version}
    )


def write_answers(folder, version):
    content = {
        "format": 1,
        "precision": "float32",
        "dimension": 2,
        "weights": [],
        "fields": ["chunk"],
    }
    AnswerStore.create(folder / str(version), content, {"a": ("s", 1.0)})


def write_prepared(folder, version):
    corpus = folder.parent / "corpus"
    for number in range(version):
        for session in ("s1", "s2"):
            path = corpus / "wav" / f"id{number}" / session / "1.wav"
            write_wav(path, 0.5)
    prepare_voxceleb(
        str(corpus),
        str(folder),
        None,
        ["train"],
        seg_dur=0.5,
        split_ratio=[9, 1],
    )


def write_gallery(folder, version):
    gallery = Gallery("model")
    for number in range(version):
        gallery.add(f"{number}", torch.ones(3), 1.0, "a.wav", f"{number}")
    gallery.write(folder / "gallery.npz")


def write_decision_of(folder, version):
    about = dict.fromkeys((f.name for f in fields(Decision)), float(version))
    write_decision(folder, Decision(**about))


def write_model_folder(folder, version):
    building = folder / "model.building"
    building.mkdir(exist_ok=True)
    files.write_whole(building / "hyperparams.yaml", f"version: {version}")
    files.write_sums(building)
    files.replace_folder(building, folder / "model")


def write_manifest(folder, version):
    building.write_json(folder / "manifest.json", {"options": version})


def write_trials(folder, version):
    building.write_trial_list(folder / "test.txt", [("1", "a", "b")] * version)


WRITERS = {
    function.__name__[len("write_") :]: function
    for function in (
        write_text,
        write_json,
        write_csv,
        write_epoch,
        write_cached,
        write_embeddings,
        write_teacher_cache,
        write_checkpoint,
        write_answers,
        write_prepared,
        write_gallery,
        write_decision_of,
        write_model_folder,
        write_manifest,
        write_trials,
    )
}


def content_of(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        # What is being built is swept away by the next one.
        if path.is_file() and not {"building", "deleting"} & {*path.parts}
    }


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("number", FAILURES)
@pytest.mark.parametrize("writer", WRITERS)
def test_a_failing_disk_is_a_sentence_and_loses_nothing(
    writer, number, call, tmp_path, monkeypatch, capsys
):
    write, folder = WRITERS[writer], tmp_path / "folder"
    folder.mkdir()
    write(folder, 1)
    before = content_of(folder)
    code = getattr(errno, number)
    failed = []
    module, name = call.split(".")
    owner = {"os": os, "torch": torch, "builtins": __import__("builtins")}
    real = getattr(owner[module], name)

    def fails(*args, **kwargs):
        mode = args[1] if len(args) > 1 else kwargs.get("mode", "r")
        if name == "open" and mode in ("r", "rb"):
            return real(*args, **kwargs)
        failed.append(args)
        raise OSError(code, os.strerror(code), str(args[0])[:50])

    with monkeypatch.context() as patch:
        patch.setattr(owner[module], name, fails)
        try:
            with one_sentence_errors():
                write(folder, 2)
        except SystemExit as stopped:
            assert stopped.code in (code, 2)
            # A progress bar may be above it.
            said = capsys.readouterr().err.strip().splitlines()[-1]
            assert said.startswith("error: ")
        else:
            # It writes without that call.
            assert not failed
            return
    after = content_of(folder)
    assert {path: after.get(path) for path in before} == before
    # There is room again.
    write(folder, 2)
    assert content_of(folder) != before


@pytest.mark.parametrize("writer", WRITERS)
def test_a_kill_at_any_write_leaves_the_old_or_the_new(writer, tmp_path):
    """And the next run goes on."""
    write, number = WRITERS[writer], 0
    whole = tmp_path / "whole"
    whole.mkdir()
    write(whole, 1)
    old = seen(whole)
    write(whole, 2)
    new = seen(whole)
    while True:
        folder = tmp_path / str(number)
        folder.mkdir()
        write(folder, 1)
        killed = is_killed(number, lambda folder=folder: write(folder, 2))
        after = seen(folder)
        # What was there is there, and what is new is whole or absent.
        assert after.keys() >= old.keys() & new.keys()
        assert after.keys() <= old.keys() | new.keys()
        write(folder, 2)
        # What was being removed may be there in part.
        assert seen(folder).keys() >= new.keys()
        if not killed:
            break
        number += 1
    assert number


def seen(folder):
    """The files that a reader would take, with what is in them."""
    found = {
        str(path): content
        for path, content in content_of(folder).items()
        if not path.name.endswith((".tmp", ".lock", ".lock.json"))
    }
    # Where the new folder has not come yet, the old one is beside its place.
    return {
        path.replace("model.older", "model"): content
        for path, content in sorted(found.items(), reverse=True)
        if "model.building" not in path
    }
