"""A model card that hubs read and people understand."""

import json

import pytest
from ruamel.yaml import YAML
from synthetic import write_model

from imlkd_brain.errors import UserError
from imlkd_brain.models.card import write_card
from imlkd_brain.models.folder import load_speaker_model

ABOUT = {
    "license": "apache-2.0",
    "language": ["en", "de"],
    "training_data": "Some voices: *many*.",
    "teacher": None,
    "method": None,
    "limits": "Twins.",
}


@pytest.fixture
def model(tmp_path):
    """An untrained model."""
    return load_speaker_model(write_model(tmp_path / "run"))


def results(path, model):
    """results.json of verify.py, with another model beside."""
    rows = [
        {"list": "test", "group": group, "model": name, **figures}
        for group in ("all", "children")
        for name, figures in (
            ("ours", {"duration": "full", "eer": 0.0512}),
            ("ours", {"duration": "1s", "eer": 0.1}),
            ("theirs", {"duration": "full", "eer": 0.07}),
        )
    ]
    models = {"ours": {"key": model.key}, "theirs": {"key": "other"}}
    path.write_text(json.dumps({"results": rows, "models": models}))
    return path


def test_head_is_yaml_with_the_models_figures_alone(model, tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    table = results(tmp_path / "results.json", model)
    write_card(folder, ABOUT, model, (350_000, 64_000_000), None, table)
    text = (folder / "README.md").read_text()
    _, head, body = text.split("---\n", 2)
    head = YAML(typ="safe").load(head)
    assert head["license"] == "apache-2.0" and head["language"] == ["en", "de"]
    assert "speaker-verification" in head["tags"] and head["metrics"] == ["eer"]
    (entry,) = head["model-index"]
    assert entry["name"] == "small"
    values = [
        [metric["value"] for metric in one["metrics"]]
        for one in entry["results"]
    ]
    assert values == [[5.12, 10.0], [5.12, 10.0]]
    assert [one["dataset"]["name"] for one in entry["results"]] == [
        "test",
        "test, children",
    ]
    assert "0.35 M parameters, 64 M multiply" in body
    assert "| test | ours | 5.12 | 10.00 |" in body
    assert "| test | theirs | 7.00 | - |" in body
    assert "Twins." in body and "Teacher" not in body
    assert str(tmp_path) not in text


def test_graphs_rates_and_threshold_are_told(model, tmp_path):
    facts = {
        "graphs": {
            "waveform.onnx": {
                "reads": "waveform",
                "bytes": 1_500_000,
                "largest_distance_to_pytorch": 1.5e-6,
            },
            "waveform_int8.onnx": {
                "reads": "waveform",
                "bytes": 400_000,
                "largest_distance_to_pytorch": None,
            },
        }
    }
    rows = [
        {"model": name, "list": "test", "duration": "full", "eer": eer}
        for name, eer in (("ONNX", 0.08), ("ONNX int8", 0.081))
    ]
    (tmp_path / "decision.json").write_text(
        json.dumps(
            {
                "threshold": 0.4321,
                "eer": 0.08,
                "trials": 1000,
                "list": "dev",
                "duration": "full",
            }
        )
    )
    write_card(tmp_path, ABOUT, model, (1, 1), facts, None, rows)
    text = (tmp_path / "README.md").read_text()
    assert "| `waveform.onnx` | waveform | 1500 | 1.5e-06 |" in text
    assert "| test | ONNX int8 | 8.10 |" in text
    assert "Scores above 0.432" in text and "model-index" not in text
    assert "InferenceSession" in text


def test_other_models_stand_beside_this_one(model, tmp_path):
    """In the table, list by list; the head has this model alone."""
    path = results(tmp_path / "results.json", model)
    beside = [
        {"model": "published", "list": name, "duration": "full", "eer": 0.5}
        for name in ("test", "elsewhere")
    ]
    write_card(tmp_path, ABOUT, model, (1, 1), results=path, beside=beside)
    text = (tmp_path / "README.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    titles = [line.split(" | ")[0] for line in lines]
    assert titles == sorted(titles, key=titles.index)
    assert any(line.startswith("| test | published | 50.00") for line in lines)
    assert "published" not in text.split("---")[1]


def test_results_of_other_models_are_refused(model, tmp_path):
    path = results(tmp_path / "results.json", model)
    path.write_text(path.read_text().replace(model.key, "0"))
    with pytest.raises(UserError, match="other models than this one"):
        write_card(tmp_path, ABOUT, model, (1, 1), None, path)
    for content in ("{}", "no json", '{"results": [{}], "models": {}}'):
        path.write_text(content)
        with pytest.raises(UserError, match="not readable as results"):
            write_card(tmp_path, ABOUT, model, (1, 1), None, path)
