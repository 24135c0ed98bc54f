"""Where a learner computes, by name."""

import torch

from bayesmeta.errors import DataError, UnsupportedError


def device_of(device: str | torch.device, argument: str = "device") -> torch.device:
    """The device that a name stands for.

    Args:
        device: `"auto"`, the accelerator where torch has one (CUDA, ROCm, XPU) and the CPU where it has none;
            `"cpu"`; `"cuda"`, or one of several, as `"cuda:1"`; or a `torch.device`, which is taken as it is.
        argument: what a user calls the argument, for messages.

    Raises:
        DataError: another word, or a GPU that torch does not see.
        UnsupportedError: a device without float64 (Apple's `mps`), in which all linear algebra is.

    Example:
        >>> device_of("cpu")
        device(type='cpu')
        >>> device_of("auto") == (torch.accelerator.current_accelerator() or torch.device("cpu"))
        True
    """
    if isinstance(device, torch.device):
        return _require_double(device, argument)
    if device == "auto":
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return torch.device("cpu") if found is None or not _has_double(found) else found
    if device == "cpu":
        return torch.device("cpu")
    name, _, number = device.partition(":")
    if name != "cuda" or (number and not number.isdecimal()):
        raise DataError(f"expected {argument} cpu, cuda or auto, got {device!r}")
    if int(number or 0) >= torch.cuda.device_count():
        raise DataError(f"expected a GPU for {argument} {device}, got none that torch sees: take cpu, or auto")
    return torch.device(device)


def _has_double(device: torch.device) -> bool:
    return device.type != "mps"


def _require_double(device: torch.device, argument: str) -> torch.device:
    if not _has_double(device):
        raise UnsupportedError(f"expected {argument} with numbers in float64, got {device}: take cpu")
    return device
