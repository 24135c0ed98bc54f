"""The forms that a program may have on a robot, and what has to be installed there to run it.

TorchProgram       torch.export's own (.pt2)                          torch
InductorPackage    compiled code for this kind of machine (.pt2)      torch
OnnxProgram        ONNX (.onnx)                                       onnxruntime, or another runtime of ONNX
"""

import io
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bayesmeta.errors import UnsupportedError
from bayesmeta.interop.exporting.programs import Recorded
from bayesmeta.one_line import InShort
from bayesmeta.torch_private import package_program, packaged_program, talking_to_itself


class Form(InShort, ABC):
    """How a program is written. A subclass gives `write`, and `write_state` where it has a form of its own for numbers.

    Attributes:
        title: what the manifest calls it.
        suffix: how the names of its files end.
        whole: whether it writes `adapt_predict` of a learner that can be a stream, too.

    Example:
        >>> from bayesmeta.interop.exporting import Form, TorchProgram
        >>> isinstance(TorchProgram(), Form), TorchProgram().suffix
        (True, '.pt2')
    """

    title: str
    suffix: str
    whole: bool = True

    @abstractmethod
    def write(self, recorded: Recorded, path: Path) -> None:
        """Write one program.

        Args:
            recorded: what is written.
            path: the file.

        Raises:
            UnsupportedError: what would write it is not installed, or does not know one of its operations.
        """

    def write_state(self, state: Mapping[str, Tensor], folder: Path) -> str | None:
        """Write the state that streams begin with; the name of the file, or None where another form writes it.

        Args:
            state: tensors by name.
            folder: where.
        """
        return None


class TorchProgram(Form):
    """Programs of `torch.export`: `torch.export.load(file).module()` is a function of tensors, where torch is.

    The state of a stream is `state.pt`, for `torch.load(file, weights_only=True)`.

    Example:
        >>> import tempfile
        >>> import bayesmeta as bm
        >>> from bayesmeta.interop.exporting import TorchProgram
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     bm.export(bm.ALPaCA(bm.Identity(1)), f"{folder}/robot", forms=[TorchProgram()])
        ...     program = torch.export.load(f"{folder}/robot/adapt_predict.pt2").module()
        >>> x, y = torch.tensor([[[0.0], [1.0]]]), torch.tensor([[[0.0], [2.0]]])
        >>> program(x, y, torch.ones(1, 2, dtype=torch.bool), torch.tensor([[[3.0]]]))["mean"].shape
        torch.Size([1, 1, 1])
    """

    title, suffix = "torch", ".pt2"

    def write(self, recorded: Recorded, path: Path) -> None:
        """`torch.export.save`."""
        torch.export.save(recorded.exported, path)

    def write_state(self, state: Mapping[str, Tensor], folder: Path) -> str | None:
        """`torch.save` of a dictionary of tensors."""
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        (folder / "state.pt").write_bytes(buffer.getvalue())
        return "state.pt"


class InductorPackage(Form):
    """Programs that inductor has compiled: machine code that torch runs without compiling or interpreting anything.

    It is for processors like this machine's, and takes a C++ compiler and some ten seconds for each program here; where
    it runs it takes torch alone, `torch._inductor.aoti_load_package(file)`, of this version.

    Example:
        >>> from bayesmeta.interop.exporting import InductorPackage
        >>> InductorPackage().suffix
        '.aoti.pt2'
    """

    title, suffix = "inductor", ".aoti.pt2"

    def write(self, recorded: Recorded, path: Path) -> None:
        """Compile and package."""
        try:
            package_program(recorded.exported, path)
        except Exception as error:  # all of it is torch's own code, and its errors have no common base
            raise UnsupportedError(
                f"expected to compile {recorded.program.name} with inductor, got {type(error).__name__}: "
                f"{str(error).strip().splitlines()[0]}. Likely cause: no C++ compiler (install g++), or an operation "
                "that inductor does not know: use TorchProgram"
            ) from error
        recorded.compare(packaged_program(path))


class OnnxProgram(Form):
    """Programs in ONNX, for onnxruntime and whatever else reads it, on machines without torch.

    ONNX has no Cholesky factors: a learner that can be a stream is written as `update` and `predict`, and of others
    `adapt_predict` where it consists of what ONNX has, as that of neural processes and class means does. The state of a
    stream is `state.npz`, for `numpy.load`. Writing takes the packages of the extra `onnx`.

    Example:
        >>> from bayesmeta.interop.exporting import OnnxProgram
        >>> OnnxProgram().suffix
        '.onnx'
    """

    title, suffix, whole = "onnx", ".onnx", False

    def write(self, recorded: Recorded, path: Path) -> None:
        """`torch.onnx.export`."""
        try:
            import onnxruntime
            import onnxscript  # noqa: F401
        except ImportError as error:
            raise UnsupportedError(
                "expected onnx, onnxscript and onnxruntime to write ONNX, got none: pip install 'bayesmeta[onnx]'"
            ) from error
        options: dict[str, Any] = {
            "input_names": [slot.name for slot in recorded.program.inputs],
            "output_names": [slot.name for slot in recorded.outputs],
            "external_data": False,  # all in one file
        }
        try:
            with talking_to_itself():
                torch.onnx.export(recorded.exported, f=str(path), dynamo=True, verbose=False, **options)
        except Exception as error:  # torch's own errors have no common base
            raise UnsupportedError(
                f"expected operations in {recorded.program.name} that ONNX has, got {type(error).__name__}: "
                f"{str(error).strip().splitlines()[0]}. Likely cause: a Cholesky factor or a triangular solve "
                "(Gaussian processes, ridge heads): ALPaCA and R2D2Regressor are written as streams, which do without; "
                "or use TorchProgram"
            ) from error
        try:
            session = onnxruntime.InferenceSession(path)
        except Exception as error:  # its errors have no common base
            raise UnsupportedError(
                f"expected onnxruntime to run {recorded.program.name}, got {type(error).__name__}: "
                f"{str(error).strip().splitlines()[0]}. Likely cause: an operation that it has in float32 alone: "
                "export learner.float()"
            ) from error
        recorded.compare(partial(_run, session, recorded))

    def write_state(self, state: Mapping[str, Tensor], folder: Path) -> str | None:
        """`numpy.savez`."""
        import numpy as np

        arrays: dict[str, Any] = {name: value.cpu().numpy() for name, value in state.items()}
        np.savez(folder / "state.npz", **arrays)
        return "state.npz"


def _run(session: Any, recorded: Recorded, *inputs: Tensor) -> dict[str, Tensor]:
    """A program in onnxruntime, as one of torch."""
    arrays = {slot.name: v.cpu().numpy() for slot, v in zip(recorded.program.inputs, inputs, strict=True)}
    outputs = session.run([slot.name for slot in recorded.outputs], arrays)
    return {slot.name: torch.from_numpy(v) for slot, v in zip(recorded.outputs, outputs, strict=True)}
