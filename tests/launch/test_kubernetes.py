"""The Kubernetes manifest is what the training operator accepts, by the operator's own generated models."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

training = pytest.importorskip("kubeflow.training")
client = pytest.importorskip("kubernetes.client")

MANIFEST = Path(__file__).resolve().parents[2] / "launch" / "kubernetes-pytorchjob.yaml"
PRIMITIVES = {"str": str, "int": int, "bool": bool, "object": object}


def check(value: Any, kind: str, place: str) -> None:
    """Compares a part of a manifest with a type of the models, and all parts of it with theirs.

    Raises:
        ValueError: naming the place of what the operator would refuse.
    """
    if item := re.fullmatch(r"list\[(.+)\]", kind):
        for index, part in enumerate(expect(value, list, place)):
            check(part, item[1], f"{place}[{index}]")
    elif item := re.fullmatch(r"dict\(str, (.+)\)", kind):
        for key, part in expect(value, dict, place).items():
            # A quantity may be a number or a text: 8, 500m, 2Gi.
            check(str(part) if place.endswith(("limits", "requests")) else part, item[1], f"{place}.{key}")
    elif kind in PRIMITIVES:
        expect(value, PRIMITIVES[kind], place)
    else:
        check_model(value, getattr(training, kind, None) or getattr(client, kind), place)


def check_model(value: Any, model: Any, place: str) -> None:
    """The fields of a model: none unknown, each of its type, those present that must be."""
    fields = {model.attribute_map[name]: (name, kind) for name, kind in model.openapi_types.items()}
    for key, part in expect(value, dict, place).items():
        if key not in fields:
            raise ValueError(f"{place}.{key} is not a field of {model.__name__}")
        check(part, fields[key][1], f"{place}.{key}")
    # The constructor refuses a model without its required fields.
    model(**{fields[key][0]: part for key, part in value.items()})


def expect(value: Any, kind: type, place: str) -> Any:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{place}={value!r} must be {kind.__name__}")
    return value


@pytest.fixture
def job() -> Any:
    return yaml.safe_load(MANIFEST.read_text())


def test_the_manifest_has_the_schema_of_a_pytorchjob(job: Any) -> None:
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    check(job, "KubeflowOrgV1PyTorchJob", "job")


def test_what_the_operator_would_refuse_is_seen(job: Any) -> None:
    def without(*path: str) -> Any:
        changed = copy.deepcopy(job)
        place = changed
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]
        return changed

    worker = ("spec", "pytorchReplicaSpecs", "Worker")
    unknown, number = copy.deepcopy(job), copy.deepcopy(job)
    unknown["spec"]["elasticPolicy"]["maxRestart"] = 3
    number["spec"]["nprocPerNode"] = 8
    nameless = copy.deepcopy(job)
    del nameless["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]["name"]
    for bad, message in [
        (unknown, r"elasticPolicy\.maxRestart is not a field"),
        (number, r"nprocPerNode=8 must be str"),
        (without("spec", "runPolicy"), "run_policy"),
        (without(*worker, "template", "spec", "containers"), "containers"),
        (nameless, "name"),
    ]:
        with pytest.raises(ValueError, match=message):
            check(bad, "KubeflowOrgV1PyTorchJob", "job")


def test_the_parts_of_the_manifest_fit_together(job: Any) -> None:
    spec = job["spec"]
    worker, elastic = spec["pytorchReplicaSpecs"]["Worker"], spec["elasticPolicy"]
    assert elastic["minReplicas"] <= worker["replicas"] <= elastic["maxReplicas"]
    assert worker["restartPolicy"] in {"Always", "OnFailure", "Never", "ExitCode"}
    pod = worker["template"]["spec"]
    (container,) = pod["containers"]
    # The operator finds the container by this name.
    assert container["name"] == "pytorch"
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert spec["nprocPerNode"] == str(container["resources"]["limits"]["nvidia.com/gpu"])
