"""conf/optimizer and conf/scheduler are what the registries say."""

from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from lightning_optim import OptimizerFactory, SchedulerFactory, list_optimizers, optimizer_info
from lightning_optim.schedule.catalog import SCHEDULES

# The generator and conf/ beside it are of the checkout; a wheel holds neither there.
generate = pytest.importorskip("lightning_optim._hydra.generate")
CONFIGS = {str(path): content for path, content in generate.configs()}


def settings(text):
    """What Hydra composes of a file, without its defaults list."""
    config = OmegaConf.create(text)
    config.pop("defaults", None)
    return config


@pytest.mark.parametrize("path", CONFIGS)
def test_a_file_is_what_the_registry_says(path):
    assert (generate.CONF / path).read_text(encoding="utf-8") == CONFIGS[path]


@pytest.mark.parametrize("folder", ["optimizer", "scheduler"])
def test_there_are_no_other_files(folder):
    found = {str(path.relative_to(generate.CONF)) for path in (generate.CONF / folder).glob("*")}
    presets = {str(Path("optimizer", "groups"))} if folder == "optimizer" else set()
    assert found == {path for path in CONFIGS if Path(path).parts[0] == folder} | presets


def test_the_stub_is_what_the_catalog_says():
    assert generate.STUB.read_text(encoding="utf-8") == generate.stub()


def test_every_name_that_a_config_can_hold_has_its_file():
    optimizers = {
        str(Path("optimizer", f"{name}.yaml")) for name in list_optimizers() if optimizer_info(name).is_built_in
    }
    schedulers = {str(Path("scheduler", f"{name}.yaml")) for name, info in SCHEDULES.items() if not info.function}
    assert set(CONFIGS) == optimizers | schedulers | {str(Path("optimizer", f"{name}.yaml")) for name in generate.READY}


@pytest.mark.parametrize("path", CONFIGS)
def test_a_file_gives_a_factory(path):
    factory = instantiate(settings(CONFIGS[path]))
    assert type(factory) is (OptimizerFactory if path.startswith("optimizer") else SchedulerFactory)
    name = Path(path).stem
    assert factory.name == (generate.READY[name][0] if name in generate.READY else name)


@pytest.mark.parametrize("name", list_optimizers())
def test_an_optimizer_s_file_holds_every_default(name):
    config = settings(CONFIGS[str(Path("optimizer", f"{name}.yaml"))])
    given = {key: config.pop(key) for key in ("_target_", "_partial_", "name", "implementation", "groups")}
    factory = {"_target_": "lightning_optim.OptimizerFactory", "_partial_": False}
    assert given == {**factory, "name": name, "implementation": "auto", "groups": {}}
    spec = optimizer_info(name).hyperparameters
    assert {key: spec[key].check(OmegaConf.to_object(config)[key], key) for key in config} == optimizer_info(
        name
    ).defaults


@pytest.mark.parametrize("name", [name for name, info in SCHEDULES.items() if not info.function])
def test_a_schedule_s_file_holds_every_argument(name):
    config = settings(CONFIGS[str(Path("scheduler", f"{name}.yaml"))])
    common = {"_target_", "_partial_", "name", "interval", "warmup_steps", "total_steps"}
    blocks = {"schedulers"} if SCHEDULES[name].blocks else set()
    assert set(config) == common | blocks | set(SCHEDULES[name].hyperparameters)
    assert config["_partial_"] is False
    assert config["total_steps"] is None


@pytest.mark.parametrize(
    "path", sorted((generate.CONF / "optimizer" / "groups").glob("*.yaml")), ids=lambda path: path.stem
)
def test_a_preset_of_groups_is_taken_by_a_factory(path):
    OptimizerFactory("adamw", groups=OmegaConf.load(path))
