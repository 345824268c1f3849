"""The README's configuration is valid, and the presets and commands that it names exist."""

import re
from pathlib import Path
from typing import get_args

import pytest
import yaml

from fastgan.cli.app import run
from fastgan.train.config import load_config, preset_names
from fastgan.train.config_types import LossKind, PenaltyKind

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_configurations_are_valid(tmp_path: Path) -> None:
    first, ensemble = blocks("yaml")
    configs = []
    for text in (first, ensemble):
        file = tmp_path / "my.yaml"
        file.write_text(text)
        configs.append(load_config(None, config_file=file))
    assert configs[0].objective.loss == yaml.safe_load(first)["objective"]["loss"]
    names = [member["name"] for member in yaml.safe_load(ensemble)["ensemble"]["members"]]
    assert [member.name for member in configs[1].ensemble.members] == names


def test_the_commands_exist() -> None:
    lines = [line.split("#")[0].split("&&")[-1].strip() for block in blocks("sh") for line in block.splitlines()]
    commands = [line.split() for line in lines if line.startswith("fastgan ")]
    assert len(commands) > 6
    for words in commands:
        if words[1] == "train" and words[2] != "--resume":
            assert words[2] in preset_names()
            load_config(words[2], overrides=words[3:])
        else:
            parts = words[1:3] if words[1] == "config" else words[1:2]
            assert run([*parts, "--help"]) == 0


@pytest.mark.parametrize(("key", "kinds"), [("loss", LossKind), ("kind", PenaltyKind)])
def test_every_loss_and_penalty_is_named(key: str, kinds: object) -> None:
    """One stands in the example, the others in the comment behind it."""
    (line,) = (line for line in blocks("yaml")[0].splitlines() if f"{key}: " in line)
    (shown,) = re.findall(rf"{key}: (\w+)", line)
    assert sorted([shown, *line.split("# ")[1].split(", ")]) == sorted(get_args(kinds))
