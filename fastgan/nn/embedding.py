"""Learned vectors for class labels.

Shape legend: N batch, E embedding size.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Embedding(nn.Module):
    """Row `label` of a learned [num_classes, E] matrix; entries start standard normal times `std`."""

    def __init__(self, num_classes: int, size: int, *, std: float = 1.0) -> None:
        super().__init__()
        if num_classes < 1 or size < 1:
            raise ValueError(f"Embedding: num_classes={num_classes} and size={size} must be positive")
        self.weight = nn.Parameter(torch.randn(num_classes, size) * std)

    def matrix(self) -> Tensor:
        """[num_classes, E], for spectral normalisation."""
        return self.weight

    def forward(self, labels: Tensor, scale: Tensor | None = None) -> Tensor:
        """[N] int64 labels to [N, E] float32, times `scale` ([] or [1]) if given."""
        rows = F.embedding(labels, self.weight)
        return rows if scale is None else rows * scale
