"""The files in deploy/ are what Ray and KubeRay read."""

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from greedypipe.launch.config.loader import load_config
from greedypipe.launch.planning.run_plan import make_plan
from tests.ray.conftest import ROOT

jsonschema = pytest.importorskip("jsonschema")
pytestmark = pytest.mark.ray

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


def assert_can_run(command: str, processes: int) -> None:
    """Whether the overrides of a launch/ray_run.py command make a plan."""
    words = shlex.split(command)
    overrides = [word for word in words if "=" in word]
    plan = make_plan(load_config(str(ROOT / "configs" / "digits.yaml"), overrides), processes)
    assert Path(plan.config.run.folder).is_absolute()
    assert any(word.endswith("launch/ray_run.py") for word in words)


def test_the_ray_job_has_known_fields_only_and_its_command_can_run() -> None:
    job = read("rayjob.yaml")
    jsonschema.validate(job, RAY_JOB)
    spec = job["spec"]
    assert yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]["PYTHONPATH"] == "/greedypipe"
    (group,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    assert_can_run(spec["entrypoint"], group["replicas"])


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
    assert_can_run(" ".join(line.strip("# \\") for line in comment[2:4]), 4)
