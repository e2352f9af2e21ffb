"""Failing disks at every write."""

import errno
import os

import numpy as np
import pytest
import torch

from imlkd_brain import files
from imlkd_brain.checkpoints import AtomicCheckpointer
from imlkd_brain.distillation.answer_store import AnswerStore
from imlkd_brain.distillation.teacher_cache import TeacherCache
from imlkd_brain.errors import one_sentence_errors
from imlkd_brain.verification.store import EmbeddingStore

ERRORS = ("ENOSPC", "EDQUOT", "EROFS", "EIO", "EACCES")
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
    )
}


def content_of(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        # What is being built is swept away by the next one.
        if path.is_file() and "building" not in path.parts
    }


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("number", ERRORS)
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
            said = capsys.readouterr().err.strip()
            assert said.startswith("error: ") and "\n" not in said
        else:
            # It writes without that call.
            assert not failed
            return
    after = content_of(folder)
    assert {path: after.get(path) for path in before} == before
    # There is room again.
    write(folder, 2)
    assert content_of(folder) != before
