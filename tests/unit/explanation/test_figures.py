"""Unit tests of ``imlkd_brain.explanation.figures``."""

from types import SimpleNamespace

import pytest

from imlkd_brain.errors import UserError
from imlkd_brain.explanation.figures import (
    band_centres,
    curve_figures,
    fidelity_figures,
    sanity_figures,
    save_figures,
)
from imlkd_brain.models.kaldi_fbank import KaldiFbank
from speechbrain.lobes.features import MFCC, Fbank


@pytest.mark.parametrize("features", [Fbank(n_mels=30), KaldiFbank(n_mels=30)])
def test_the_frequency_axis_is_that_of_the_features(features):
    model = SimpleNamespace(compute_features=features, source="m")
    centres = band_centres(model, 30)
    assert centres.shape == (30,) and (centres.diff() > 0).all()
    assert 20 < centres[0] < 200 and 6000 < centres[-1] < 8000


def test_features_without_mel_bands_have_no_frequency_axis():
    model = SimpleNamespace(compute_features=MFCC(), source="m")
    with pytest.raises(UserError, match="maps need plain log-mel features"):
        band_centres(model, 660)


def interval(prefix=""):
    return {f"{prefix}mean": 0.5, f"{prefix}low": 0.4, f"{prefix}high": 0.6}


def test_every_model_duration_unit_and_baseline_has_its_curves():
    rows = [
        {
            "model": model,
            "duration": 2,
            "unit": unit,
            "baseline": "zero",
            "direction": "deletion",
            "metric": metric,
            "method": "random",
            "level": level,
            **interval(),
        }
        for metric in ("score", "posterior")
        for model in ("teacher", "iml_kd")
        for unit in ("bins", "frames")
        for level in (0.0, 1.0)
    ]
    drawn = dict(curve_figures(rows, ["random"]))
    assert list(drawn) == [
        f"curves_{model}_2s_{unit}_zero"
        for model in ("teacher", "iml_kd")
        for unit in ("bins", "frames")
    ]
    # Verification beside identification.
    titles = [a.get_title() for a in drawn["curves_teacher_2s_bins_zero"].axes]
    assert titles == ["(1 + score) / 2", "posterior"]


def test_agreement_is_drawn_per_duration_and_not_over_all():
    quantities = ("rank_correlation_", "top_overlap_", "time_correlation_")
    rows = [
        {"task": "verification", "method": method, "student": student, **more}
        for method in ("gradient", "random")
        for student in ("scratch", "iml_kd")
        for duration in ("full", 2, "all")
        for more in [
            {
                "duration": duration,
                **{k: v for q in quantities for k, v in interval(q).items()},
            }
        ]
    ]
    ((name, figure),) = fidelity_figures(rows, ["gradient"], 0.2)
    assert name == "fidelity_verification_gradient"
    assert len(figure.axes) == 3
    labels = [t.get_text() for t in figure.axes[0].get_xticklabels()]
    assert labels == ["full", "2s"]


def test_without_a_format_nothing_is_drawn(tmp_path):
    def never():
        raise AssertionError
        yield

    save_figures(never(), tmp_path, [])
    rows = [
        {"model": "m", "method": "x", "shuffled_down_to": s, **interval()}
        for s in ("fc", "mfa")
    ]
    save_figures(sanity_figures(rows), tmp_path / "new", ["png"])
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["sanity_m.png"]
