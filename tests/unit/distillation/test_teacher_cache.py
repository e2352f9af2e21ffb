"""The cache of a teacher's answers: exact, shared, and never half written."""

import pytest
import torch
from helpers.corruption import CORRUPTIONS, nothing_ran, replaced_by

from imlkd_brain.distillation.teacher_cache import TeacherCache
from imlkd_brain.errors import UserError


def counted(values):
    """A function that returns tensors and counts its calls."""

    def compute():
        compute.calls += 1
        return values

    compute.calls = 0
    return compute


def test_an_entry_is_found_for_the_same_input_and_description_only(tmp_path):
    feats = torch.randn(2, 5, 3)
    values = (torch.randn(4, 2)[:, 0], torch.tensor([1, 2]))
    compute = counted(values)
    first = TeacherCache(tmp_path)("teacher a", feats, compute)
    # Another process, and another view of the same numbers.
    again = TeacherCache(tmp_path)(
        "teacher a", feats.transpose(0, 1).contiguous().transpose(0, 1), compute
    )
    assert compute.calls == 1
    for one, other, value in zip(first, again, values, strict=True):
        assert torch.equal(one, value) and torch.equal(other, value)
        assert other.dtype == value.dtype
    changed = feats.clone()
    changed[0, 0, 0] = changed[0, 0, 0].nextafter(torch.tensor(9.0))
    others = [
        ("teacher b", feats),
        ("teacher a", changed),
        ("teacher a", feats.reshape(5, 2, 3)),
    ]
    for description, other in others:
        TeacherCache(tmp_path)(description, other, compute)
    assert compute.calls == 1 + len(others)


def test_half_an_entry_is_no_entry(tmp_path, monkeypatch):
    feats = torch.ones(1, 2)
    compute = counted((feats,))

    def broken(tensors, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", broken)
        with pytest.raises(
            UserError, match="No space left.*teacher_cache null"
        ):
            TeacherCache(tmp_path)("a", feats, compute)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
    assert torch.equal(TeacherCache(tmp_path)("a", feats, compute)[0], feats)


@pytest.mark.parametrize("corruption", [*CORRUPTIONS, "another's", "a list"])
def test_a_damaged_entry_is_computed_anew(tmp_path, corruption):
    """Nothing of another shape or content comes out, also a flipped bit."""
    feats = torch.ones(1, 2000)
    compute = counted((feats,))
    cache = TeacherCache(tmp_path)
    cache("a", feats, compute)
    (entry,) = tmp_path.rglob("*.pt")
    if corruption == "another's":
        cache("b", feats, lambda: (torch.ones(3, 1),))
        (other,) = (p for p in tmp_path.rglob("*.pt") if p != entry)
        replaced_by(entry, other)
    elif corruption == "a list":
        # As an earlier version wrote it
        torch.save([torch.ones(3, 1)], entry)
    else:
        CORRUPTIONS[corruption](entry)
    if corruption == "a_folder":
        with pytest.raises(UserError, match="cannot be kept.*directory"):
            cache("a", feats, compute)
        return
    for _ in range(2):
        assert torch.equal(cache("a", feats, compute)[0], feats)
    assert compute.calls == 2 and nothing_ran(tmp_path)


def test_nan_is_neither_kept_nor_given_back(tmp_path):
    feats = torch.ones(1, 2)
    bad = counted((torch.full((2,), torch.nan),))
    cache = TeacherCache(tmp_path)
    for _ in range(2):
        assert cache("a", feats, bad)[0].isnan().all()
    assert bad.calls == 2 and not list(tmp_path.rglob("*.pt"))


def test_a_view_does_not_drag_its_storage_along(tmp_path):
    feats = torch.ones(1, 2)
    large = torch.zeros(1_000_000)
    TeacherCache(tmp_path)("a", feats, lambda: (large[:3],))
    (entry,) = (p for p in tmp_path.rglob("*") if p.is_file())
    assert entry.stat().st_size < 10_000
