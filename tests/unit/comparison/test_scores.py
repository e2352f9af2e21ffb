"""Unit tests of ``imlkd_brain.comparison.scores``."""

from dataclasses import replace

import pytest
import torch
from helpers.runs import change

from imlkd_brain.comparison.scores import score_run
from imlkd_brain.models.speaker_model import SpeakerModel
from imlkd_brain.verification.embeddings import Embedder


def test_scores_are_kept_until_model_or_list_changes(finished, monkeypatch):
    run = finished.runs[0]
    trials = run.scored_trials
    embedded = []

    class Counted(Embedder):
        def __call__(self, model, paths, seconds=None):
            embedded.append(model.name)
            return super().__call__(model, paths, seconds)

    monkeypatch.setattr("imlkd_brain.comparison.scores.Embedder", Counted)

    def score():
        embedded.clear()
        scores, located = score_run(run, finished.models, finished.scoring)
        assert all(
            len(values) == len(located.trials.labels)
            for by_duration in scores.values()
            for values in by_duration.values()
        )
        return scores

    first = score()
    assert {"teacher", "scratch"} == set(embedded)
    second = score()
    assert not embedded
    for method, by_duration in first.items():
        assert list(by_duration) == ["full", "0.3s"]
        for duration, values in by_duration.items():
            assert torch.equal(values, second[method][duration])
    change(run.folder / "scratch", 9)
    third = score()
    assert set(embedded) == {"scratch"}
    assert not torch.equal(first["scratch"]["full"], third["scratch"]["full"])
    # Other trials under the same name, as a corpus built anew leaves.
    lines = trials.read_text().splitlines(keepends=True)
    trials.write_text("".join(lines[::-1][3:]))
    fourth = score()
    torch.testing.assert_close(
        fourth["teacher"]["full"], first["teacher"]["full"].flip(0)[3:]
    )


def test_a_public_teacher_hears_a_file_once_for_all_runs(finished, monkeypatch):
    public = str(finished.runs[0].folder / "teacher")
    runs = [replace(run, public_teacher=public) for run in finished.runs]
    first, _ = score_run(runs[0], ["teacher"], finished.scoring)

    def heard(*_, **__):
        raise AssertionError("it was asked again")

    monkeypatch.setattr(SpeakerModel, "embed", heard)
    second, _ = score_run(runs[1], ["teacher"], finished.scoring)
    for duration, values in first["teacher"].items():
        assert torch.equal(values, second["teacher"][duration])
    with pytest.raises(AssertionError, match="asked again"):
        score_run(runs[1], ["scratch"], finished.scoring)
