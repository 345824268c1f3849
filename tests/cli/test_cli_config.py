"""The command line around configurations: what it prints, where, and its exit codes."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
import yaml

from fastgan import __version__
from fastgan.cli import app, presets
from fastgan.cli.app import run
from fastgan.errors import ConfigError, TrainingError
from fastgan.train.config import load_config, preset_names


def test_help_loads_neither_torch_nor_pydantic() -> None:
    code = """
import sys
from fastgan.__main__ import main
sys.argv = ["fastgan", "--help"]
try:
    main()
except SystemExit as end:
    loaded = {"torch", "numpy", "pydantic", "triton"} & set(sys.modules)
    sys.exit(f"loaded {loaded}" if loaded else end.code)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "config" in done.stdout


def test_configurations_are_shown_without_torch() -> None:
    code = """
import sys
from fastgan.cli.app import run
code = run(["config", "show", "digits"])
sys.exit("loaded torch" if "torch" in sys.modules else code)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_python_m_fastgan_is_the_same_program() -> None:
    done = subprocess.run([sys.executable, "-m", "fastgan", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"fastgan {__version__}\n", "")


@pytest.mark.parametrize(("arguments", "command"), [([], "presets"), (["config"], "schema")])
def test_a_group_without_a_command_shows_its_help(
    arguments: list[str], command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 0
    assert command in capsys.readouterr().out


def test_show_prints_what_config_reads_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ["batch_images=128", "data.mirror=true"]
    assert run(["config", "show", "digits", *overrides]) == 0
    saved = tmp_path / "saved.yaml"
    saved.write_text(capsys.readouterr().out, encoding="utf-8")
    assert run(["config", "show", "--config", str(saved)]) == 0
    assert capsys.readouterr().out == saved.read_text(encoding="utf-8")
    assert load_config(None, config_file=saved) == load_config(
        "digits", overrides=["batch_images=128", "data.mirror=true"]
    )


def test_overrides_may_stand_without_a_preset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("preset: digits\n", encoding="utf-8")
    assert run(["config", "show", "seed=7", "batch_images=32", "--config", str(file)]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["name"], shown["seed"], shown["batch_images"]) == ("mine", 7, 32)


def test_check_says_valid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("preset: digits\n", encoding="utf-8")
    assert run(["config", "check", "--config", str(file)]) == 0
    assert run(["config", "check", "digits"]) == 0
    assert capsys.readouterr().out == f"{file}: valid\ndigits: valid\n"


def test_check_prints_one_line_per_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("preset: digits\nchanels: 3\nprecision: fp23\n", encoding="utf-8")
    assert run(["config", "check", "seed=true", "--config", str(file)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == (
        f"error: {file}:2: chanels is not a key, did you mean 'data.channels', 'generator.channels' or "
        "'discriminator.channels'?\n"
        f"error: {file}:3: precision=fp23 must be auto, fp32 or bf16, did you mean 'fp32'?\n"
        "error: command line: seed=true must be a whole number\n"
    )


def test_schema_is_json_of_all_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert {"total_images", "data", "penalties"} <= schema["properties"].keys()
    assert schema["additionalProperties"] is False


def test_presets_are_listed_with_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["presets"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == preset_names()
    assert all(len(line.split()) > 4 for line in lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["confg"], "No such command 'confg'. Did you mean 'config'? (see fastgan --help)"),
        (["config", "shw"], "No such command 'shw'. Did you mean 'show'? (see fastgan config --help)"),
        (["config", "show", "--confg", "x"], "No such option: --confg (Possible options: --config)"),
        (["config", "show", "digts"], "unknown preset 'digts', did you mean 'digits'?"),
    ],
)
def test_bad_usage_is_one_line_and_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"error: {message}")
    assert printed.err.count("\n") == 1


def _raise(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "printed"),
    [
        (TrainingError("loss is nan; lower the learning rate"), 2, "error: loss is nan; lower the learning rate\n"),
        (ConfigError("a\nb"), 2, "error: a\nerror: b\n"),
        (KeyboardInterrupt(), app.EXIT_INTERRUPTED, "error: interrupted\n"),
        # A command that has said more about its end chooses the code alone.
        (typer.Exit(130), 130, ""),
    ],
)
def test_errors_of_a_command_become_lines_and_codes(
    error: BaseException, code: int, printed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(presets, "list_presets", _raise(error))
    assert run(["presets"]) == code
    assert capsys.readouterr().err == printed


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presets, "list_presets", _raise(ZeroDivisionError("a bug")))
    with pytest.raises(ZeroDivisionError, match="a bug"):
        run(["presets"])
