"""`fastgan doctor`: its facts, its advice, its two forms."""

import copy
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import fastgan
from fastgan.cli import doctor as command
from fastgan.errors import FastganError
from fastgan.train import environment as source


@pytest.fixture(scope="module")
def facts() -> dict[str, Any]:
    return command.collect()


def run_doctor(*arguments: str) -> str:
    app = command.typer.Typer()
    app.command()(command.doctor)
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout


def test_json_holds_what_this_interpreter_says() -> None:
    facts = json.loads(run_doctor("--json"))
    assert facts["fastgan"] == fastgan.__version__
    assert facts["python"] == platform.python_version()
    assert facts["packages"]["torch"] == torch.__version__
    assert facts["cpu"]["num_threads"] == torch.get_num_threads()
    assert len(facts["gpus"]) == torch.cuda.device_count()
    assert facts["native_library"].startswith(("built by nvcc", "not built: "))


def test_every_op_says_what_serves_it(facts: dict[str, Any]) -> None:
    lines = command.format_facts(facts)
    assert {"conv2d", "spectral_norm", "gradient_penalty"} <= facts["ops"].keys()
    for op, reason in facts["ops"].items():
        assert any(f"op {op}" in line and reason in line for line in lines)


def test_text_is_one_aligned_line_a_fact() -> None:
    lines = run_doctor().splitlines()
    assert lines[0].startswith("fastgan ")
    columns = {len(line) - len(line[line.index("  ") :].lstrip()) for line in lines}
    assert len(columns) == 1


def test_the_host_is_not_told(facts: dict[str, Any]) -> None:
    words = set(json.dumps(facts).replace('"', " ").replace("/", " ").split())
    assert platform.node() not in words


def advice(facts: dict[str, Any], **changes: Any) -> list[str]:
    changed = copy.deepcopy(facts)
    for key, value in changes.items():
        changed[key] = changed[key] | value if isinstance(value, dict) else value
    return [need["command"] for need in command.find_missing(changed, {"tensorboard": "tensorboard"})]


def test_advice_follows_from_the_facts(facts: dict[str, Any]) -> None:
    gpu = {"name": "H100", "compute_capability": "9.0", "memory_gib": 79.6}
    complete = {"tensorboard": "2.0", "triton": "3.0"}
    assert advice(facts, optional_packages=complete, gpus=[], gpu_driver=None) == []
    built = {"gpus": [gpu], "gpu_driver": "570.1", "native_library": "built by nvcc 13.0"}
    assert advice(facts, optional_packages=complete, cuda="13.0", **built) == []
    unbuilt = built | {"native_library": "not built: no nvcc"}
    assert advice(facts, optional_packages=complete, cuda="13.0", **unbuilt)[0].startswith("install the CUDA toolkit")
    assert advice(facts, optional_packages=complete | {"tensorboard": None}, gpus=[], gpu_driver=None) == [
        "pip install 'fastgan[tensorboard]'"
    ]
    assert advice(facts, optional_packages=complete | {"triton": None}, **built) == ["pip install triton"]
    cpu_build = advice(
        facts, optional_packages=complete, packages={"torch": "2.13.0+cpu"}, gpus=[], gpu_driver="570.1", cuda=None
    )
    assert cpu_build == ["pip install --force-reinstall --index-url https://pypi.org/simple torch==2.13.0"]
    old_driver = advice(facts, optional_packages=complete, gpus=[], gpu_driver="470.1", cuda="13.0")
    assert "driver" in old_driver[0]


def test_missing_parts_appear_in_the_text(facts: dict[str, Any]) -> None:
    need = {"what": "tensorboard", "why": "needed", "command": "pip install 'fastgan[tensorboard]'"}
    lines = command.format_facts(facts | {"missing": [need]})
    assert lines[-1].endswith("tensorboard, needed: pip install 'fastgan[tensorboard]'")
    assert command.format_facts(facts | {"missing": []})[-1].split() == ["missing", "nothing"]


def test_torch_that_does_not_load_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "fastgan.train.environment")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(FastganError, match="pip install --force-reinstall torch") as caught:
        command.collect()
    assert "\n" not in str(caught.value)


def test_the_module_loads_without_torch() -> None:
    code = "import sys, fastgan.cli.doctor; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_extras_come_from_the_package_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    requirements = [
        "torch>=2.11",
        'tensorboard>=2.18; extra == "tensorboard"',
        "onnx ; python_version < '3.14' and extra == 'export'",
        'fastgan[tensorboard]; extra == "test"',
        'pytest>=8.3; extra == "test"',
    ]
    monkeypatch.setattr(source.importlib.metadata, "requires", lambda name: requirements)
    assert source.extra_packages() == {"tensorboard": "tensorboard", "onnx": "export"}


def test_commit_is_that_of_the_checkout_only(tmp_path: Path) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "file").write_text("1")
    subprocess.run([*git, "add", "file"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "one"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert source.git_commit(tmp_path) == head
    (tmp_path / "file").write_text("2")
    assert source.git_commit(tmp_path) == f"{head}-dirty"
    (tmp_path / "inner").mkdir()
    assert source.git_commit(tmp_path / "inner") is None
