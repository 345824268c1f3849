"""`fastgan presets`: what ships with the package."""

from fastgan.train.log import say


def list_presets() -> None:
    """List the presets with a line about each."""
    from fastgan.train.config_presets import preset_names, preset_summary

    names = preset_names()
    width = max(map(len, names))
    for name in names:
        say(f"{name:<{width}}  {preset_summary(name)}")
