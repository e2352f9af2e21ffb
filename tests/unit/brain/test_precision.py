"""The Brain: what stays in float32, and what never waits for the device."""

import contextlib
import copy

import pytest
import torch
from helpers.brains import METHODS, N_UPDATES, fit, spy
from synthetic import (
    small_model,
)
from torch.utils._python_dispatch import TorchDispatchMode

import speechbrain as sb
from imlkd_brain.distillation.guidance import Guidance
from imlkd_brain.precision import set_tf32


def test_bf16_keeps_distillation_in_float32(make, monkeypatch):
    brain = make("iml_kd", run_opts={"precision": "bf16"}, measure_interval=1)
    model = brain.modules.embedding_model
    outputs = []
    model.register_forward_hook(
        lambda module, _, output: (
            outputs.append(output.dtype) if module.training else None
        )
    )
    terms = spy(monkeypatch, brain.hparams.objective, "branch_terms")
    taught = spy(monkeypatch, Guidance, "answer")
    fit(brain)
    assert len(terms) == N_UPDATES
    for _, _, result in terms:
        assert all(v.dtype == torch.float32 for v in result.values())
        assert all(v.isfinite() for v in result.values())
    assert all(v.dtype == torch.float32 for _, _, r in taught for v in r)
    assert outputs == [torch.bfloat16] * 2 * N_UPDATES
    assert all(p.isfinite().all() for p in brain.modules.parameters())


def test_the_teacher_and_the_classifier_stay_in_float32_whatever_the_key(
    make, monkeypatch
):
    """Where ``allow_tf32: True`` lets the student's network use TF32."""
    brain = make("iml_kd_plus", measure_interval=1)
    seen = {"student": set(), "exact": set()}

    def note(where):
        def hook(*_):
            seen[where].add(torch.backends.cuda.matmul.allow_tf32)

        return hook

    handles = [
        module.register_forward_hook(note(where))
        for where, module in (
            ("student", brain.modules.embedding_model),
            ("exact", brain.modules.classifier),
            ("exact", brain.hparams.teacher.embedding_model),
        )
    ]
    set_tf32(True)
    try:
        fit(brain)
    finally:
        set_tf32(False)
        for handle in handles:
            handle.remove()
    assert seen == {"student": {True}, "exact": {False}}


class NoBlockingCopy(TorchDispatchMode):
    """Refuse a copy to the device that waits for the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func.overloadpacket in (
            torch.ops.aten._to_copy,
            torch.ops.aten.copy_,
        ):
            waits = not kwargs.get("non_blocking", False)
            source = args[-1] if "copy_" in str(func) else args[0]
            assert not (waits and source.device != result.device), func
        return result


@pytest.mark.parametrize(
    ("method", "options"),
    [
        *((method, {"mode": "time_gate"}) for method in METHODS),
        ("iml_kd", {"mode": "mask", "rule": "stochastic"}),
        ("iml_kd", {"mode": "overlay", "attribution_baseline": "noise"}),
        ("iml_kd", {"mode": "gate", "attribution_baseline": [0.0] * 20}),
        ("iml_kd", {"mode": "gate", "attribution_target": "predicted"}),
    ],
)
def test_a_step_never_waits_for_the_device(make, monkeypatch, method, options):
    """On a device whose numbers nobody can read, as on a GPU far behind."""
    brain = make(method, **options)
    loader = brain.make_dataloader(brain.data[0], sb.Stage.TRAIN, batch_size=4)
    batch = next(iter(loader))
    brain.on_fit_start()
    brain.on_stage_start(sb.Stage.TRAIN, 1)
    # SpeechBrain's features and autocast do not know the device `meta`.
    monkeypatch.setattr(
        torch, "autocast", lambda *_, **__: contextlib.nullcontext()
    )
    feats = torch.empty(4, 51, small_model()["n_mels"], device="meta")
    modules = brain.modules.to("meta")
    monkeypatch.setattr(modules.compute_features, "forward", lambda _: feats)
    monkeypatch.setattr(modules.mean_var_norm, "forward", lambda x, _: x)
    if brain.distils:
        teacher = copy.deepcopy(brain.hparams.teacher).to("meta")
        brain.hparams.teacher = brain.guidance.teacher = teacher
    brain.device = "meta"
    brain.modules.train()
    with NoBlockingCopy():
        outputs = brain.compute_forward(batch, sb.Stage.TRAIN)
        loss = brain.compute_objectives(outputs, batch, sb.Stage.TRAIN)
        loss.backward()
    assert loss.device.type == "meta"
