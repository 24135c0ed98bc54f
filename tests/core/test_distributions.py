"""Random numbers that are the same for every precision."""

import torch

from bayesmeta.distributions import common_normals


def test_common_normals_are_one_draw_in_every_precision() -> None:
    draws = [
        common_normals((4, 3), torch.zeros((), dtype=dtype), torch.Generator().manual_seed(1))
        for dtype in (torch.float64, torch.float32)
    ]
    assert draws[1].dtype == torch.float32
    assert torch.equal(draws[0].float(), draws[1])
    torch.manual_seed(1)
    a = common_normals((2,), torch.zeros(()))
    torch.manual_seed(1)
    assert torch.equal(a, torch.randn(2, dtype=torch.float64).float())
