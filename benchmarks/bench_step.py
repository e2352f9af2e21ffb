#!/usr/bin/env python3
"""Where the time of a training step goes, part by part.

To run it, after the corpus is there (`make demo`):
> python benchmarks/bench_step.py [DATA_FOLDER]

The step is that of the real train_kd.py on MiniVox with `iml_kd` and frequency and
chunk drop, on one thread, or on the GPU where DEVICE=cuda. The page shows the last
results of both.

Authors: IML-KD contributors
"""

import json
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path

import torch
from page import HERE, about, publish, sentence, table
from updates import RECIPE, brain_of, short_teacher, update

from imlkd_brain.figures import COLOURS, new_figure, save_figure

UPDATES = 15
METHOD = "iml_kd"
FIGURE = HERE.parent / "docs" / "figures" / "step_profile"


class Parts:
    """Seconds of parts, without those of the parts inside them."""

    def __init__(self, device):
        self.device = device
        self.clock = time.process_time if device == "cpu" else time.perf_counter
        self.seconds = defaultdict(float)
        self.inside = [0.0]

    @contextmanager
    def part(self, name):
        """What happens within counts for the part."""
        begun = self._now()
        self.inside.append(0.0)
        try:
            yield
        finally:
            spent = self._now() - begun
            self.seconds[name] += spent - self.inside.pop()
            self.inside[-1] += spent

    def _now(self):
        """The clock, after a GPU has done what it was given."""
        if self.device != "cpu":
            torch.cuda.synchronize()
        return self.clock()

    def watch(self, owner, attribute, name):
        """Time each call of a function."""
        function = getattr(owner, attribute)

        def timed(*args, **kwargs):
            """The function, timed."""
            with self.part(name):
                return function(*args, **kwargs)

        # Around torch.nn.Module, which takes no function for a module.
        object.__setattr__(owner, attribute, timed)


def profile(brain, device):
    """Median seconds of each part of an update."""
    parts = Parts(device)
    modules, guidance = brain.modules, brain.guidance
    parts.watch(brain.hparams.wav_augment, "forward", "augment")
    parts.watch(modules.compute_features, "forward", "features")
    parts.watch(modules.mean_var_norm, "forward", "features")
    parts.watch(brain, "_student", "student, forward")
    parts.watch(guidance, "_segments", "segments")
    parts.watch(guidance, "_weigh", "Integrated Gradients")
    parts.watch(guidance, "answer", "teacher's answer")
    parts.watch(brain, "compute_objectives", "losses")
    parts.watch(brain, "optimizers_step", "optimiser")
    updates = []
    for _ in range(UPDATES):
        with parts.part("read"):
            batch = next(brain.batches)
        with parts.part("student and losses, backward"):
            update(brain, batch)
        updates.append(dict(parts.seconds))
        parts.seconds.clear()
    names = list(updates[-1])
    return {
        name: statistics.median(one.get(name, 0.0) for one in updates[3:])
        for name in names
    }


def draw(results):
    """Bars of the parts, a row a device."""
    figure = new_figure(8, 1.2 + 0.8 * len(results))
    axes = figure.subplots()
    names = list(next(iter(results.values()))["parts"])
    for row, result in enumerate(results.values()):
        left, total = 0.0, sum(result["parts"].values())
        for i, name in enumerate(names):
            width = 100 * result["parts"].get(name, 0.0) / total
            axes.barh(
                row,
                width,
                left=left,
                color=COLOURS[i % len(COLOURS)],
                alpha=1.0 if i < len(COLOURS) else 0.5,
                label=name if not row else None,
            )
            left += width
    axes.set_yticks(range(len(results)), list(results))
    axes.set_xlabel("share of an update, %")
    axes.set_xlim(0, 100)
    figure.legend(loc="outside upper center", ncols=3, fontsize=8)
    save_figure(figure, FIGURE, ("png",), 120)


def main():
    """Measure and publish."""
    data = Path(sys.argv[1] if sys.argv[1:] else RECIPE / "data" / "minivox")
    data, device = data.resolve(), os.environ.get("DEVICE", "cpu")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        options = [f"--data_folder={data}", "--augmentation=True"]
        options.append(f"--teacher_folder={short_teacher(work, data)}")
        brain = brain_of(work, METHOD, *options, device=device)
        parts = profile(brain, device)
    facts = about()
    kept = HERE / "bench_step.json"
    results = {}
    if kept.exists():
        results = json.loads(kept.read_text(encoding="utf-8"))["devices"]
    results["cpu" if device == "cpu" else "cuda"] = {**facts, "parts": parts}
    results = {
        name: results[name] for name in ("cpu", "cuda") if name in results
    }
    draw(results)
    rows = []
    for name in parts:
        row = [name]
        for place in ("cpu", "cuda"):
            if place not in results:
                row += ["", ""]
                continue
            spent = results[place]["parts"]
            share = 100 * spent.get(name, 0.0) / sum(spent.values())
            row += [f"{1e3 * spent.get(name, 0.0):.1f}", f"{share:.0f}"]
        rows.append(row)
    missing = "" if "cuda" in results else " No GPU was there to measure on."
    lines = [
        f"## A step of `{METHOD}`, part by part",
        "",
        " ".join(f"{place}: {sentence(one)}" for place, one in results.items())
        + f" Medians of {UPDATES - 3} updates of batch 32 with MiniVox's models, "
        f"one thread.{missing} `python benchmarks/bench_step.py`, "
        "`DEVICE=cuda python benchmarks/bench_step.py`",
        "",
        *table(["part", "CPU (ms)", "%", "GPU (ms)", "%"], rows),
        "",
        "![shares of a training step](../docs/figures/step_profile.png)",
    ]
    publish("bench_step", lines, facts, devices=results)


if __name__ == "__main__":
    main()
