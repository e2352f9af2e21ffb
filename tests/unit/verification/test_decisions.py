"""The threshold and calibration of dev trials."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from synthetic import write_model

from imlkd_brain.errors import UserError
from imlkd_brain.metrics.error_rates import EER
from imlkd_brain.models.decision import fingerprint, read_decision
from imlkd_brain.models.folder import load_speaker_model
from imlkd_brain.verification.calibration import train_calibration
from imlkd_brain.verification.decisions import (
    NoThreshold,
    decide,
    fit_line,
    measure_decision,
    measure_decisions,
    write_decisions,
)
from imlkd_brain.verification.keys import check_decision

ABOUT = {"list": "dev", "duration": "full", "fingerprint": "f"}


def draw(n_targets=60, n_nontargets=300, seed=0):
    """Scores of two normal distributions of spread 1, one apart."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n_targets + n_nontargets) < n_targets
    return torch.randn(len(labels), generator=generator) + labels, labels


def test_the_line_is_that_of_a_logistic_regression():
    pytest.importorskip("sklearn")
    scores, labels = draw()
    slope, offset = fit_line(scores, labels)
    theirs = train_calibration(scores[:, None], labels)
    ends = theirs(torch.tensor([[0.0], [1.0]]))
    # Both penalties are weak, and not the same: 1e-4 of the mean loss here,
    # 1e-4 of the sum there.
    assert offset == pytest.approx(float(ends[0]), rel=2e-3)
    assert slope == pytest.approx(float(ends[1] - ends[0]), rel=2e-3)


def test_the_line_of_normal_scores_is_known():
    """Spread 1 and means 0 and 1: the log ratio is score - 1/2."""
    slope, offset = fit_line(*draw(20000, 20000))
    # 40,000 trials: the slope's standard error is about 0.02.
    assert slope == pytest.approx(1.0, abs=0.06)
    assert offset == pytest.approx(-0.5, abs=0.06)


def test_the_share_of_targets_does_not_matter():
    scores, labels = draw()
    repeated = torch.cat([scores, *[scores[labels]] * 4])
    more = torch.cat([labels, torch.ones(4 * int(labels.sum())).bool()])
    once, again = fit_line(scores, labels), fit_line(repeated, more)
    # Standardising weighs the penalty a little differently.
    assert again == pytest.approx(once, rel=1e-3)


def test_separable_scores_have_a_finite_line():
    decision = decide(
        torch.tensor([0.9, 0.8, 0.1, 0.2]),
        torch.tensor([True, True, False, False]),
        **ABOUT,
    )
    assert decision.eer == 0 and 0.2 < decision.threshold < 0.8
    assert 0 < decision.slope < 1e4
    assert decision.probability(0.9) > 0.99 > 0.01 > decision.probability(0.1)


def test_the_threshold_is_at_the_eer():
    scores, labels = draw()
    decision = decide(scores, labels, **ABOUT)
    eer, threshold = EER(scores[labels], scores[~labels])
    assert (decision.eer, decision.threshold) == (eer, threshold)
    assert decision.trials == 360 and decision.list == "dev"


@pytest.mark.parametrize(
    "scores, labels, says",
    [
        ([1.0, 0.0], [True, False], "too few"),
        ([0.0, 0.1, 0.8, 0.9], [True, True, False, False], "do not score"),
    ],
)
def test_trials_that_say_nothing_are_refused(scores, labels, says):
    with pytest.raises(UserError, match=f"dev: .*{says}"):
        decide(torch.tensor(scores), torch.tensor(labels), **ABOUT)


def test_options_that_do_not_go_together():
    check_decision(None, False, "s-norm", True)
    check_decision("dev.txt", True, None, False)
    with pytest.raises(UserError, match="^store_decision: .*dev trials"):
        check_decision(None, True, None, False)
    with pytest.raises(UserError, match="^decision_list: .*plain"):
        check_decision("dev.txt", False, "s-norm", False)


def test_the_models_folder_gets_it_when_asked(tmp_path):
    write_model(tmp_path / "run")
    model = load_speaker_model(tmp_path / "run")
    scores, labels = draw()
    located = SimpleNamespace(
        trials=SimpleNamespace(name="dev", labels=labels),
        pairs=torch.stack([torch.zeros(360), torch.arange(360)], 1).long(),
        enrol_files=[["0"]],
        test_files=[str(i) for i in range(360)],
    )

    def embed(model, paths, seconds):
        """Angles to the first axis, so that cosines are known."""
        angles = torch.tensor([-scores[int(p)] for p in paths]) / 10 + 1.0
        if paths == ["0"]:
            angles = torch.zeros(1)
        return torch.stack([angles.cos(), angles.sin()], 1), torch.ones(
            len(paths)
        )

    decision = measure_decision(model, embed, located, {"2": 2.0, "1": 1.0})
    assert decision.duration == "2"
    expected = EER(*[(1.0 - scores / 10).cos()[w] for w in (labels, ~labels)])
    assert decision.eer == pytest.approx(expected[0])
    assert decision.threshold == pytest.approx(expected[1], abs=1e-6)
    folder = tmp_path / "run" / "inference"
    for store in (False, True):
        said = write_decisions(
            tmp_path, {"a/b": decision}, {"a/b": model}, store
        )
        kept = read_decision(folder, model)
        assert kept == (decision if store else None)
        assert str(folder if store else tmp_path / "decisions") in said
    # One that is given by its name belongs to all corpora.
    named = SimpleNamespace(source="campplus")
    said = write_decisions(tmp_path, {"c": decision}, {"c": named}, True)
    assert str(tmp_path / "decisions" / "c") in said
    beside = tmp_path / "decisions" / "a_b" / "decision.json"
    assert json.loads(beside.read_text())["fingerprint"] == fingerprint(model)


def test_a_model_of_the_package_keeps_its_own(tmp_path, monkeypatch):
    shipped = tmp_path / "shipped" / "mine"
    write_model(tmp_path / "run")
    shutil.copytree(tmp_path / "run" / "inference", shipped)
    monkeypatch.setattr("imlkd_brain.models.shipped.SHIPPED", shipped.parent)
    decision = decide(*draw(), list="dev", duration="full", fingerprint="x")
    for source, stored in (("mine", False), (str(shipped), True)):
        models = {"model": SimpleNamespace(source=source)}
        said = write_decisions(tmp_path, {"model": decision}, models, True)
        assert (shipped / "decision.json").is_file() is stored
        assert (str(shipped) in said) is stored


def test_a_model_that_learnt_nothing_does_not_stop_the_others(monkeypatch):
    """The tables are there already; too few trials are a mistake in the list."""
    good, bad = object(), object()

    def measure(model, embed, located, durations):
        scores, labels = draw()
        return decide(scores if model is good else -scores, labels, **ABOUT)

    monkeypatch.setattr(
        "imlkd_brain.verification.decisions.measure_decision", measure
    )
    models = {"bad": bad, "good": good}
    decisions = measure_decisions(models, None, None, {})
    assert isinstance(decisions["bad"], NoThreshold)
    assert decisions["good"].trials == 360
    lines = write_decisions(None, {"bad": decisions["bad"]}, models, True)
    assert lines.startswith("bad: no threshold (dev: target trials do not")
