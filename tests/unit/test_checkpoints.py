"""Checkpoints: whole or absent; a damaged one is never loaded."""

import logging
import os
import shutil
import time

import pytest
import torch
from helpers.corruption import CORRUPTIONS, nothing_ran, replaced_by

from imlkd_brain.checkpoints import (
    SUMS,
    AtomicCheckpointer,
    damage,
    only_weights,
)
from imlkd_brain.errors import UserError
from speechbrain.nnet.schedulers import CyclicLRScheduler
from speechbrain.utils.epoch_loop import EpochCounter

FILES = (
    "CKPT.yaml",
    SUMS,
    "counter.ckpt",
    "model.ckpt",
    "optimizer.ckpt",
    "lr.ckpt",
)


def training(folder, width=3):
    """A checkpointer of what a training has, and its model."""
    model = torch.nn.Linear(width, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, width)).sum().backward()
    optimizer.step()
    recoverables = {
        "model": model,
        "optimizer": optimizer,
        "counter": EpochCounter(9),
        "lr": CyclicLRScheduler(),
    }
    return AtomicCheckpointer(folder, recoverables), model


def save_two(folder):
    """Two checkpoints; the weights of each."""
    checkpointer, model = training(folder)
    weights = []
    for epoch in (1, 2):
        with torch.no_grad():
            model.weight += 1
        checkpointer.recoverables["counter"].current = epoch
        checkpointer.save_checkpoint(
            name=f"epoch_{epoch}", meta={"unixtime": epoch}
        )
        weights.append(model.weight.detach().clone())
    return weights


def test_a_clock_that_was_set_back_loses_no_checkpoint(tmp_path, monkeypatch):
    """What was written last is kept and used, whatever the clock says."""
    checkpointer, model = training(tmp_path)
    now = time.time()
    for epoch, clock in enumerate((now, now - 86400, now - 86399), 1):
        monkeypatch.setattr(time, "time", lambda clock=clock: clock)
        with torch.no_grad():
            model.weight.fill_(epoch)
        checkpointer.save_and_keep_only(name=f"epoch_{epoch}")
    (kept,) = checkpointer.list_checkpoints()
    assert kept.path.name == "CKPT+epoch_3"
    other, fresh = training(tmp_path)
    other.recover_if_possible()
    assert (fresh.weight == 3).all()


@pytest.mark.parametrize("sums", [True, False])
@pytest.mark.parametrize("corruption", CORRUPTIONS)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_checkpoint_is_set_aside(
    tmp_path, caplog, name, corruption, sums
):
    """Also one of an earlier version, without checksums, is no traceback."""
    older, newer = save_two(tmp_path)
    place = tmp_path / "CKPT+epoch_2"
    CORRUPTIONS[corruption](place / name)
    if not sums:
        if name == SUMS:
            pytest.skip("it has none")
        (place / SUMS).unlink()
    checkpointer, model = training(tmp_path)
    begun = model.weight.detach().clone()
    with caplog.at_level(logging.WARNING):
        try:
            checkpointer.recover_if_possible()
        except UserError as error:
            # Only where nothing tells that the file is another one.
            assert not sums and str(place) in str(error)
            assert "remove" in str(error)
            return
        finally:
            assert nothing_ran(tmp_path)
    recovered = model.weight.detach()
    if not sums and torch.equal(recovered, newer):
        # A number's last digit, or what is not read: it could be loaded.
        return
    if (name, corruption) == (SUMS, "gone"):
        assert torch.equal(recovered, newer)
        return
    assert torch.equal(recovered, older) and not torch.equal(recovered, begun)
    assert checkpointer.recoverables["counter"].current == 1
    assert not place.exists() and (tmp_path / f"damaged-{place.name}").exists()
    assert f"{place}: this checkpoint is damaged" in caplog.text
    assert "CKPT+epoch_1: this checkpoint is used instead" in caplog.text


@pytest.mark.parametrize("corruption", ["halved", "garbage", "gone"])
def test_without_a_good_one_the_sentence_says_how_to_start_anew(
    tmp_path, corruption
):
    save_two(tmp_path)
    for place in tmp_path.glob("CKPT+*"):
        CORRUPTIONS[corruption](place / "model.ckpt")
    for _ in range(2):
        with pytest.raises(UserError, match="damaged.*remove .* train anew"):
            training(tmp_path)[0].list_checkpoints()
        with pytest.raises(UserError, match="model.ckpt"):
            training(tmp_path)[0].recover_if_possible()
    # Nothing was renamed: what can be restored is where it was.
    assert len(list(tmp_path.glob("CKPT+*"))) == 2


def test_another_runs_file_is_seen(tmp_path, caplog):
    older, _ = save_two(tmp_path / "a")
    save_two(tmp_path / "b")
    file = "CKPT+epoch_2/model.ckpt"
    replaced_by(tmp_path / "a" / file, tmp_path / "b" / file)
    checkpointer, model = training(tmp_path / "a")
    checkpointer.recover_if_possible()
    assert torch.equal(model.weight, older)
    assert "model.ckpt has another checksum" in caplog.text


def test_another_models_checkpoint_is_a_sentence(tmp_path):
    save_two(tmp_path)
    checkpointer, _ = training(tmp_path, width=5)
    with pytest.raises(UserError, match="does not fit this training.*size"):
        checkpointer.recover_if_possible()


def test_a_file_in_place_of_a_checkpoint(tmp_path, caplog):
    older, _ = save_two(tmp_path)
    shutil.rmtree(tmp_path / "CKPT+epoch_2")
    (tmp_path / "CKPT+epoch_2").write_text("")
    checkpointer, model = training(tmp_path)
    checkpointer.recover_if_possible()
    assert torch.equal(model.weight, older) and "is no folder" in caplog.text


def test_the_best_of_the_others_is_chosen(tmp_path, caplog):
    """The newest may be damaged while the best is asked for, and conversely."""
    checkpointer, model = training(tmp_path)
    for epoch, error in ((1, 0.3), (2, 0.1), (3, 0.2)):
        with torch.no_grad():
            model.weight.fill_(epoch)
        checkpointer.save_checkpoint(name=f"{epoch}", meta={"EER": error})
    CORRUPTIONS["flipped"](tmp_path / "CKPT+2" / "model.ckpt")
    checkpointer, model = training(tmp_path)
    checkpointer.recover_if_possible(min_key="EER")
    assert model.weight.unique().item() == 3


def test_what_was_written_is_not_read_again(tmp_path, monkeypatch):
    """A large model is hashed once when it is saved, not at every epoch."""
    checkpointer, _ = training(tmp_path)
    checkpointer.save_and_keep_only(name="1", meta={"EER": 0.1})
    monkeypatch.setattr("imlkd_brain.checkpoints.damage", None)
    checkpointer.save_and_keep_only(name="2", meta={"EER": 0.2})
    checkpointer.save_and_keep_only(name="3", meta={"EER": 0.3})
    assert [c.path.name for c in checkpointer.list_checkpoints()] == ["CKPT+3"]


def test_checksums_are_of_the_files(tmp_path):
    save_two(tmp_path)
    place = tmp_path / "CKPT+epoch_1"
    assert damage(place) == ""
    (place / "more.ckpt").write_text("not there when it was written")
    assert damage(place) == ""


def test_only_weights_leaves_the_environment(monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with only_weights():
        assert "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD" not in os.environ
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
