"""The guards behind SECURITY.md: how each is taken out, and the test of its promise, which must then fail."""

from __future__ import annotations

from tests.support.changed_sources import Change

_SAFE_LOAD = 'return torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive(path))'
_UNSAFE_LOAD = 'torch.load(path, map_location="cpu", weights_only=False)'


def _guard(name: str, file: str, old: str, new: str, *tests: str, time_limit_s: int = 300) -> Change:
    return Change(name, "guard", file, old, new, "", tuple(f"tests/{test}" for test in tests), time_limit_s)


PICKLES = "reliability/test_hostile_pickles.py::test_none_is_executed"
DAMAGED = "reliability/test_damaged_files.py"
COMPILER = "optim/fused/test_compiler.py"
GUARDS: tuple[Change, ...] = (
    _guard(
        "names of a config are not imported",
        "catalog/registry.py",
        "    if not isinstance(name, str):\n        return None\n    if name in BUILT_IN:",
        '    if "." in name:\n        import_module(name.rpartition(".")[0])\n    if name in BUILT_IN:',
        "reliability/test_hostile_names.py::test_no_name_is_imported_or_called",
    ),
    _guard(
        "explain calls no node but the model's",
        "cli/own_nodes.py",
        'return Uncalled(value["_target_"])',
        'return import_module("hydra.utils").instantiate(value)',
        "reliability/test_hostile_configs.py::test_explain_runs_nothing_but_the_model",
    ),
    _guard(
        "regexes have a limit of time",
        "groups/patterns.py",
        "timeout=self._left_s",
        "timeout=None",
        "groups/test_patterns.py::test_one_that_takes_too_long_is_refused_by_the_name_of_its_rule",
        time_limit_s=60,
    ),
    _guard(
        "the folder of kernels is private",
        "optim/fused/compiler.py",
        "if found.st_uid != os.getuid() or found.st_mode & 0o077:",
        "if found.st_uid != os.getuid():",
        f"{COMPILER}::test_a_folder_that_others_may_enter_is_refused",
    ),
    _guard(
        "a kernel has the hash of its name",
        "optim/fused/compiler.py",
        "if path.name == _library_name(key, content):",
        "if content:",
        f"{COMPILER}::test_a_damaged_file_is_compiled_again",
    ),
    _guard(
        "checksums before inspect",
        "core/checkpoint_file.py",
        "            _check_checksums(archive, how_to_skip)\n",
        "",
        f"{DAMAGED}::test_a_flipped_bit_is_refused_by_inspect_or_changes_nothing",
    ),
    _guard(
        "checksums before a resume",
        "callbacks/verify_checkpoint.py",
        "        check_file(file, how_to_skip=_HOW_TO_SKIP)\n",
        "",
        f"{DAMAGED}::test_a_flipped_bit_is_refused_by_resume_or_changes_nothing",
    ),
    _guard(
        "pipes and devices are not opened",
        "core/checkpoint_file.py",
        "if not stat.S_ISREG(status.st_mode):",
        "if stat.S_ISSOCK(status.st_mode):",
        f"{DAMAGED}::test_what_is_no_checkpoint_file_is_refused_at_once",
        time_limit_s=60,
    ),
    _guard(
        "types in a checkpoint",
        "build/saved_training.py",
        "                check_state_dict(state_dict)\n",
        "                pass\n",
        f"{DAMAGED}::test_wrong_contents_are_refused",
    ),
    _guard(
        "types in the state of the stages",
        "callbacks/saved_stages.py",
        "    if not is_right:\n",
        "    if not is_right and not path:\n",
        "reliability/test_fuzz_checkpoints.py::test_wrong_state_of_stages_is_refused",
    ),
    _guard(
        "pickles under inspect",
        "cli/checkpoint_reader.py",
        _SAFE_LOAD,
        f"return {_UNSAFE_LOAD}",
        f"{PICKLES}[inspect]",
    ),
    _guard(
        "no second try with weights_only=False",
        "cli/checkpoint_reader.py",
        _SAFE_LOAD,
        f"try:\n            {_SAFE_LOAD}\n        except Exception:\n            return {_UNSAFE_LOAD}",
        f"{PICKLES}[inspect]",
    ),
    _guard(
        "pickles under the recipe",
        "../recipes/checkpoints.py",
        "weights_only=True",
        "weights_only=False",
        f"{PICKLES}[recipe]",
    ),
    _guard(
        "nodes in a checkpoint are not called",
        "build/read_factory.py",
        "    if isinstance(given, Mapping):\n        hint",
        "    if isinstance(given, Mapping):\n"
        '        return __import__("hydra.utils").utils.instantiate(given)\n        hint',
        "reliability/test_hostile_pickles.py::test_no_target_in_a_checkpoint_is_followed",
    ),
    _guard(
        "class paths in a checkpoint are compared only",
        "build/read_factory.py",
        '    if given["class_path"] != ',
        '    __import__(given["class_path"].rpartition(".")[0])\n    if given["class_path"] != ',
        "reliability/test_hostile_pickles.py::test_no_target_in_a_checkpoint_is_followed",
    ),
    _guard(
        "control characters of a file",
        "core/printable.py",
        'return "".join(_REPLACEMENT if unicodedata.category(it) in _HIDDEN else it for it in text)',
        "return text",
        f"{DAMAGED}::test_no_control_character_of_a_file_reaches_the_terminal",
    ),
    _guard(
        "control characters of a config",
        "core/printable.py",
        "    if message.isprintable():\n        return message\n",
        "    return message\n",
        "reliability/test_fuzz.py::test_two_hundred_cases_are_built_or_refused",
    ),
    _guard(
        "depth of a config",
        "core/config_values.py",
        "_MAX_DEPTH = 50",
        "_MAX_DEPTH = 10**9",
        "core/test_junk_values.py::test_values_that_no_message_or_memory_holds_are_refused",
    ),
    _guard(
        "group names stay in the logger's folder",
        "telemetry/group_runs.py",
        '_NOT_IN_FOLDERS.sub("_", group)',
        "group",
        "callbacks/test_monitor_overlay.py::test_a_folder_has_no_character_that_means_something_to_a_file_system",
    ),
    _guard(
        "temporary files of failed writes",
        "../recipes/checkpoints.py",
        "            temporary.unlink(missing_ok=True)\n            raise",
        "            raise",
        "recipes/test_checkpoints.py::test_nothing_is_left_of_a_write_that_fails",
    ),
    _guard(
        "temporary files of killed processes",
        "../recipes/checkpoints.py",
        "            _remove_leftovers(target.parent)\n",
        "",
        "recipes/test_checkpoints.py::test_the_next_write_removes_what_a_killed_process_has_left",
    ),
)
