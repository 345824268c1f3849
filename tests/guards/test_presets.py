"""Every preset that ships validates, and its networks build without memory for their weights."""

import pytest

from fastgan.train.build import build_networks
from fastgan.train.config import load_config
from tests.guards.tree import ROOT

PRESETS = sorted(path.stem for path in (ROOT / "fastgan" / "presets").glob("*.yaml"))


def test_there_are_presets() -> None:
    assert "digits" in PRESETS


@pytest.mark.parametrize("name", PRESETS)
def test_the_preset_validates_and_builds(name: str) -> None:
    config = load_config(name)
    assert config.name == name
    for network in build_networks(config, device="meta"):
        parameters = list(network.parameters())
        assert parameters
        assert all(parameter.is_meta for parameter in parameters)
