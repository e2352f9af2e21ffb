#!/usr/bin/env python3
"""Integrated Gradients beside Captum's, and what makes them cheaper.

To run it: python benchmarks/bench_attribution.py

An ECAPA-TDNN of MiniVox's teacher's size with random weights and statistics. Captum
is given the same network, rule and nodes. Peak memory is that of a process of its
own, beyond what it held before the call. DEVICE=cuda runs it on a GPU.

Authors: IML-KD contributors
"""

import os
import statistics
import subprocess
import sys
import time

import captum.attr
import torch
from bench_verification import peak_bytes
from page import (
    about,
    measured_rates,
    publish,
    ratio,
    sentence,
    table,
    take_turns,
)
from updates import Operations

from imlkd_brain.distillation.attribution import integrated_gradients
from imlkd_brain.models.folded import folded
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN, Classifier

ROUNDS = 5
BATCH, FRAMES, STEPS = 32, 151, 4
DEVICE = os.environ.get("DEVICE", "cpu")
CAPTUM = "Captum, teacher as trained"
# Name, folded, nodes, and how it is called.
WAYS = {
    CAPTUM: (False, STEPS, "captum"),
    "ours, teacher as trained": (False, STEPS, "ours"),
    "ours, folded (default)": (True, STEPS, "ours"),
    "ours, folded, 32 rows at once": (True, STEPS, "chunks"),
    "ours, folded, one node": (True, 1, "ours"),
    "ours, folded, one node, bfloat16": (True, 1, "bfloat16"),
    "ours, folded, one node, half of the batch": (True, 1, "half"),
}


def network_of(quick):
    """Cosines of 105 classes, and rows for an attribution."""
    torch.manual_seed(0)
    embed = ECAPA_TDNN(
        80,
        channels=[80, 80, 80, 80, 240],
        attention_channels=80,
        se_channels=80,
        lin_neurons=192,
    )
    for module in embed.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    classify = Classifier(192, out_neurons=105)
    for module in (embed, classify):
        module.eval().requires_grad_(False).to(DEVICE)
    feats = torch.randn(BATCH, FRAMES, 80).to(DEVICE)
    target = torch.arange(BATCH).to(DEVICE)
    embed = folded(embed) if quick else embed

    def cosines(feats):
        """(N, T, F) to (N, 105)."""
        return classify(embed(feats)).squeeze(1)

    return cosines, feats, target


def call_of(way):
    """The attribution as a function without arguments."""
    quick, n_steps, how = WAYS[way]
    cosines, feats, target = network_of(quick)
    if how == "captum":
        return lambda: captum.attr.IntegratedGradients(cosines).attribute(
            feats, target=target, n_steps=n_steps, method="riemann_middle"
        )
    options = {"n_steps": n_steps, "rule": "midpoint", "with_gap": False}
    if how == "chunks":
        options["internal_batch_size"] = BATCH
    if how == "half":
        feats, target = feats[: BATCH // 2], target[: BATCH // 2]
    network = cosines
    if how == "bfloat16":

        def network(rows):
            """The same in half precision where autocast allows it."""
            with torch.autocast(DEVICE, torch.bfloat16):
                return cosines(rows).float()

    return lambda: integrated_gradients(network, feats, target, **options)[0]


def peak_of(way):
    """Print the megabytes that one call adds."""
    call = call_of(way)
    if DEVICE == "cpu":
        before = peak_bytes()
        call()
        print((peak_bytes() - before) / 2**20)
    else:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        print((torch.cuda.max_memory_allocated() - before) / 2**20)


def peak_in_a_process(way):
    """Megabytes of :func:`peak_of` in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--peak", way],
        check=True,
        capture_output=True,
        text=True,
    )
    return float(done.stdout.split()[-1])


def profile_of(attribution, feats):
    """Weights of frames as `time_gate` has them, (B, T)."""
    saliency = attribution.abs().mean(2)
    return (saliency / saliency.mean(1, keepdim=True)).clamp(max=3.0)


def differences(calls):
    """Of each map: relative distance, and correlation of its weights."""
    _, feats, _ = network_of(True)
    # What it should be: with one node that of one node.
    truth = {
        STEPS: calls["ours, teacher as trained"](),
        1: calls["ours, folded, one node"](),
    }
    found = {}
    for way, (_, n_steps, _) in WAYS.items():
        given = calls[way]()
        wanted = truth[n_steps][: len(given)]
        apart = (given - wanted).norm() / wanted.norm()
        both = torch.stack(
            [
                profile_of(one, feats[: len(one)]).flatten()
                for one in (given, wanted)
            ]
        )
        found[way] = float(apart), float(torch.corrcoef(both)[0, 1])
    return found


def main():
    """Measure and publish."""
    torch.set_num_threads(1)
    calls = {way: call_of(way) for way in WAYS}
    found = differences(calls)
    peaks = {way: peak_in_a_process(way) for way in WAYS}
    flops = {}
    for way, call in calls.items():
        with Operations() as counted:
            call()
        flops[way] = counted.flops

    def to_its_end(call):
        """One call, to its end on a GPU."""
        call()
        if DEVICE != "cpu":
            torch.cuda.synchronize()

    clock = time.process_time if DEVICE == "cpu" else time.perf_counter
    spent = take_turns(
        {way: lambda c=call: to_its_end(c) for way, call in calls.items()},
        ROUNDS,
        clock,
    )
    results = {
        way: {
            "seconds": spent[way],
            "flops": flops[way],
            "peak_mb": peaks[way],
            "distance": found[way][0],
            "correlation": found[way][1],
        }
        for way in WAYS
    }
    show(results, about(), measured_rates(DEVICE)[0])


def show(results, facts, rate):
    """Publish the table of results by way, at a rate of operations."""
    captum_s = results[CAPTUM]["seconds"]
    rows = [
        [
            way,
            f"{1e3 * statistics.median(one['seconds']):.0f}",
            f"{ratio(captum_s, one['seconds']):.2f}",
            f"{1e3 * one['flops'] / rate:.0f}",
            f"{one['peak_mb']:.0f}",
            f"{one['distance']:.1e}",
            f"{one['correlation']:.4f}",
        ]
        for way, one in results.items()
    ]
    lines = [
        "## Integrated Gradients",
        "",
        f"{sentence(facts)} One thread, processor seconds, medians of {ROUNDS} "
        f"rounds; {BATCH} segments of 1.5 s, MiniVox's teacher's size, midpoint "
        f"rule, {STEPS} nodes or one. Floor: the counted operations at "
        f"{rate / 1e9:.0f} GFLOP/s. The distance is relative to the norm of the "
        "map of the teacher as it was trained, or of one node where there is one. "
        "`python benchmarks/bench_attribution.py`",
        "",
        *table(
            ["way", "ms", "times as fast as Captum", "floor (ms)"]
            + ["peak memory (MB)", "distance of the map"]
            + ["correlation of frames' weights"],
            rows,
        ),
    ]
    name = "bench_attribution" + ("" if DEVICE == "cpu" else "_gpu")
    publish(name, lines, facts, flops_per_second=rate, ways=results)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        torch.set_num_threads(1)
        peak_of(sys.argv[2])
    else:
        main()
