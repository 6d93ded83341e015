"""From a YAML file and overrides to a RunConfig, or to all that is wrong with them, one line each."""

import difflib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from greedypipe.launch.config.sections import RunConfig, all_keys

BUNDLED = Path(__file__).resolve().parents[2] / "configs"
DEFAULT_CONFIG = os.path.relpath(BUNDLED / "digits.yaml")
"""Bundled handwritten digits, four blocks."""


class ConfigError(ValueError):
    """Everything that is wrong with a configuration; `str` has one line per error."""

    def __init__(self, lines: Iterable[str]) -> None:
        super().__init__("\n".join(lines))


def load_config(path: str | None, overrides: Sequence[str]) -> RunConfig:
    """Reads a file (None: all defaults) and applies overrides of the form section.key=value, whose values are YAML.

    `digits.yaml` or `configs/digits.yaml` means the bundled file where the current folder has none of that name.

    Raises:
        ConfigError: File, keys, types, values or their combination are wrong.
    """
    tree = _read(Path(path)) if path else {}
    origins = Origins(path or "the defaults", overrides)
    errors = list(_apply(overrides, tree))
    try:
        config = RunConfig.model_validate(tree)
    except ValidationError as error:
        errors += [_line(details, origins) for details in error.errors()]
        raise ConfigError(errors) from None
    errors += _combinations(config, origins)
    if errors:
        raise ConfigError(errors)
    return config


def dump_config(config: RunConfig) -> str:
    """The resolved configuration as YAML; reading it gives an equal RunConfig."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


class Origins:
    """Where each key was set: on the command line or in the file."""

    def __init__(self, file: str, overrides: Sequence[str]) -> None:
        self._file = file
        self._overridden = [override.partition("=")[0] for override in overrides]

    def locate(self, key: str) -> str:
        """`key`, or the override that first set something in it if it is a section, after its origin."""
        for name in self._overridden:
            if name == key or name.startswith(f"{key}."):
                return f"command line: {name}"
        return f"{self._file}: {key}"


class _StrictLoader(yaml.SafeLoader):
    """Refuses duplicate keys, of which PyYAML silently keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _read(path: Path) -> dict[str, Any]:
    found = path
    if not path.is_file() and str(path.parent) in (".", BUNDLED.name):
        found = BUNDLED / path.name
    if not found.is_file():
        near = sorted(path.parent.glob("*.yaml")) or [
            Path(BUNDLED.name) / other.name for other in sorted(BUNDLED.glob("*.yaml"))
        ]
        raise ConfigError([f"{path}: no such file; there are {', '.join(map(str, near))}"])
    try:
        tree = yaml.load(found.read_text(), _StrictLoader)
    except yaml.YAMLError as error:
        raise ConfigError([f"{path}: {' '.join(str(error).split())}"]) from None
    if not isinstance(tree or {}, dict):
        raise ConfigError([f"{path}: got a {type(tree).__name__}, allowed: sections of keys"])
    return {section: keys if keys is not None else {} for section, keys in (tree or {}).items()}


def _apply(overrides: Sequence[str], tree: dict[str, Any]) -> Iterator[str]:
    for override in overrides:
        name, equals, text = override.partition("=")
        section, dot, key = name.partition(".")
        if not (equals and dot and key):
            yield f"command line: got {override!r}, allowed: section.key=value" + _did_you_mean(name)
            continue
        try:
            value = yaml.load(text, _StrictLoader)
        except yaml.YAMLError:
            yield f"command line: {name}: {text!r} is no YAML value"
            continue
        keys = tree.setdefault(section, {})
        if isinstance(keys, dict):
            keys[key] = value


def _line(details: Any, origins: Origins) -> str:
    where = origins.locate(".".join(str(part) for part in details["loc"][:2]))
    if details["type"] == "extra_forbidden":
        return f"{where}: unknown key" + _did_you_mean(where.rpartition(" ")[2])
    if details["type"] == "value_error":
        return f"{where}: {details['msg'].removeprefix('Value error, ')}"
    hint = "; put it in quotes" if details["type"] == "string_type" else ""
    allowed = _lower_first(details["msg"].removeprefix("Input should be "))
    return f"{where}: got {details['input']!r}, allowed: {allowed}{hint}"


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def _did_you_mean(key: str) -> str:
    keys = [*all_keys(), *RunConfig.model_fields]
    near = difflib.get_close_matches(key, keys, n=1, cutoff=0.5)
    bare = [known for known in keys if known.rpartition(".")[2] == key.rpartition(".")[2]]
    candidates = bare[:1] or near
    return f"; did you mean {candidates[0]}?" if candidates else "; --help lists all keys"


def _combinations(config: RunConfig, origins: Origins) -> Iterator[str]:
    yield from _keys_without_effect(config, origins)
    optimizer = config.optimizer
    if optimizer.schedule == "multistep" and not optimizer.milestones:
        yield "optimizer.schedule=multistep needs optimizer.milestones, e.g. [150, 225]"
    if optimizer.nesterov and not optimizer.momentum:
        yield "optimizer.nesterov=true needs optimizer.momentum above 0"
    if config.logging.trace_start != type(config.logging)().trace_start and not config.logging.trace_batches:
        yield "logging.trace_start has no effect without logging.trace_batches"
    for key in ("slow_factor", "slow_link_s"):
        if getattr(config.debug, key) != getattr(type(config.debug)(), key) and config.debug.slow_stage < 0:
            yield f"debug.{key} slows nothing without debug.slow_stage"


def _keys_without_effect(config: RunConfig, origins: Origins) -> Iterator[str]:
    """Keys that were set although another key's value makes them meaningless."""
    for name, field in all_keys().items():
        section_name, _, key = name.partition(".")
        section: BaseModel = getattr(config, section_name)
        condition = (field.json_schema_extra or {}).get("only_with", {})
        if getattr(section, key) == field.default:
            continue
        for other, wanted in condition.items():
            allowed = wanted if isinstance(wanted, tuple) else (wanted,)
            if getattr(section, other) not in allowed:
                yield (
                    f"{origins.locate(name)}={getattr(section, key)} has no effect with {section_name}.{other}="
                    f"{getattr(section, other)}; it needs {section_name}.{other}={' or '.join(map(str, allowed))}"
                )
