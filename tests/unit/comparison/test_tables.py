"""Unit tests of ``imlkd_brain.comparison.tables``."""

import pandas as pd
import pytest

from imlkd_brain.comparison.tables import dev_table


def test_dev_table_by_hand():
    curves = pd.DataFrame(
        [
            ("p", "early", 0, 1, 10, 1.0, 1.0),
            ("p", "early", 0, 1, 20, 2.0, 8.0),
            ("p", "better", 0, 1, 10, 1.0, 4.0),
            ("p", "better", 0, 1, 20, 3.0, 6.0),
            ("p", "better", 0, 2, 10, 5.0, 2.0),
        ],
        columns=["pair", "method", "fold", "seed", "updates", "minutes", "eer"],
    )
    result = dev_table(curves)
    # By the last epoch, though the lowest of another is lower.
    assert result["method"].tolist() == ["better", "early"]
    assert result["eer"].tolist() == [4.0, 8.0]
    assert result["lowest"].tolist() == [3.0, 1.0]
    assert result["minutes"].tolist() == [4.0, 2.0]
    assert result["std"][0] == pytest.approx(8**0.5)
