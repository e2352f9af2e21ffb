"""Kaldi's log-mel filter banks for batches, as public speaker models use them.

Authors: IML-KD contributors
"""

import torch
from torch.nn.functional import pad
from torchaudio.compliance.kaldi import get_mel_banks

PRE_EMPHASIS = 0.97
LOWEST_HERTZ = 20.0


class KaldiFbank(torch.nn.Module):
    """Log-mel energies as ``torchaudio.compliance.kaldi.fbank`` gives them.

    That function takes one utterance and builds its filters in every call.
    This one takes batches and is differentiable. Settings are Kaldi's
    defaults without dither: frames of 25 ms every 10 ms, each without its
    mean, pre-emphasis 0.97, Povey window, power spectrum, filters from 20 Hz
    to half the sampling rate.

    Arguments
    ---------
    n_mels : int
        Number of filters.
    sample_rate : int
        In Hz.
    win_length : float
        Frame length in milliseconds.
    hop_length : float
        Frame shift in milliseconds.

    Example
    -------
    >>> KaldiFbank(n_mels=80)(torch.randn(2, 16000)).shape
    torch.Size([2, 98, 80])
    """

    def __init__(
        self, n_mels=80, sample_rate=16000, win_length=25.0, hop_length=10.0
    ):
        super().__init__()
        self.n_mels = n_mels
        self.sample_rate = sample_rate
        self.win_length = win_length
        self.hop_length = hop_length
        self.n_window = int(sample_rate * win_length * 0.001)
        self.n_hop = int(sample_rate * hop_length * 0.001)
        self.n_fft = 2 ** (self.n_window - 1).bit_length()
        filters, centres = get_mel_banks(
            n_mels,
            self.n_fft,
            sample_rate,
            LOWEST_HERTZ,
            0.0,
            100.0,
            -500.0,
            1.0,
        )
        self.f_central = centres.flatten()  # Hz, as SpeechBrain's Fbank has it
        # The last bin, at half the sampling rate, has no filter.
        self.register_buffer("filters", pad(filters, (0, 1)).T, False)
        window = torch.hann_window(self.n_window, periodic=False)
        self.register_buffer("window", window.pow(0.85), False)

    def forward(self, wavs):
        """Return log-mel energies (batch, time, mel) of (batch, samples)."""
        frames = wavs.float().unfold(-1, self.n_window, self.n_hop)
        frames = self.shaped(frames)
        power = torch.fft.rfft(frames, n=self.n_fft).abs().square()
        energies = power @ self.filters
        return energies.clamp(min=torch.finfo(torch.float32).eps).log()

    def shaped(self, frames):
        """Return frames (..., samples) before their Fourier transform."""
        frames = frames - frames.mean(-1, keepdim=True)
        earlier = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
        return (frames - PRE_EMPHASIS * earlier) * self.window
