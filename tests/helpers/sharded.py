"""A small corpus in shards, as ``python -m imlkd_brain.data.shards`` packs it."""

import soundfile
from synthetic import write_corpus

from imlkd_brain.data.shards import main


def movable(folder):
    """A small corpus, WAV and FLAC, whose CSV names files by $data_root."""
    write_corpus(folder)
    csv = folder / "train.csv"
    text = csv.read_text().replace(str(folder), "$data_root")
    for speaker in ("anna", "bert"):
        wav = folder / "wav" / speaker / "s1" / "1.wav"
        soundfile.write(wav.with_suffix(".flac"), *soundfile.read(wav))
        wav.unlink()
        text = text.replace(f"{speaker}/s1/1.wav", f"{speaker}/s1/1.flac")
    csv.write_text(text)
    return folder


def pack(corpus, folder, shard_size=50_000):
    """Run the command on it: two or three of its files fit in a shard."""
    options = {
        "annotation": corpus / "train.csv",
        "data_folder": corpus,
        "shards": folder,
        "shard_size": shard_size,
    }
    main([f"--{key}={value}" for key, value in options.items()])
    return folder
