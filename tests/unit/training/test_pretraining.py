"""The optimiser of the base: the same updates as torch's Muon, computed in float32."""

import pytest
import torch

from thinkimg.training.pretraining import Muon, orthogonalise


@pytest.mark.parametrize("shape", [(24, 60), (60, 24), (24, 24)])
def test_five_steps_go_where_torchs_muon_goes(shape):
    torch.manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(shape)) for _ in range(3)]
    theirs = [torch.nn.Parameter(matrix.detach().clone()) for matrix in ours]
    optimisers = [Muon(ours, lr=0.02), torch.optim.Muon(theirs, lr=0.02, weight_decay=0.01)]
    start = [matrix.detach().clone() for matrix in ours]
    for _ in range(5):
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn(shape)
            other.grad = mine.grad.clone()
        for optimiser in optimisers:
            optimiser.step()
    for mine, other, before in zip(ours, theirs, start, strict=True):
        moved = (other - before).norm()
        assert moved > 0.1
        assert (mine - other).norm() < 0.02 * moved  # torch's rounds to bfloat16


def test_a_matrix_without_a_gradient_stays():
    trained, still = torch.nn.Parameter(torch.ones(4, 6)), torch.nn.Parameter(torch.ones(4, 6))
    trained.grad = torch.randn(4, 6)
    Muon([trained, still], lr=0.1).step()
    assert not torch.equal(trained, torch.ones(4, 6))
    assert torch.equal(still, torch.ones(4, 6))


@pytest.mark.parametrize("shape", [(2, 16, 48), (2, 48, 16)])
def test_singular_values_come_near_one(shape):
    torch.manual_seed(1)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
    assert values.min() > 0.5
    assert values.max() < 1.3
