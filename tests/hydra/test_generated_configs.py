"""The files in conf/optimizer and conf/scheduler, and the type stub, are those generated from the catalogs."""

from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from lightning_optim import OptimizerFactory, SchedulerFactory, list_optimizers, optimizer_info
from lightning_optim.catalog.ready_configs import READY_CONFIGS
from lightning_optim.schedule.catalog import SCHEDULES

# The generator, and conf/ beside the package, are in the checkout only, not in a wheel.
generate = pytest.importorskip("lightning_optim._hydra.generate")
CONFIGS = {str(path): content for path, content in generate.generate_configs()}


def parse(text):
    """The config in a file, without its defaults list."""
    config = OmegaConf.create(text)
    config.pop("defaults", None)
    return config


def optimizer_config(name):
    return parse(CONFIGS[str(Path("optimizer", f"{name}.yaml"))])


def scheduler_config(name):
    return parse(CONFIGS[str(Path("scheduler", f"{name}.yaml"))])


def test_every_file_is_up_to_date():
    """Else run `python -m lightning_optim._hydra.generate`."""
    outdated = [path for path, text in CONFIGS.items() if (generate.CONF / path).read_text(encoding="utf-8") != text]
    assert outdated == []


def test_the_stub_is_up_to_date():
    assert generate.STUB.read_text(encoding="utf-8") == generate.stub()


@pytest.mark.parametrize("folder", ["optimizer", "scheduler"])
def test_there_are_no_other_files(folder):
    found = {str(path.relative_to(generate.CONF)) for path in (generate.CONF / folder).glob("*")}
    presets = {str(Path("optimizer", "groups"))} if folder == "optimizer" else set()
    assert found == {path for path in CONFIGS if Path(path).parts[0] == folder} | presets


def test_every_name_that_a_config_can_hold_has_its_file():
    optimizers = {name for name in list_optimizers() if optimizer_info(name).is_built_in} | set(READY_CONFIGS)
    schedulers = {name for name, info in SCHEDULES.items() if not info.takes_function}
    expected = {str(Path("optimizer", f"{name}.yaml")) for name in optimizers}
    expected |= {str(Path("scheduler", f"{name}.yaml")) for name in schedulers}
    assert set(CONFIGS) == expected


def test_every_file_gives_a_factory_of_its_name():
    for path, text in CONFIGS.items():
        factory = instantiate(parse(text))
        assert type(factory) is (OptimizerFactory if path.startswith("optimizer") else SchedulerFactory), path
        name = Path(path).stem
        ready = READY_CONFIGS.get(name)
        assert factory.name == (ready.algorithm if ready else name), path


def test_an_optimizers_file_has_every_default():
    for name in list_optimizers():
        config, info = optimizer_config(name), optimizer_info(name)
        common = {key: config.pop(key) for key in ("_target_", "_partial_", "name", "implementation", "groups")}
        assert common == {
            "_target_": "lightning_optim.OptimizerFactory",
            "_partial_": False,
            "name": name,
            "implementation": "auto",
            "groups": {},
        }
        values = {
            key: info.hyperparameters[key].check(value, key) for key, value in OmegaConf.to_object(config).items()
        }
        assert values == info.defaults, name


def test_a_schedules_file_has_every_argument():
    for name, info in SCHEDULES.items():
        if info.takes_function:
            continue
        config = scheduler_config(name)
        lengths = {"interval", "warmup_steps", "warmup_fraction", "warmup_epochs", "total_steps"}
        common = {"_target_", "_partial_", "name", "on_resume", "also", *lengths}
        blocks = {"schedulers"} if info.takes_blocks else set()
        assert set(config) == common | blocks | set(info.hyperparameters), name
        assert config["_partial_"] is False, name
        assert config["total_steps"] is None, name


@pytest.mark.parametrize(
    "path", sorted((generate.CONF / "optimizer" / "groups").glob("*.yaml")), ids=lambda path: path.stem
)
def test_a_factory_accepts_each_preset_of_rules(path):
    preset = OmegaConf.to_container(OmegaConf.load(path))
    assert OptimizerFactory("adamw", groups=preset).groups == preset
