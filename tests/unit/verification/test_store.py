"""Unit tests of ``imlkd_brain.verification.store``."""

import multiprocessing
import os
import shutil

import pytest
import soundfile
import torch
from helpers.corruption import CORRUPTIONS, nothing_ran, replaced_by
from helpers.verification import RATE, Model

from imlkd_brain.data.trial_audio import locate_trials
from imlkd_brain.data.trials import read_trials
from imlkd_brain.verification.embeddings import Embedder
from imlkd_brain.verification.store import EmbeddingStore, audio_state


def test_audio_that_was_edited_in_secret_is_embedded_anew(corpus):
    """Of equal size and with its old time, as tools that restore it leave."""
    path = str(corpus / "wav/x-a/s1/00000.wav")
    located = locate_trials(read_trials(corpus / "list.txt"), corpus)
    before, state = audio_state(located), os.stat(path)
    model = Model()
    embed = Embedder(corpus / "store")
    first, _ = embed(model, [path])
    samples, _ = soundfile.read(path, dtype="float32")
    soundfile.write(path, samples / 2, RATE)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert os.stat(path).st_size == state.st_size
    second, _ = embed(model, [path])
    # 16-bit samples: halving rounds each by half a step at most.
    torch.testing.assert_close(
        second[0, 0], first[0, 0] / 2, atol=2**-16, rtol=0
    )
    assert audio_state(located) != before


@pytest.mark.parametrize("corruption", [*CORRUPTIONS, "another model's"])
def test_a_damaged_part_is_set_aside(corpus, caplog, corruption):
    """Its utterances are embedded anew, and the numbers are those of before."""
    paths = sorted(str(path) for path in corpus.glob("wav/*/*/*.wav"))
    embed = Embedder(corpus / "store")
    wanted = embed(Model(), paths)[0]
    (part,) = embed.store(Model()).folder.glob("*.npz")
    if corruption == "another model's":
        other = EmbeddingStore(corpus / "store", "f" * 64, "full")
        name = next(iter(embed.store(Model()).rows))
        other.add(name, wanted[0].numpy() + 1, 1.0)
        other.write()
        replaced_by(part, next(other.folder.glob("*.npz")))
    else:
        CORRUPTIONS[corruption](part)
    for _ in range(2):
        found = Embedder(corpus / "store")(Model(), paths)[0]
        assert torch.equal(found, wanted) and nothing_ran(corpus)
    if corruption != "gone":
        assert f"{part}: this part of the embedding store is" in caplog.text


def test_two_verifications_share_a_store(corpus):
    """Each finds what the other has written by then, and neither a half."""
    paths = sorted(str(path) for path in corpus.glob("wav/*/*/*.wav"))
    wanted = Embedder(corpus / "other")(Model(), paths)[0]
    context = multiprocessing.get_context("fork")
    meeting, right = context.Barrier(2), context.Value("i", 0)

    def verify():
        torch.set_num_threads(1)
        meeting.wait(60)
        for turn in range(9):
            # Each turn one of them embeds, and the other reads or does too.
            found = Embedder(corpus / f"store{turn}")(Model(), paths)[0]
            with right:
                right.value += torch.equal(found, wanted)

    both = [context.Process(target=verify) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert right.value == 2 * 9
    shutil.copytree(corpus / "store0", corpus / "store")
    assert torch.equal(Embedder(corpus / "store")(Model(), paths)[0], wanted)
