"""Who may import whom, and how large anything may grow, read from the source."""

import ast
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import structure
from tests.structure import PACKAGES, ROOT, Import, Source, sources

FILES = sources()
OURS = {*PACKAGES, "benchmarks", "tests", "configs"}
BELOW = {
    "pipeline": {"pipeline"},
    "buffers": {"buffers"},
    "workers": {"workers", "pipeline", "buffers"},
    "launch": {"launch", "workers", "pipeline", "buffers"},
}
OPTIONAL = {"ray", "wandb", "torchvision", "sklearn", "matplotlib"}
"""Never imported at the top of a file: a run that does not ask for them must not need them."""
COMMANDS = {"run", "train", "plan", "ray_run", "export", "evaluate", "status", "report"}
FLOORS: list[set[str]] = [
    {"config"},
    {"planning"},
    {"checkpoints", "reporting"},
    {"recovery"},
    {"process"},
    {"on_host", "on_ray"},
    {"api"},
    COMMANDS,
]
"""Of launch/, from the ground up: a room imports rooms of lower floors and itself, never a neighbour."""
EVERYWHERE = {"exit_codes"}
"""Files of launch/ that import nothing and may be imported by all."""
TALKS_TO_PROCESSES = {
    "workers.links.connect",
    "workers.links.device_link",
    "workers.links.gloo",
    "workers.links.gloo_group",
    "workers.links.ipc",
    "workers.links.meeting",
    "workers.links.nccl",
    "workers.links.patience",
    "workers.links.place",
    "workers.links.proof",
    "workers.links.shared_memory",
    "workers.links.trial",
    "workers.replicas",
    "workers.telemetry.board",
    "launch.run",
}
TALKING_ROOMS = ("launch.process.", "launch.recovery.", "launch.on_host.", "launch.on_ray.")


def named(*names: str) -> list[Source]:
    return [source for source in FILES if source.name.startswith(names)]


def wrong(files: list[Source], is_wrong: Callable[[Source, Import], bool]) -> list[str]:
    return [f"{source.name} imports {one.module}" for source in files for one in source.imports if is_wrong(source, one)]


def reaches_up(source: Source, one: Import) -> bool:
    return one.module.partition(".")[0] in OURS - BELOW[source.name.partition(".")[0]]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_lies_below_it(package: str) -> None:
    assert named(package)
    assert wrong(named(package), reaches_up) == []


def test_a_planted_import_is_found(tmp_path: Path) -> None:
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "planted.py").write_text("def f():\n    from greedypipe.workers.stage import StageWorker\n")
    (planted,) = sources(tmp_path)
    assert wrong([planted], reaches_up) == ["pipeline.planted imports workers.stage"]


def test_nothing_imports_a_top_level_module_that_only_a_checkout_has() -> None:
    assert [
        f"{path}: {line}"
        for path in [*ROOT.glob("*/**/*.py")]
        if path.relative_to(ROOT).parts[0] in OURS
        for line in path.read_text().splitlines()
        if re.match(rf"\s*(from|import) ({'|'.join(PACKAGES)})\b", line)
    ] == []


def floor(module: str) -> tuple[str, int]:
    room = module.split(".")[1]
    return room, next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def test_a_room_of_launch_imports_only_lower_floors() -> None:
    def climbs(source: Source, one: Import) -> bool:
        if not one.module.startswith("launch.") or one.module.split(".")[-1] in EVERYWHERE:
            return False
        (own_room, own_floor), (room, its_floor) = floor(source.name), floor(one.module)
        return room != own_room and its_floor >= own_floor

    rooms = [source for source in named("launch.") if source.name != "launch.bootstrap"]
    assert wrong(rooms, climbs) == []


def test_nobody_imports_a_command() -> None:
    assert wrong(FILES, lambda source, one: one.module in {f"launch.{command}" for command in COMMANDS}) == []


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_a_command_that_is_run_as_a_file_begins_when_all_of_it_is_defined(command: str) -> None:
    assert (ROOT / "launch" / f"{command}.py").read_text().endswith('\n\nif __name__ == "__main__":\n    main()\n')


def test_a_method_imports_what_methods_are_made_of_and_no_other_place_names_one() -> None:
    methods = named("pipeline.methods.")
    parts = (
        "pipeline.method",
        "pipeline.site",
        "pipeline.heads",
        "pipeline.batch",
        "pipeline.task",
        "pipeline.networks",
        "pipeline.feedback",
        "pipeline.sample",
        "pipeline.kept",
        "pipeline.trunk",
        "pipeline.ends",
        "pipeline.losses",
        "pipeline.rebuilds_image",
        "pipeline.pretext_loss",
        "pipeline.precision",
        "pipeline.randomness",
        "pipeline.plugins",
        "pipeline.own_code",
        "torch",
        "pydantic",
    )
    free = ("collections", "typing", "dataclasses", "math", "itertools", "functools", "copy")
    concrete = {source.name for source in methods}
    made_of = (*parts, *free, "pipeline.methods.")
    assert wrong(methods, lambda source, one: not one.module.startswith(made_of)) == []
    others = [source for source in FILES if source.name not in {"pipeline.methods", *concrete}]
    assert wrong(others, lambda source, one: one.module in concrete) == []


def test_the_oracle_is_imported_by_nobody_whom_it_judges() -> None:
    assert wrong(FILES, lambda source, one: one.module == "pipeline.reference") == []


def test_telemetry_and_links_know_neither_the_loop_nor_its_inbox() -> None:
    users = {"workers.stage", "workers.inbox", "workers.feed", "workers.evaluation", "workers.replicas", "workers.around"}
    for room, other in (("workers.telemetry.", "workers.links"), ("workers.links.", "workers.telemetry")):
        assert named(room)
        assert wrong(named(room), lambda source, one: one.module in users or one.module.startswith(other)) == []  # noqa: B023


def test_torch_distributed_is_used_only_where_processes_meet() -> None:
    files = [source for source in FILES if source.name not in TALKS_TO_PROCESSES]
    files = [source for source in files if not source.name.startswith(TALKING_ROOMS)]
    assert wrong(files, lambda source, one: one.module.startswith("torch.distributed")) == []


def test_board_topics_and_activities_have_names() -> None:
    found = []
    for source in FILES:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                is_text = isinstance(node.args[0], ast.JoinedStr | ast.Constant)
                if node.func.attr in ("post", "posted", "now", "is_complete", "all_rows", "share") and is_text:
                    found.append(f"{source.name}:{node.lineno}: {ast.unparse(node)[:60]}")
    assert found == []


@pytest.mark.parametrize("package", PACKAGES)
def test_optional_packages_are_imported_only_where_they_are_used(package: str) -> None:
    def is_eager(source: Source, one: Import) -> bool:
        # What needs Ray lies in a room of its own, which nothing imports before it is known to be there.
        name = one.module.partition(".")[0]
        return name in OPTIONAL and not one.inside_function and not (name == "ray" and "on_ray" in source.name)

    assert wrong(named(package), is_eager) == []


def test_the_room_that_needs_ray_is_entered_only_where_it_is_used() -> None:
    outside = [source for source in FILES if "on_ray" not in source.name]
    entering = [(source.name, one) for source in outside for one in source.imports if "on_ray" in one.module]
    assert entering == [("launch.ray_run", Import("launch.on_ray.driver", inside_function=True))]


def test_no_file_in_launch_shadows_a_module() -> None:
    names = {path.stem for path in (ROOT / "launch").iterdir()} - {"__init__"}
    assert not names & (sys.stdlib_module_names | OPTIONAL | {"torch", "yaml", "rich", "pydantic", "numpy"})


def test_files_import_each_other_in_no_circle() -> None:
    assert structure.cycles(FILES) == []


def test_no_file_function_or_parameter_list_outgrows_its_reader() -> None:
    assert structure.long_files(FILES) == []
    assert structure.long_functions(FILES) == []
    assert structure.long_parameter_lists(FILES) == []


def test_every_package_is_installed() -> None:
    folders = {path.parent for package in PACKAGES for path in (ROOT / package).rglob("__init__.py")}
    found = {".".join(("greedypipe", *folder.relative_to(ROOT).parts)) for folder in folders}
    text = (ROOT / "setup.cfg").read_text().partition("packages =\n")[2].partition("\npython_requires")[0]
    assert {line.strip() for line in text.splitlines()} == {"greedypipe", *found}
