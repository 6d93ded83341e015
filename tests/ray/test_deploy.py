"""The files in deploy/ are what Ray and KubeRay read."""

import configparser
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from greedypipe.__main__ import COMMANDS
from greedypipe.launch.config.loader import DEFAULT_CONFIG, load_config
from greedypipe.launch.planning.run_plan import make_plan
from tests.ray.conftest import ROOT

jsonschema = pytest.importorskip("jsonschema")
pytestmark = pytest.mark.ray

RAY = "2.60.0"
"""The version that the files of deploy/ name; a driver and its cluster need the same one."""
TEXT, NUMBER, FLAG = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}


def strict(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    """An object of these fields and no others: a misspelt one would be dropped by Kubernetes without a word."""
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


TEXTS = {"type": "object", "additionalProperties": TEXT}
CONTAINER = strict(
    {
        "name": TEXT,
        "image": TEXT,
        "command": {"type": "array"},
        "env": {"type": "array"},
        "resources": strict({"limits": TEXTS, "requests": TEXTS}),
        "volumeMounts": {"type": "array", "items": strict({"mountPath": TEXT, "name": TEXT}, "mountPath", "name")},
    },
    "name",
    "image",
)
VOLUME = strict({"name": TEXT, "persistentVolumeClaim": strict({"claimName": TEXT}, "claimName")}, "name")
POD = strict(
    {
        "spec": strict(
            {
                "containers": {"type": "array", "items": CONTAINER, "minItems": 1},
                "volumes": {"type": "array", "items": VOLUME},
            },
            "containers",
        ),
    },
    "spec",
)
RAY_JOB = strict(
    {
        "apiVersion": {"const": "ray.io/v1"},
        "kind": {"const": "RayJob"},
        "metadata": strict({"name": TEXT}, "name"),
        "spec": strict(
            {
                "entrypoint": TEXT,
                "runtimeEnvYAML": TEXT,
                "shutdownAfterJobFinishes": FLAG,
                "ttlSecondsAfterFinished": NUMBER,
                "activeDeadlineSeconds": NUMBER,
                "backoffLimit": NUMBER,
                "submissionMode": {"enum": ["K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"]},
                "rayClusterSpec": strict(
                    {
                        "rayVersion": TEXT,
                        "headGroupSpec": strict({"rayStartParams": TEXTS, "template": POD}, "template"),
                        "workerGroupSpecs": {
                            "type": "array",
                            "items": strict(
                                {
                                    "groupName": TEXT,
                                    "replicas": NUMBER,
                                    "minReplicas": NUMBER,
                                    "maxReplicas": NUMBER,
                                    "rayStartParams": TEXTS,
                                    "template": POD,
                                },
                                "groupName",
                                "template",
                            ),
                        },
                    },
                    "headGroupSpec",
                ),
            },
            "entrypoint",
            "rayClusterSpec",
        ),
    },
    "apiVersion",
    "kind",
    "metadata",
    "spec",
)
"""The fields of KubeRay's RayJob, ray.io/v1, that a run may want (ray-project.github.io/kuberay/reference/api)."""


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / "deploy" / name).read_text())


def assert_can_run(command: str, entry: list[str], processes: int) -> None:
    """Whether a command begins as it should, and makes a plan that can run as a job."""
    words = shlex.split(command)
    given = words[words.index(entry[0]) :]
    assert given[: len(entry)] == entry
    config = ROOT / given[given.index("--config") + 1] if "--config" in given else DEFAULT_CONFIG
    plan = make_plan(load_config(str(config), [word for word in given if "=" in word]), processes)
    assert Path(plan.config.run.folder).is_absolute()


def test_the_ray_job_has_known_fields_only_and_its_command_can_run() -> None:
    job = read("rayjob.yaml")
    jsonschema.validate(job, RAY_JOB)
    spec = job["spec"]
    assert yaml.safe_load(spec["runtimeEnvYAML"]) == {"env_vars": {"OMP_NUM_THREADS": "1"}}
    (group,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    assert_can_run(spec["entrypoint"], ["greedypipe", "ray", "--stages", str(group["replicas"])], group["replicas"])
    assert COMMANDS["ray"].module == "ray_run"


def test_a_misspelt_field_is_found() -> None:
    job = read("rayjob.yaml")
    job["spec"]["backofLimit"] = 1
    with pytest.raises(jsonschema.ValidationError, match="backofLimit"):
        jsonschema.validate(job, RAY_JOB)


def test_ray_takes_the_cluster_file() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(read("cluster.yaml"))
    validate_config(config)
    assert config["max_workers"] == 2 and config["provider"]["worker_ips"]
    comment = (ROOT / "deploy" / "cluster.yaml").read_text().splitlines()
    assert_can_run(" ".join(line.strip("# \\") for line in comment[1:3]), ["python", "launch/ray_run.py"], 4)


def test_the_cluster_installs_what_the_package_requires() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    required = setup["options"]["install_requires"].split()
    installed = shlex.split(read("cluster.yaml")["setup_commands"][0])
    assert installed[installed.index("install") + 1 :] == [f"ray[default]=={RAY}", *required]
    assert read("rayjob.yaml")["spec"]["rayClusterSpec"]["rayVersion"] == RAY
