"""The text of --help: every key with its default and one line."""

from typing import Any, Literal, get_args, get_origin

import yaml

from greedypipe.launch.config.sections import RunConfig, all_keys


def describe_keys() -> str:
    """Every key with its default and one line, for --help."""
    lines, last = [], ""
    for key, field in all_keys().items():
        section = key.partition(".")[0]
        if section != last:
            lines += ["", f"{section}: {RunConfig.model_fields[section].annotation.__doc__.splitlines()[0]}"]
            last = section
        default = yaml.safe_dump(field.default, default_flow_style=True).splitlines()[0]
        if isinstance(field.default, tuple):
            default = str(list(field.default))
        lines.append(f"  {key}={default}".ljust(44) + f" {field.description}{_choices(field)}")
    return "\n".join(lines)


def _choices(field: Any) -> str:
    """The allowed values, where the description does not name them all."""
    choices = [str(choice) for choice in get_args(field.annotation)] if get_origin(field.annotation) is Literal else []
    return "" if all(choice in field.description for choice in choices) else f" ({' | '.join(choices)})"
