"""Where and when something was measured, and the page of all results.

A benchmark calls :func:`publish`. It writes NAME.json beside this file and the
page README.md anew from all of them.

Authors: IML-KD contributors
"""

import json
import os
import platform
import re
import statistics
import time
from datetime import date
from pathlib import Path

import torch

from imlkd_brain.files import write_json, write_whole

HERE = Path(__file__).resolve().parent
# The page's order. A benchmark without results here comes to the end.
ORDER = (
    "bench_training",
    "segment_share",
    "bench_step",
    "bench_attribution",
    "plan_paper_run",
    "bench_answers",
    "bench_verification",
    "bench_process",
    "bench_preparation",
    "bench_input",
    "threads",
    "bench_objectives",
    "bench_completeness",
    "bench_cost",
    "bench_rivals",
    "bench_rivals_uqm",
    "bench_rivals_noise",
    "bench_intervals",
    "bench_intervals_system",
)
INTRODUCTION = """\
# What it costs

`make bench` runs every benchmark on the CPU, `make bench-gpu` those that a GPU
changes. Each prints our way, its peer, the ratio and the floor that nothing can
beat, and writes a JSON file with its date and machine. This page is made of those
files. Contenders take turns, and ratios are medians over rounds of the ratio within
a round, which another load on the machine disturbs least.

"""
TRIED = """
## Tried, and not kept

- **BatchNorm of the student's second pass** in its convolutions, where `batchnorm`
  is `running`: its weights change in every update, so folding them anew cost what it
  saved.
- **One teacher pass for two purposes.** With `rule: right` the last node is the
  segment itself, but no method asks for the teacher's answer to a plain segment
  shorter than the chunk. `iml_kd` asks about I(x_d), which is known only once the map
  is. Terms on x share one pass already.
- **1.5 times multi-level KD** with a live teacher is reached with segments of half of
  the batch (`segment_share: 0.5`), not with those of all of it. An update of `iml_kd`
  asks the teacher for a forward and a backward pass and another forward pass, each
  over 0.75 of the chunk on average, where multi-level KD has one forward pass; with
  segments of 2 s the counted operations alone are 2.6 times as many. Stored answers
  reach it as well.
- **bfloat16 for maps**: see the table of Integrated Gradients. It gains a tenth on
  this CPU, and no GPU was there to say what it gains on one. It is no key.
- **Channels last** in the frozen ECAPA-TDNN: on one thread of this CPU its forward pass
  takes 0.86 of the time, a map of Integrated Gradients 0.95, and the map is 4e-4 from
  the usual one, because rounding switches ReLUs. A network of its own is not worth that.
- **bfloat16 for embeddings**: the folded network of the model in the package takes
  8.4 ms for 5 s of speech in it, 6.6 ms in float32. It is no option of `verify.py`.
- **Shards read as a stream**, as WebDataset reads them: chunks, batches with and
  without labels, stored answers and the place after an interruption are all drawn by
  the number of a row. Shards have an index instead, and are read by offset.
- **.m4a** is not read in training: it would be decoded anew for each chunk. The
  [commands that convert it](../docs/training.md) take a pass over the corpus.
- **torch.compile** and **CUDA graphs** need a GPU to be worth a key; not measured.
- **A better quadrature rule** brings nothing on dev speakers
  ([parts left out](../docs/experiments.md#what-ix-brings)); `hparams/iml_kd.yaml` keeps the paper's sum
  with 8 nodes, and `--rule midpoint --n_steps 1` costs a fifth, as the plan shows.
"""


def processor():
    """The processor's name and number of cores."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = re.search(r"model name\s*:\s*(.*)", info.read_text())
        name = found[1] if found else name
    return f"{name}, {os.cpu_count()} cores"


def about():
    """Date, machine and load, for the head of a result."""
    machine = f"{processor()}, torch {torch.__version__}"
    if torch.cuda.is_available():
        machine += f", {torch.cuda.get_device_name()}"
    return {
        "date": date.today().isoformat(),
        "machine": machine,
        "load": round(os.getloadavg()[0], 1),
    }


def sentence(facts):
    """The same as a sentence."""
    return (
        f"{facts['date']}, {facts['machine']}; load of the machine at the end "
        f"{facts['load']}."
    )


def take_turns(contenders, rounds, clock=time.process_time):
    """Seconds of each contender in each round, after one round to warm up.

    Arguments
    ---------
    contenders : dict of str to callable
        Each is called once a round.
    rounds : int
        Rounds that count.
    clock : callable
        In seconds; the processor's by default.

    Returns
    -------
    dict of str to list of float
    """
    seconds = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, call in contenders.items():
            begun = clock()
            call()
            if number:
                seconds[name].append(clock() - begun)
    return seconds


def ratio(ours, others):
    """Median over rounds of the ratio within a round."""
    return statistics.median(a / b for a, b in zip(ours, others, strict=True))


def measured_rates(device="cpu", rounds=5):
    """Operations and bytes that this machine does in a second.

    Operations: a product of float32 matrices of 1,024 rows. Bytes: a copy of
    64 MiB, read and written.

    Returns
    -------
    flops, bytes : float
        In a second, the best of some rounds.
    """
    matrix = torch.randn(1024, 1024, device=device)
    block = torch.empty(16 * 2**20, device=device)
    target = torch.empty_like(block)

    def best(call):
        """Seconds of the fastest round."""
        seconds = []
        clock = time.process_time if device == "cpu" else time.perf_counter
        for _ in range(rounds):
            begun = clock()
            call()
            if device != "cpu":
                torch.cuda.synchronize()
            seconds.append(clock() - begun)
        return min(seconds)

    flops = 2 * 1024**3 / best(lambda: matrix @ matrix)
    n_bytes = 2 * 4 * block.numel() / best(lambda: target.copy_(block))
    return flops, n_bytes


def table(columns, rows):
    """Lines of a table in Markdown."""
    return [
        f"| {' | '.join(columns)} |",
        "|---" * len(columns) + "|",
        *(f"| {' | '.join(map(str, row))} |" for row in rows),
    ]


def publish(name, lines, facts=None, results=None, **data):
    """Print a section, write NAME.json and the page of all results.

    Arguments
    ---------
    name : str
        Of the file.
    lines : list of str
        The section in Markdown; its first line is a title of level 2.
    facts : dict, optional
        From :func:`about`, where it was taken before.
    results : str or Path, optional
        Another file, without its ending; the page is left as it is then.
    **data
        Numbers behind the tables.
    """
    text = "\n".join(lines).strip().split("\n")
    print("\n".join(text))
    target = Path(f"{results or HERE / name}.json")
    write_json(target, {**(facts or about()), **data, "page": text}, indent=1)
    if target.parent.resolve() == HERE:
        write_page()


def write_page(folder=HERE):
    """Write README.md of all results in the folder."""
    found = {path.stem: path for path in folder.glob("*.json")}
    names = [name for name in ORDER if name in found]
    names += sorted(set(found) - set(names))
    sections = []
    for name in names:
        page = json.loads(found[name].read_text(encoding="utf-8"))["page"]
        sections.append("\n".join(page) + "\n")
    write_whole(
        folder / "README.md", INTRODUCTION + "\n".join(sections) + TRIED
    )
