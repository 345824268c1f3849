"""`fastgan doctor`: what this installation has, what it lacks, and the command that gets it."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from fastgan.errors import FastganError
from fastgan.train.log import say

Facts = dict[str, Any]


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the facts as one JSON object.")] = False,
) -> None:
    """Show versions, CPU, GPUs, what is missing and how to get it."""
    facts = collect()
    if as_json:
        say(json.dumps(facts, indent=2))
    else:
        for line in format_facts(facts):
            say(line)


def collect() -> Facts:
    """The environment, and under "missing" one {"what", "why", "command"} for everything that could be there.

    Raises:
        FastganError: torch is not there or does not load.
    """
    try:
        from fastgan.train.environment import environment, extra_packages
    except (ImportError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FastganError(
            f"fastgan does not load: {reason}; repair with: pip install --force-reinstall torch"
        ) from error
    facts = environment()
    return facts | {"missing": find_missing(facts, extra_packages())}


def find_missing(facts: Facts, extras: dict[str, str]) -> list[dict[str, str]]:
    """What is absent and worth having on this machine. `extras`: package -> extra of fastgan that installs it."""
    missing = []
    for package, extra in extras.items():
        if facts["optional_packages"][package] is None:
            missing.append(_need(package, f"needed by the extra [{extra}]", f"pip install 'fastgan[{extra}]'"))
    if facts["gpu_driver"] is not None and not facts["gpus"]:
        missing.append(_missing_gpu(facts))
    if facts["gpus"] and facts["optional_packages"]["triton"] is None:
        missing.append(_need("triton", "compiles kernels for the GPU", "pip install triton"))
    if facts["gpus"] and facts["native_library"].startswith("not built"):
        command = "install the CUDA toolkit (nvcc), then: pip install --no-deps --no-build-isolation -e ."
        missing.append(_need("native library", f"kernels of csrc/: {facts['native_library']}", command))
    return missing


def _missing_gpu(facts: Facts) -> dict[str, str]:
    """There is an NVIDIA driver, but torch sees no GPU: either the build of torch or the driver is the wrong one."""
    torch_version = facts["packages"]["torch"].split("+")[0]
    if facts["cuda"] is None:
        command = f"pip install --force-reinstall --index-url https://pypi.org/simple torch=={torch_version}"
        return _need("GPU", "this build of torch is for the CPU only", command)
    reason = (
        f"driver {facts['gpu_driver']} does not serve CUDA {facts['cuda']}, or CUDA_VISIBLE_DEVICES hides every GPU"
    )
    return _need("GPU", reason, "update the NVIDIA driver: https://www.nvidia.com/drivers")


def _need(what: str, why: str, command: str) -> dict[str, str]:
    return {"what": what, "why": why, "command": command}


def format_facts(facts: Facts) -> list[str]:
    """The facts as aligned lines for people."""
    cpu = facts["cpu"]
    bf16 = ", ".join(cpu["bf16_instructions"]) or "none"
    cores = f"{cpu['num_cores']} cores, {cpu['num_threads']} threads"
    rows = [
        ("fastgan", f"{facts['fastgan']}, commit {facts['git_commit'] or 'unknown'}"),
        ("python", f"{facts['python']} on {facts['platform']}"),
        ("packages", _format_versions(facts["packages"])),
        ("optional", _format_versions(facts["optional_packages"])),
        ("CPU", f"{cpu['model']}, {cores}, {cpu['vectors']}; bf16 instructions: {bf16}"),
        *[("GPU", _format_gpu(gpu)) for gpu in facts["gpus"] or [None]],
        ("driver", facts["gpu_driver"] or "none"),
        ("CUDA", f"{facts['cuda'] or 'none in this build of torch'}, cuDNN {facts['cudnn'] or 'none'}"),
        ("native", facts["native_library"]),
        *[(f"op {op}", reason) for op, reason in facts["ops"].items()],
        *[("missing", f"{need['what']}, {need['why']}: {need['command']}") for need in facts["missing"]],
    ]
    if not facts["missing"]:
        rows.append(("missing", "nothing"))
    width = max(len(title) for title, _ in rows)
    return [f"{title:<{width}}  {text}" for title, text in rows]


def _format_versions(versions: dict[str, str | None]) -> str:
    return ", ".join(f"{name} {version or 'not installed'}" for name, version in versions.items())


def _format_gpu(gpu: dict[str, Any] | None) -> str:
    if gpu is None:
        return "none that torch can use"
    return f"{gpu['name']}, compute capability {gpu['compute_capability']}, {gpu['memory_gib']} GiB"
