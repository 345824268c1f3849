"""Configurations: models, presets, files, overrides, writing and comparing. `test_config_errors` has the errors."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from fastgan.train.config import (
    DataConfig,
    PenaltyConfig,
    RunConfig,
    dump_config,
    load_config,
    preset_names,
    preset_summary,
    resume_differences,
)

NETWORKS = ("discriminator", "generator")
SMALL = "total_images: 100\nbatch_images: 10\ndata: {resolution: 32, channels: 1}\n"


def write(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def all_models(model: type[BaseModel] = RunConfig) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from all_models(field.annotation)
    if model is RunConfig:
        yield PenaltyConfig


# Models


@pytest.mark.parametrize(
    "model", sorted(set(all_models()), key=lambda model: model.__name__), ids=lambda model: model.__name__
)
def test_every_key_is_documented_and_every_model_strict(model: type[BaseModel]) -> None:
    assert [name for name, field in model.model_fields.items() if not field.description] == []
    assert model.model_config["frozen"]
    assert model.model_config["extra"] == "forbid"


def test_a_configuration_is_frozen() -> None:
    config = load_config("digits")
    with pytest.raises(ValidationError, match="frozen"):
        config.data.mirror = True


def test_models_can_be_made_in_code() -> None:
    config = RunConfig(name="x", total_images=100, batch_images=10, data=DataConfig(resolution=32, channels=1))
    assert config.penalties == ()
    with pytest.raises(ValidationError, match=r"micro_batch_images=3 must divide batch_images=10; nearest: 2 or 5"):
        RunConfig.model_validate(config.model_dump() | {"micro_batch_images": 3})


# Presets


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_loads_and_says_what_it_is(name: str) -> None:
    assert load_config(name).name == name
    assert 20 < len(preset_summary(name)) < 100


def test_a_preset_builds_on_another() -> None:
    base, labels = load_config("digits"), load_config("digits-labels")
    assert (labels.data.labels, labels.data.num_classes) == (True, 10)
    assert labels.model_dump(exclude={"name", "data", "generator"}) == base.model_dump(
        exclude={"name", "data", "generator"}
    )


def test_a_list_is_replaced_by_the_preset_above() -> None:
    assert [penalty.kind for penalty in load_config("digits-wgan-gp").penalties] == ["wgan_gp"]


# Overrides


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("batch_images=128", "batch_images", 128),
        ("total_images=2e6", "total_images", 2_000_000),
        ("total_images=1_000_000", "total_images", 1_000_000),
        ("generator.channels=64", "generator.channels", 64),
        ("optimizer.generator.learning_rate=1e-3", "optimizer.generator.learning_rate", 0.001),
        ("optimizer.generator.learning_rate=.5", "optimizer.generator.learning_rate", 0.5),
        ("optimizer.generator.betas=[0, 0.9]", "optimizer.generator.betas", (0.0, 0.9)),
        ("optimizer.generator={eps: 1}", "optimizer.generator.eps", 1.0),
        ("data.mirror=true", "data.mirror", True),
        ("data.path=null", "data.path", None),
        ("data.path=", "data.path", None),
        ("data.path=on", "data.path", "on"),
        ("data.path='1e-3'", "data.path", "1e-3"),
        ("data.path=a=b c", "data.path", "a=b c"),
        ("data.path=2020-01-01", "data.path", "2020-01-01"),
        ("log.tensorboard=on", "log.tensorboard", "on"),
        ("penalties.0.weight=2", "penalties.0.weight", 2.0),
        ("penalties.0={kind: r2, weight: 3}", "penalties.0.kind", "r2"),
        ("penalties=[]", "penalties", ()),
        ("name=other", "name", "other"),
    ],
)
def test_an_override_sets_one_key(override: str, key: str, value: object) -> None:
    config: Any = load_config("digits", overrides=[override])
    for part in key.split("."):
        config = config[int(part)] if part.isdigit() else getattr(config, part)
    assert config == value
    assert type(config) is type(value)


def test_overrides_leave_other_keys_alone_and_later_ones_win() -> None:
    config = load_config(
        "digits", overrides=["penalties.0.weight=2", "seed=1", "optimizer={generator: {eps: 1}}", "seed=2"]
    )
    base = load_config("digits")
    assert config.seed == 2
    assert config.penalties[0] == base.penalties[0].model_copy(update={"weight": 2.0})
    assert config.optimizer.generator == base.optimizer.generator.model_copy(update={"eps": 1.0})
    assert config.optimizer.discriminator == base.optimizer.discriminator


# Files


def test_a_file_stands_alone_and_gives_the_name(tmp_path: Path) -> None:
    config = load_config(None, config_file=write(tmp_path, SMALL, "my run.yaml"))
    assert (config.name, config.total_images, config.data.fit) == ("my-run", 100, "exact")


def test_a_file_builds_on_a_preset(tmp_path: Path) -> None:
    file = write(tmp_path, "preset: digits-labels\ngenerator: {channels: 16}\nname: other\n")
    config = load_config(None, config_file=file, overrides=["seed=3"])
    assert (config.name, config.generator.channels, config.generator.label_dim, config.seed) == ("other", 16, 32, 3)
    assert load_config("digits-labels", config_file=file, overrides=["seed=3"]) == config


def test_a_preset_and_a_file_can_be_given_together(tmp_path: Path) -> None:
    config = load_config("digits", config_file=write(tmp_path, "seed: 3\n"))
    assert config == load_config("digits", overrides=["seed=3", "name=mine"])


# Writing


@pytest.mark.parametrize("name", preset_names())
def test_a_dump_loads_back_equal(name: str, tmp_path: Path) -> None:
    config = load_config(name)
    text = dump_config(config)
    assert load_config(None, config_file=write(tmp_path, text)) == config
    assert max(map(len, text.splitlines())) <= 120


@given(
    path=st.text(min_size=1).filter(lambda text: "\x00" not in text),
    rate=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    seed=st.integers(min_value=0, max_value=2**63 - 1),
)
def test_any_value_survives_the_dump(
    path: str, rate: float, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    base = load_config("digits").model_dump()
    base["data"]["path"], base["seed"], base["optimizer"]["generator"]["learning_rate"] = path, seed, rate
    config = RunConfig.model_validate(base)
    file = write(tmp_path_factory.getbasetemp(), dump_config(config), "any.yaml")
    assert load_config(None, config_file=file) == config


@pytest.mark.parametrize(
    "path", ["on", "1e-3", "null", "~", "true", "12", "a: b", "a #b", ".", " x", "2020-01-01", "é\n"]
)
def test_text_that_yaml_would_read_as_something_else_survives_too(path: str, tmp_path: Path) -> None:
    config = load_config("digits").model_copy(update={"run_dir": path})
    assert load_config(None, config_file=write(tmp_path, dump_config(config))).run_dir == path


# Resuming


@pytest.mark.parametrize(
    ("override", "differences"),
    [
        ("total_images=999_999", []),
        ("run_dir=elsewhere", []),
        ("checkpoint.keep=9", []),
        ("log.num_samples=9", []),
        ("data.num_workers=9", []),
        ("data.cache_bytes=9", []),
        ("data.path=elsewhere", []),
        ("seed=9", ["seed"]),
        ("name=other", ["name"]),
        ("data.fit=crop", ["data.fit"]),
        ("penalties.0.weight=9", ["penalties"]),
        ("optimizer={generator: {eps: 1}, discriminator: {eps: 1}}", ["optimizer." + n + ".eps" for n in NETWORKS]),
    ],
)
def test_what_may_change_on_resume(override: str, differences: list[str]) -> None:
    saved = load_config("digits")
    assert resume_differences(saved, saved) == []
    found = resume_differences(saved, load_config("digits", overrides=[override]))
    assert [difference.key for difference in found] == differences
