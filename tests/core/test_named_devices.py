"""Devices by name."""

import pytest
import torch

import bayesmeta as bm
from bayesmeta.devices import device_of


@pytest.mark.parametrize(("found", "expected"), [("cuda", "cuda"), ("xpu", "xpu"), ("mps", "cpu"), (None, "cpu")])
def test_auto_is_an_accelerator_that_has_float64(
    monkeypatch: pytest.MonkeyPatch, found: str | None, expected: str
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: found is not None)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: found and torch.device(found))
    assert device_of("auto") == torch.device(expected)


def test_what_is_no_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert device_of("cuda:0") == torch.device("cuda", 0)
    for name, message in (
        ("cuda:1", "expected a GPU for device cuda:1, got none that torch sees: take cpu, or auto"),
        ("quantum", "expected device cpu, cuda or auto, got 'quantum'"),
    ):
        with pytest.raises(bm.DataError) as caught:
            device_of(name)
        assert str(caught.value) == message
    with pytest.raises(bm.UnsupportedError, match="float64, got mps"):
        device_of(torch.device("mps"))
    learner, tasks = bm.ALPaCA(bm.Identity(1)), bm.tasks.Sinusoid().dataset(4, 4, seed=0)
    with pytest.raises(bm.DataError, match="got 'quantum'"):
        bm.fit(learner, tasks, 1, device="quantum")
