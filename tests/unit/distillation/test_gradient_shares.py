"""Unit tests of ``imlkd_brain.distillation.gradient_shares``."""

import pytest
import torch

from imlkd_brain.distillation.gradient_shares import gradient_shares


class TestGradientShares:
    def test_shares_of_known_gradients(self):
        a = torch.tensor([1.0, 2.0], requires_grad=True)
        b = torch.tensor([1.0], requires_grad=True)
        frozen = torch.tensor([1.0])
        hidden = a * 1
        terms = {
            "five": 3 * hidden[0] + 4 * b[0],
            "three": 3 * hidden[1],
            "constant": torch.tensor(7.0),
            "other": (2 * torch.ones(1, requires_grad=True)).sum(),
        }
        b.grad = torch.tensor([9.0])
        shares = gradient_shares(terms, [a, b, frozen])
        assert shares == pytest.approx(
            {"five": 5 / 8, "three": 3 / 8, "constant": 0, "other": 0}
        )
        assert list(shares) == list(terms)
        assert a.grad is None and b.grad.item() == 9
        # The graph is still there for the update.
        sum(terms.values()).backward()
        assert a.grad.tolist() == [3, 3]

    def test_graph_is_released_on_request(self):
        a = torch.tensor([1.0, 2.0], requires_grad=True)
        hidden = a.square()
        terms = {"x": hidden[0] * hidden[1], "y": hidden[1].square()}
        shares = gradient_shares(terms, [a], retain_graph=False)
        assert sum(shares.values()) == pytest.approx(1)
        with pytest.raises(RuntimeError, match="second time"):
            terms["y"].backward()

    def test_nothing_to_share(self):
        a = torch.tensor([1.0], requires_grad=True)
        assert gradient_shares({}, [a]) == {}
        assert gradient_shares({"x": (0 * a).sum()}, [a]) == {"x": 0.0}
