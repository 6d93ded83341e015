"""docs/configuration.md: every key, in the words of `--help`."""

import re

from greedypipe.launch.config.help import describe_keys

INTRODUCTION = """<!-- Written by `make book` from the configuration's own descriptions: do not edit. -->
# Configuration

A run is described by a YAML file and overrides on the command line; `greedypipe train --help` prints the list below.

```yaml
data: {name: digits, batch_size: 64}
model: {name: vgg8b, width: 0.25}
partition: {blocks: 4}
training: {epochs: 15}
```

* A file has sections with keys; what it leaves out keeps its default.
* An override is `section.key=value`, and its value is YAML: `optimizer.lr=0.05`, `partition.boundaries=[conv3,conv5]`,
  `data.drop_last=true`. Overrides win over the file. Quote values with brackets or spaces for your shell.
* Everything that is wrong is reported before anything starts, one line each: file or command line, key, what it got, what is
  allowed, and the nearest known key. The exit code is 2.
* A key that has no effect with the other keys must keep its default, so that a typo in a choice cannot pass unnoticed; one
  that an override makes idle is dropped, as is one in the `config.yaml` of a run whose defaults were other ones.
* A run writes its resolved configuration to `config.yaml` in its folder, and `--print-config` prints it without running.
"""
SECTION = re.compile(r"^(\w+): (.*)\n", re.MULTILINE)


def configuration_page() -> str:
    """The whole page: a heading per section, and its keys as `--help` prints them."""
    _, *pieces = SECTION.split(describe_keys())
    every = list(zip(pieces[::3], pieces[1::3], pieces[2::3], strict=True))
    contents = ", ".join(f"[{name}](#{name})" for name, _, _ in every)
    return "\n".join([INTRODUCTION, f"Sections: {contents}\n", *(_section(*one) for one in every)])


def _section(name: str, meaning: str, keys: str) -> str:
    plain = "\n".join(line.removeprefix("  ").rstrip() for line in keys.strip("\n").splitlines())
    return f"## {name}\n\n{meaning}\n\n```\n{plain}\n```\n"
