"""fastgan: distributed training of generative adversarial networks with fused kernels."""

__version__ = "0.1.0"
