"""What people write into a configuration: each means what it looks like, or is refused in one line."""

from pathlib import Path
from typing import Any

import pytest

from greedypipe.launch.config.errors import ConfigError
from greedypipe.launch.config.loader import load_config

RIGHT = {
    "seed with leading zeros": (b"training: {seed: 0123}", "training.seed", 123),
    "batch size with a leading zero": (b"data: {batch_size: 064}", "data.batch_size", 64),
    "learning rate without a point": (b"optimizer: {lr: 1e-3}", "optimizer.lr", 0.001),
    "epochs with an exponent": (b"training: {epochs: 1e3}", "training.epochs", 1000),
    "a name that is a word for false": (b"run: {name: no}", "run.name", "no"),
    "a name that is a date": (b"run: {name: 2024-01-01}", "run.name", "2024-01-01"),
    "a truth value that is a word": (b"data: {drop_last: on}", "data.drop_last", True),
    "byte order mark and CRLF": (b"\xef\xbb\xbftraining:\r\n  epochs: 3\r\n", "training.epochs", 3),
    "UTF-16": ("training: {epochs: 3}".encode("utf-16"), "training.epochs", 3),
    "text in UTF-8": ("run: {name: größe}".encode(), "run.name", "größe"),
    "merged keys": (b"training: &t {epochs: 3}\nmodel: {<<: {depth: 2}, name: mlp}", "model.depth", 2),
    "merged keys that are overridden": (b"model: {<<: {depth: 2}, depth: 3, name: mlp}", "model.depth", 3),
    "comment": (b"training: {epochs: 3}  # short", "training.epochs", 3),
}
LAUGHS = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (98 + level, 98 + level, b",".join([b"*%c" % (97 + level)] * 9)) for level in range(9)
)
WRONG = {
    "sexagesimal": (b"training: {epochs: 1:30}", "training.epochs: got '1:30', allowed: a valid integer"),
    "a word for true": (b"training: {epochs: yes}", "training.epochs: got 'yes', allowed: a valid integer"),
    "true for a number": (b"training: {epochs: true}", "training.epochs: got true, allowed: a number"),
    "true among numbers": (b"placement: {replicas: [1, true]}", "placement.replicas: got true, allowed: a number"),
    "infinity": (b"optimizer: {lr: .inf}", "optimizer.lr: got inf, allowed: a finite number"),
    "not a number": (b"optimizer: {weight_decay: .nan}", "optimizer.weight_decay: got nan, allowed: "),
    "tab": (b"training:\n\tepochs: 3", "found character '\\t'"),
    "list as a key": (b"? [a, b]\n: 1", "got a sequence as a key, allowed: a name"),
    "number as a key": (b"1: 2", "got '1' as a key, allowed: a name"),
    "Latin-1": (b"# gr\xf6\xdfe\ntraining: {epochs: 3}", "unacceptable character"),
    "two documents": (b"training: {epochs: 3}\n---\ntraining: {epochs: 4}", "expected a single document"),
    "duplicate key": (b"training: {epochs: 3, epochs: 4}", "duplicate key 'epochs'"),
    "duplicate section": (b"training: {epochs: 3}\ntraining: {seed: 4}", "duplicate key 'training'"),
    "huge seed": (b"training: {seed: 99999999999999999999999}", "training.seed: got"),
    "billions of values": (LAUGHS, "more than 10,000 values"),
    "a list within itself": (b"run: {name: &a [*a]}", "more than 10,000 values"),
    "deep nesting": (b"[" * 5000, "nested too deeply"),
    "an object of Python": (b"run: !!python/object:os.system {}", "could not determine a constructor"),
    "line break in a name": (b'run: {name: "a\\nb"}', "run.name: got 'a\\nb', allowed: text without control characters"),
}
TOO_LARGE = (
    "faults.timeout_s=.inf",
    "faults.timeout_s=3000000",
    "faults.timeout_s=0.001",
    "optimizer.lr=.inf",
    "optimizer.weight_decay=.inf",
    "buffers.capacity=99999999999999999999",
    "link.slots=99999999999999999999",
    "placement.threads=2147483648",
    "training.epochs=99999999999999999999",
    "model.width=1e308",
    "data.loader_workers=99999",
    "debug.slow_link_s=.inf",
    "run.folder=a\0b",
    "run.folder=",
    "run.name=\udcff",
)


def load(content: bytes, tmp_path: Path) -> Any:
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    return load_config(str(path), [])


@pytest.mark.parametrize("case", RIGHT)
def test_a_value_means_what_it_looks_like(case: str, tmp_path: Path) -> None:
    content, key, value = RIGHT[case]
    section, name = key.split(".")
    assert getattr(getattr(load(content, tmp_path), section), name) == value


@pytest.mark.parametrize("case", WRONG)
def test_what_means_nothing_is_one_short_line_with_the_file(case: str, tmp_path: Path) -> None:
    content, complaint = WRONG[case]
    with pytest.raises(ConfigError) as caught:
        load(content, tmp_path)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{tmp_path / 'config.yaml'}: ") and complaint in line and len(line) < 400


@pytest.mark.parametrize("override", TOO_LARGE)
def test_a_value_that_no_run_can_use_is_one_line(override: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, [override])
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"command line: {override.partition('=')[0]}: got ")


def test_values_of_the_data_that_are_too_large_are_one_line() -> None:
    for override in ("data.classes=2147483648", "data.samples=99999999999999999999"):
        with pytest.raises(ConfigError, match="allowed: at most") as caught:
            load_config(None, ["data.name=synthetic", override])
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(("word", "name"), [("exp #3", "exp #3"), ("#3", "#3"), ("a: b", "a: b"), ("'5'", "5")])
def test_a_value_on_the_command_line_is_kept_whole(word: str, name: str) -> None:
    assert load_config(None, [f"run.name={word}"]).run.name == name


def test_options_of_ones_own_object_may_be_anything() -> None:
    config = load_config(None, ["optimizer.name=torch.optim:RMSprop", "optimizer.options={alpha: .inf, eps: true}"])
    assert config.optimizer.options == {"alpha": float("inf"), "eps": True}


def test_a_home_is_expanded_wherever_a_path_may_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "config.yaml").write_text("data: {name: image_folder, root: ~/images}\n", encoding="utf-8")
    config = load_config("~/config.yaml", ["run.folder=~/runs"])
    assert (config.run.folder, config.data.root) == (f"{tmp_path}/runs", f"{tmp_path}/images")
    assert load_config(None, ["run.folder=~no_such_user/runs"]).run.folder == "~no_such_user/runs"


def test_a_file_that_may_not_be_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "config.yaml").touch()
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ConfigError) as caught:
        load_config(str(tmp_path / "config.yaml"), [])
    assert str(caught.value) == f"{tmp_path / 'config.yaml'}: Permission denied"
