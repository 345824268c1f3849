"""Compiles the Triton kernels of the ops of csrc/ for a GPU that need not be there; prints one line per kernel.

A script of its own: Triton decides at import whether it interprets.
"""

import sys

import torch
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from fastgan.kernels import gradient_penalty as penalty
from fastgan.kernels import spectral_norm as norm

TABLE = {"table_ptr": "*i64", "tiles_ptr": "*i32"}
SUMS = dict.fromkeys(("products_ptr", "partial_ptr", "sums_ptr", "sigma_ptr", "out_ptr", "coefficients_ptr"), "*fp32")
SAMPLES = dict.fromkeys(("factors_ptr", "cotangents_ptr", "weights_ptr", "penalty_ptr", "factor_ptr"), "*fp32")
NUMBERS = {"size": "i32", "num_blocks": "i32", "center": "fp32"}
ROWS = ("rows_ptr", "real_ptr", "fake_ptr")
CONSTANTS = {"BLOCK": 1024, "HAS_CENTER": True, "ONE_SIDED": True}


def variants(dtype: torch.dtype):  # type: ignore[no-untyped-def]
    """(kernel, signature, constants) for weights or images of one dtype."""
    short = {torch.float32: "fp32", torch.bfloat16: "bf16"}[dtype]
    types = TABLE | SUMS | SAMPLES | NUMBERS | dict.fromkeys(ROWS, f"*{short}")
    constants = CONSTANTS | {"DTYPE": norm._dtype(dtype)}
    for module in (norm, penalty):
        for name, kernel in vars(module).items():
            if name.endswith("_kernel"):
                own = {n: constants[n] for n in kernel.arg_names if n in constants}
                signature = {n: "constexpr" if n in own else types[n] for n in kernel.arg_names}
                yield name, ASTSource(kernel, signature, own)


if __name__ == "__main__":
    target = GPUTarget("cuda", int(sys.argv[1]), 32)
    for dtype in (torch.float32, torch.bfloat16):
        for name, source in variants(dtype):
            compiled = compile(source, target=target)
            local = compiled.asm["ptx"].count(".local")
            sys.stdout.write(f"{name} {dtype} {len(compiled.asm['cubin'])} {local}\n")
