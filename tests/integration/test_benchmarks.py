"""The page of the benchmarks, and what its plan counts with."""

import json
import shutil

import page
import pytest
import run
import torch
from test_documents import ROOT

FOLDER = ROOT / "benchmarks"


def test_the_page_is_made_of_the_results(tmp_path):
    for path in FOLDER.glob("*.json"):
        shutil.copy(path, tmp_path)
    page.write_page(tmp_path)
    made = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert made == (FOLDER / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=str)
def test_a_result_says_when_and_where(path):
    result = json.loads(path.read_text(encoding="utf-8"))
    assert result["date"] and result["machine"]
    assert result["page"][0].startswith("## ")


def test_a_benchmark_that_fails_does_not_stop_the_rest(monkeypatch, capfd):
    monkeypatch.setattr(run, "HERE", FOLDER / "none")
    assert run.main(["bench_step", "plan_paper_run"]) == 2
    assert "bench_step failed; see above." in capfd.readouterr().err
    with pytest.raises(SystemExit):
        run.main(["unknown"])
    assert "no benchmark is called unknown" in capfd.readouterr().err


def test_operations_are_counted():
    from updates import Operations

    network, rows = torch.nn.Linear(3, 5), torch.ones(7, 3)
    with Operations() as counted:
        network(rows)
    assert counted.flops == 2 * 7 * 3 * 5
    assert counted.kernels == {"addmm": 1}
    # Input, weights, bias and output, of four bytes each
    assert counted.bytes == 4 * (7 * 3 + 3 * 5 + 5 + 7 * 5)
