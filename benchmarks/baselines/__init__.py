"""The usual PyTorch way of the same networks, steps and ops: what fastgan is measured against, and tested against."""
