import dstbench_grasp
import torch
from dstbench_grasp import GraSP
from torch import Tensor, nn


def quadratic(weight: Tensor, curvature: list, slope: list) -> Tensor:
    """½ Σ a w² + Σ b w, whose gradient is a w + b, and whose Hessian is diagonal: a."""
    a, b = torch.tensor(curvature), torch.tensor(slope)
    return (a * weight.square() / 2 + b * weight).sum()


def test_scores_of_all_layers_compete_by_hand() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
    first, second = [[1.0, -1.0], [2.0, 0.5]], [[2.0, 1.0]]
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor(first))
        model[1].weight.copy_(torch.tensor(second))
    passes = []

    def backward() -> None:
        passes.append(model[0].weight.detach().clone())
        quadratic(model[0].weight, [[1.0, 2], [1, 4]], [[0.0, 0], [-3, 0]]).backward()
        quadratic(model[1].weight, [[3.0, 1]], [[-5.0, 0]]).backward()

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    grasp = GraSP(0.5, total_steps=1).attach(model, optimizer, backward=backward)
    # g is (1, −2 | −1, 2) and (1, 1), so that H g is (1, −4 | −1, 8) and (3, 1)
    # and w · (H g) is (1, 4 | −2, 4) and (6, 1), of which the three highest stay
    assert [layer.mask.int().tolist() for layer in grasp.layers] == [[[0, 1], [0, 1]], [[1, 0]]]
    assert model[0].weight.tolist() == [[0, -1], [0, 0.5]], "as they were, bit for bit"
    assert model[1].weight.tolist() == [[2, 0]]
    assert len(passes) == GraSP.initial_passes
    ahead, behind = (weights - passes[0] for weights in passes[1:])
    torch.testing.assert_close(ahead, -behind)


def test_a_gradient_of_zero_leaves_no_order_but_the_index() -> None:
    model = nn.Linear(4, 1, bias=False)

    def backward() -> None:
        (model.weight * 0).sum().backward()

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    (layer,) = GraSP(0.5, total_steps=1).attach(model, optimizer, backward=backward).layers
    assert layer.mask.tolist() == [[True, True, False, False]]


def test_it_registers_itself() -> None:
    assert dstbench_grasp.dstbench_sparsifiers() == [GraSP]
    assert GraSP.name == "grasp"
