import dstbench_static
import torch
from dstbench_static import Static
from torch import nn


def test_the_mask_never_changes() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 4))
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    sparsifier = Static(0.8, total_steps=100, seed=1).attach(model, optimizer)
    masks = [layer.mask.clone() for layer in sparsifier.layers]
    weights = [layer.weight.clone() for layer in sparsifier.layers]
    for _ in range(30):
        model(torch.randn(4, 6)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    for layer, mask, weight in zip(sparsifier.layers, masks, weights, strict=True):
        assert torch.equal(layer.mask, mask)
        assert torch.equal(layer.weight != 0, mask)
        assert not torch.equal(layer.weight, weight)
    assert sparsifier.active == round(0.2 * 160)


def test_it_registers_itself() -> None:
    assert dstbench_static.dstbench_sparsifiers() == [Static]
    assert Static.name == "static"
