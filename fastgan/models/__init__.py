"""Networks, built from `fastgan.nn` modules only."""

from fastgan.models.dcgan import DCGANDiscriminator, DCGANGenerator

__all__ = ["DCGANDiscriminator", "DCGANGenerator"]
