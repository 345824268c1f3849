"""Every error of a configuration, with its full text."""

from pathlib import Path

import pytest

from fastgan.errors import ConfigError
from fastgan.train.config import RunConfig, load_config, preset_names


def write(folder: Path, text: str) -> Path:
    file = folder / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    return file


COMPLETE = "total_images: 100\nbatch_images: 10\ndata: {resolution: 32, channels: 1}\n"
MAPPING = "the top level must be a mapping of keys to values; write for example 'batch_images: 64'"
NEXT_TOKEN = "not valid YAML: while scanning for the next token, found character"
LEARNING_RATES = "'optimizer.discriminator.learning_rate' or 'optimizer.generator.learning_rate'"
ALL_KEYS = ", ".join(RunConfig.model_fields)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        # Keys.
        ("generator.chanels=64", "generator.chanels is not a key, did you mean 'generator.channels'?"),
        ("batch_size=64", "batch_size is not a key, did you mean 'batch_images'?"),
        ("num_samples=64", "num_samples is not a key, did you mean 'log.num_samples'?"),
        ("half_life=64", "half_life is not a key, did you mean 'ema.half_life_images'?"),
        ("learning_rate=1", f"learning_rate is not a key, did you mean {LEARNING_RATES}?"),
        ("lr=1", f"lr is not a key, did you mean {LEARNING_RATES}?"),
        ("zzz=1", f"zzz is not a key; the keys of a configuration are {ALL_KEYS}"),
        ("ema.zzz=1", "ema.zzz is not a key; the keys of ema are half_life_images, rampup"),
        (
            "penalties.0.zzz=1",
            "penalties.0.zzz is not a key; the keys of penalties.0 are kind, weight, every, mode, sigma",
        ),
        ("seed.x=1", "seed={x: 1} must be a whole number"),
        ("ema=64", "ema=64 is a section, not a value; its keys are half_life_images, rampup"),
        ("ema=null", "ema=null is a section, not a value; its keys are half_life_images, rampup"),
        ("penalties=[3]", "penalties.0=3 is a section, not a value; its keys are kind, weight, every, mode, sigma"),
        # Lists.
        ("penalties=3", "penalties=3 must be a list in brackets"),
        (
            "penalties.1.weight=3",
            "penalties.1.weight does not exist: penalties has item 0 only; give the whole list with penalties=[...]",
        ),
        (
            "penalties.x=3",
            "penalties.x does not exist: penalties has item 0 only; give the whole list with penalties=[...]",
        ),
        (
            "penalties=[]|penalties.0=3",
            "penalties.0 does not exist: penalties is empty; give the whole list with penalties=[...]",
        ),
        (
            "penalties=[1, 2]|penalties.2=3",
            "penalties.2 does not exist: penalties has items 0 to 1 only; give the whole list with penalties=[...]",
        ),
        (
            "penalties=[{weight: 1}]",
            "penalties.0.kind is missing: which gradient is held small, and on which images",
        ),
        ("optimizer.generator.betas=[0]", "optimizer.generator.betas=[0] has too few items; item 1 is missing"),
        ("optimizer.generator.betas=[0, 0, 0]", "optimizer.generator.betas=[0, 0, 0] must have 2 items, not 3"),
        ("optimizer.generator.betas=0", "optimizer.generator.betas=0 must be a list in brackets"),
        # Types.
        ("seed=true", "seed=true must be a whole number"),
        ("seed=1.5", "seed=1.5 must be a whole number"),
        ("seed='1'", "seed=1 must be a whole number"),
        ("seed=1__0", "seed=1__0 must be a whole number"),
        ("total_images=.inf", "total_images=inf must be a whole number"),
        ("micro_batch_images=all", "micro_batch_images=all must be a whole number or null"),
        ("ema.rampup=true", "ema.rampup=true must be a number or null"),
        ("optimizer.generator.betas=[true, 0]", "optimizer.generator.betas.0=true must be a number"),
        ("data.mirror=yes", "data.mirror=yes must be true or false, did you mean true?"),
        ("data.mirror=0", "data.mirror=0 must be true or false, did you mean false?"),
        ("data.mirror=maybe", "data.mirror=maybe must be true or false"),
        ("run_dir=5", "run_dir=5 must be text or null; put it in quotes"),
        ("name=5", "name=5 must be text; put it in quotes"),
        # Ranges.
        ("optimizer.generator.learning_rate=0", "optimizer.generator.learning_rate=0 must be greater than 0"),
        ("optimizer.generator.learning_rate=.nan", "optimizer.generator.learning_rate=nan must be a finite number"),
        ("optimizer.generator.learning_rate=1e999", "optimizer.generator.learning_rate=inf must be a finite number"),
        ("optimizer.generator.betas=[0, 1]", "optimizer.generator.betas.1=1 must be less than 1"),
        ("optimizer.generator.betas=[-0.1, 0]", "optimizer.generator.betas.0=-0.1 must be at least 0"),
        ("penalties.0.weight=0", "penalties.0.weight=0 must be greater than 0"),
        ("penalties.0.every=0", "penalties.0.every=0 must be at least 1"),
        ("ema.half_life_images=0", "ema.half_life_images=0 must be at least 1"),
        ("checkpoint.keep=1", "checkpoint.keep=1 must be at least 2"),
        ("seed=-1", "seed=-1 must be at least 0"),
        ("data.max_bad_fraction=1", "data.max_bad_fraction=1 must be less than 1"),
        ("data.path=''", 'data.path="" must not be empty; write null for none'),
        (
            "name=../x",
            "name=../x may hold letters, digits, '_', '-' and '.' only, and must not begin with '-' or '.'",
        ),
        # Choices.
        ("precision=fp23", "precision=fp23 must be auto, fp32 or bf16, did you mean 'fp32'?"),
        ("precision=null", "precision=null must be auto, fp32 or bf16"),
        (
            "objective.loss=hindge",
            "objective.loss=hindge must be non_saturating, hinge, wasserstein, least_squares or relativistic, "
            "did you mean 'hinge'?",
        ),
        (
            "penalties.0.kind=wgangp",
            "penalties.0.kind=wgangp must be r1, r2, wgan_gp, wgan_lp or zero_centered, did you mean 'wgan_gp'?",
        ),
        (
            "parallel.engine=dp",
            "parallel.engine=dp must be auto, single, flat, ddp, deepspeed or fsdp2, did you mean 'ddp'?",
        ),
        ("generator.architecture=unet", "generator.architecture=unet must be dcgan"),
        ("data.resolution=100", "data.resolution=100 must be 32, 64 or 128, did you mean 128?"),
        ("data.resolution=big", "data.resolution=big must be 32, 64 or 128"),
        ("parallel.stage=7", "parallel.stage=7 must be 0, 1, 2 or 3, did you mean 3?"),
        ("parallel.stage=two", "parallel.stage=two must be 0, 1, 2 or 3"),
        ("data.channels=true", "data.channels=true must be 1 or 3"),
        # Rules between keys.
        ("micro_batch_images=24", "micro_batch_images=24 must divide batch_images=32; nearest: 16 or 32"),
        (
            "micro_batch_images=24|batch_images=100",
            "micro_batch_images=24 must divide batch_images=100; nearest: 20 or 25",
        ),
        ("micro_batch_images=300", "micro_batch_images=300 must divide batch_images=32; nearest: 32"),
        ("total_images=31", "total_images=31 must be at least batch_images=32"),
        ("data.num_classes=3", "data.num_classes=3 needs data.labels=true; set that, or data.num_classes=null"),
        ("generator.channels=200", "generator.channels=200 must be at most generator.max_channels=96"),
        ("discriminator.max_channels=8", "discriminator.channels=24 must be at most discriminator.max_channels=8"),
        (
            "penalties=[{kind: r1, weight: 1}, {kind: r2, weight: 1}, {kind: r1, weight: 2}]",
            "penalties.2.kind=r1 is also the kind of penalties.0; list every kind once",
        ),
        # The form of an override.
        ("digits", "'digits' is not an override; write key=value, e.g. batch_images=64"),
        ("=3", "'=3' is not an override; write key=value, e.g. batch_images=64"),
        ("data.=3", "'data.=3' is not an override; write key=value, e.g. batch_images=64"),
        ("ema={rampup: 1, rampup: 2}", "ema: rampup is given twice; remove one"),
        ("seed=!!int 3", "seed: the tag !!int is not allowed; write the plain value"),
        ("ema={[a]: 1}", "ema: a key must be a name, not a list or a mapping"),
        (
            "data.path=*a",
            "data.path: not valid YAML: the alias *a is not allowed, write the value out; "
            "put text with special characters in quotes",
        ),
        (
            "penalties=[",
            "penalties: not valid YAML: while parsing a flow node, expected the node content, but found "
            "'<stream end>'; put text with special characters in quotes",
        ),
        (
            "data.path=@x",
            "data.path: not valid YAML: while scanning for the next token, found character '@' that cannot start "
            "any token; put text with special characters in quotes",
        ),
        (
            "data.path=a\x00b",
            "data.path: not valid YAML: the character '\\x00' is not allowed; "
            "put text with special characters in quotes",
        ),
        (
            "seed=" + "[" * 1000,
            "seed: not valid YAML: nested too deeply; put text with special characters in quotes",
        ),
    ],
)
def test_a_bad_override_is_one_line(overrides: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("digits", overrides=overrides.split("|"))
    assert str(caught.value) == f"command line: {message}"


def test_a_long_value_is_cut() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("digits", overrides=["seed=" + "x" * 500])
    assert str(caught.value) == f"command line: seed={'x' * 57}... must be a whole number"


def test_every_problem_is_listed_in_order() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("digits", overrides=["zzz=1", "seed=x", "ema.zzz=1"])
    assert [line.split("=")[0].split()[2] for line in str(caught.value).splitlines()] == ["zzz", "seed", "ema.zzz"]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("preset: digits\n\nbatch_images: 0\n", 3, "batch_images=0 must be at least 1"),
        ("preset: digits\npenalties:\n  - kind: r1\n    weight: 0\n", 4, "penalties.0.weight=0 must be greater than 0"),
        (
            "preset: digits\nmicro_batch_images: 24\n",
            2,
            "micro_batch_images=24 must divide batch_images=32; nearest: 16 or 32",
        ),
        (
            "preset: digits\ndata.mirror: true\n",
            2,
            "data.mirror is not a key in YAML; indent 'mirror' below the section 'data'",
        ),
        ("preset: digits\nema:\n", 2, "ema=null is a section, not a value; its keys are half_life_images, rampup"),
        ("preset: digits\nseed: 1\nseed: 2\n", 3, "seed is given twice, first on line 2; remove one"),
        (
            "preset: digits\nema:\n  rampup: 1\n  rampup: 2\n",
            4,
            "ema.rampup is given twice, first on line 3; remove one",
        ),
        ("preset: digts\n", 1, "unknown preset 'digts', did you mean 'digits'?"),
        ("preset: [digits]\n", 1, "preset=[digits] must be the name of a preset"),
        (
            "seed: 1\ntotal_images: 9\nbatch_images: 9\ndata:\n  channels: 1\n",
            4,
            "data.resolution is missing: height and width of the images, in pixels",
        ),
        (
            "total_images: 9\ndata: {channels: 1, resolution: 32}\n",
            None,
            "batch_images is missing: images per update, over all processes",
        ),
        ("- 1\n", 1, MAPPING),
        ("hello\n", 1, MAPPING),
        ("# nothing\n", 1, "the file is empty; write for example 'batch_images: 64'"),
        ("seed: 1\n\tema: 2\n", 2, f"{NEXT_TOKEN} '\\t' that cannot start any token"),
        ("seed: &a 1\ntotal_images: *a\n", 2, "not valid YAML: the alias *a is not allowed, write the value out"),
        (
            "seed: 1\n---\nseed: 2\n",
            2,
            "not valid YAML: expected a single document in the stream, but found another document",
        ),
        (
            "seed: !!python/object:os.system 1\n" + COMPLETE,
            1,
            "the tag !!python/object:os.system is not allowed; write the plain value",
        ),
        ("seed: \x07\n", None, "not valid YAML: the character '\\x07' is not allowed"),
        ("seed: " + "[" * 1000, None, "not valid YAML: nested too deeply"),
    ],
)
def test_a_bad_file_is_named_with_its_line(text: str, line: int | None, message: str, tmp_path: Path) -> None:
    file = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(None, config_file=file)
    assert str(caught.value) == (f"{file}:{line}: {message}" if line else f"{file}: {message}")


def test_a_penalty_mode_that_cannot_compute_its_penalty_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("digits", overrides=["penalties=[{kind: wgan_gp, weight: 1, mode: approximate}]"])
    rule = "estimates |gradient|^2, of which wgan_gp is no function; use double or dual"
    assert str(caught.value) == f"command line: penalties.0.mode=approximate {rule}"


def test_a_rule_between_a_preset_and_an_override_blames_the_override(tmp_path: Path) -> None:
    file = write(tmp_path, "preset: digits\nmicro_batch_images: 32\n")
    with pytest.raises(ConfigError) as caught:
        load_config(None, config_file=file, overrides=["batch_images=100"])
    assert str(caught.value) == "command line: micro_batch_images=32 must divide batch_images=100; nearest: 25 or 50"


def test_an_override_takes_the_blame_over_from_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, "preset: digits\npenalties:\n  - {kind: r1, weight: 0}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(None, config_file=file, overrides=["penalties=[{kind: r1, weight: 0, every: 0}]"])
    assert str(caught.value).splitlines() == [
        "command line: penalties.0.weight=0 must be greater than 0",
        "command line: penalties.0.every=0 must be at least 1",
    ]


def test_two_presets_contradict(tmp_path: Path) -> None:
    file = write(tmp_path, "seed: 1\npreset: digits\n")
    with pytest.raises(ConfigError) as caught:
        load_config("dcgan-32", config_file=file)
    assert str(caught.value) == (
        f"{file}:2: preset=digits contradicts 'dcgan-32' on the command line; keep one of the two"
    )


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    write(tmp_path, COMPLETE)
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"name: caf\xe9\n")
    expected = {
        tmp_path / "mina.yaml": f"{tmp_path / 'mina.yaml'}: no such file, did you mean '{tmp_path / 'mine.yaml'}'?",
        tmp_path: f"{tmp_path}: is a folder; give a YAML file, e.g. {tmp_path / 'config.yaml'}",
        latin: f"{latin}: is not UTF-8 text: invalid continuation byte at byte 9",
        latin / "x": f"{latin / 'x'}: cannot be read: Not a directory",
    }
    for file, message in expected.items():
        with pytest.raises(ConfigError) as caught:
            load_config(None, config_file=file)
        assert str(caught.value) == message


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        ("digts", "unknown preset 'digts', did you mean 'digits'?"),
        ("zzz", f"unknown preset 'zzz'; the presets are {', '.join(preset_names())}"),
        ("my.yaml", "unknown preset 'my.yaml'; to read a file, write --config my.yaml"),
        ("../digits", "unknown preset '../digits', did you mean 'digits'?"),
        (None, f"no preset was given; give one of {', '.join(preset_names())}, or --config FILE"),
    ],
)
def test_a_preset_that_is_not_there(preset: str | None, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(preset)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "penalties=[{kind: r1, weight: 1, sigma: 5}]",
            "penalties.0.sigma=5.0 is not read by penalties.0.mode=double; leave it out, or use the mode approximate",
        ),
        (
            "discriminator.spectral_norm_iterations=9",
            "discriminator.spectral_norm_iterations=9 needs discriminator.spectral_norm=true; "
            "set that, or leave it out",
        ),
        ("generator.channels=100000", "generator.channels=100000 must be at most 65,536"),
    ],
)
def test_what_would_do_nothing_or_too_much_is_refused(override: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("digits", overrides=[override])
    assert f"command line: {said}" in str(caught.value).splitlines()
