"""Runs exported ONNX graphs as models.

Authors: IML-KD contributors
"""

import hashlib
from pathlib import Path

import torch

from imlkd_brain.errors import UserError


def require_onnx():
    """Check that onnx and onnxruntime are installed, before the work.

    Raises
    ------
    UserError
        If one of them is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"the ONNX graphs need {error.name}, which is not installed; run "
            "`pip install onnx onnxruntime`, or go without them with `--graphs "
            "'[]'`."
        ) from None


def open_session(path, threads=1):
    """Open an ONNX file on the CPU.

    Arguments
    ---------
    path : str or Path
        The file.
    threads : int
        Threads of an operator.

    Returns
    -------
    onnxruntime.InferenceSession
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"]
    )


def run(session, inputs):
    """Return a graph's only output for its only input.

    Arguments
    ---------
    session : onnxruntime.InferenceSession
        The graph.
    inputs : torch.Tensor
        float32, on the CPU.

    Returns
    -------
    torch.Tensor
        float32, on the CPU.
    """
    name = session.get_inputs()[0].name
    (output,) = session.run(None, {name: inputs.contiguous().numpy()})
    return torch.from_numpy(output)


class OnnxSpeakerModel(torch.nn.Module):
    """A graph from waveforms, with the face of a speaker model.

    Embeddings of several lengths in a batch are computed one by one.

    Arguments
    ---------
    path : str or Path
        A graph that :func:`imlkd_brain.models.onnx_export.export_graph` wrote.
    threads : int
        Threads of an operator.

    Attributes
    ----------
    key : str
        SHA-256 of the file.

    Raises
    ------
    UserError
        If the file is missing, is no ONNX graph, or reads no waveforms.
    """

    speakers = teacher_speakers = learnt_speakers = ()

    def __init__(self, path, threads=1):
        super().__init__()
        require_onnx()
        path = Path(path)
        if not path.is_file():
            raise UserError(f"{path}: missing; export the model again.")
        try:
            self.session = open_session(path, threads)
        except Exception as error:
            # onnxruntime's own types, which it does not document.
            raise UserError(
                f"{path}: not a readable ONNX graph ({type(error).__name__}); "
                "export the model again."
            ) from error
        about = self.session.get_modelmeta().custom_metadata_map
        if about.get("input") != "waveform":
            raise UserError(
                f"{path}: the graph does not read waveforms; give the one that "
                "export.py names waveform.onnx."
            )
        self.sample_rate = int(about["sample_rate"])
        self.about = about
        self.key = hashlib.sha256(path.read_bytes()).hexdigest()
        self.source, self.name = str(path), path.stem
        # Callers ask the parameters for the device.
        self.place = torch.nn.Parameter(torch.empty(0), requires_grad=False)

    def embed(self, wavs, lens=None):
        """Return embeddings (batch, dim) of waveforms (batch, samples)."""
        if lens is None or bool((lens == 1).all()):
            return run(self.session, wavs)
        n_samples = (lens * wavs.shape[1]).round().long()
        return torch.cat(
            [
                run(self.session, wav[:n].unsqueeze(0))
                for wav, n in zip(wavs, n_samples, strict=True)
            ]
        )
