"""The stroke study's network in plain PyTorch."""

import torch
from torch import nn


class Net(nn.Module):
    """Encoder to 64, head of 32 and 16, linear skip."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.encoder = nn.Linear(inputs, 64)
        self.head = nn.ModuleList([nn.Linear(64, 32), nn.Linear(32, 16)])
        self.out = nn.Linear(16, 1)
        self.skip = nn.Linear(inputs, 1, bias=False)
        self.dropout = nn.Dropout(0.2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, inputs) to (n,) logits."""
        hidden = self.dropout(torch.tanh(self.encoder(x)))
        for layer in self.head:
            hidden = self.dropout(torch.tanh(layer(hidden)))
        return (self.out(hidden) + self.skip(x))[:, 0]
