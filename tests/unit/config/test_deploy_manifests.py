"""The systemd units and Kubernetes manifests in `deploy/` fit, need no privileges, and run commands that exist."""

import configparser
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from test_deployment import parse

from understudy.models.config.settings import load_settings
from understudy.producer.api.app import create_app

ROOT = Path(__file__).parents[3] / "deploy"
BASE = ROOT / "kubernetes/base"
UNITS = sorted((ROOT / "systemd").glob("*.service"))
NEWEST_KUBERNETES = "1.33"
OWN_TYPES = ("Kustomization", "ScaledObject")
"""Kinds that Kubernetes itself does not know."""


@cache
def manifests() -> dict[str, dict[str, Any]]:
    """By kind and name."""
    found = {}
    for file in sorted(ROOT.glob("kubernetes/*/*.yaml")):
        for each in yaml.safe_load_all(file.read_text(encoding="utf-8")):
            name = each.get("metadata", {}).get("name", file.parent.name)
            found[f"{each['kind']} {name}"] = each
    return found


def pods() -> dict[str, dict[str, Any]]:
    found = {name: each.get("spec", {}).get("template") for name, each in manifests().items()}
    return {name: template["spec"] for name, template in found.items() if template}


def unit(file: Path) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(file.read_text(encoding="utf-8"))
    return parser["Service"]


def seconds_after(words: list[str], option: str) -> float:
    return float(words[words.index(option) + 1])


@pytest.mark.parametrize("name", [name for name in manifests() if not name.startswith(OWN_TYPES)])
def test_a_manifest_fits_the_published_schema(name: str) -> None:
    kubernetes_validate.validate(manifests()[name], NEWEST_KUBERNETES, strict=True)


def test_a_manifest_with_a_misspelt_field_would_be_noticed() -> None:
    wrong = {**manifests()["Service understudy-api"], "spce": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, NEWEST_KUBERNETES, strict=True)


@pytest.mark.parametrize("folder", ["base", "keda"])
def test_a_kustomization_names_files_that_exist_and_all_of_them(folder: str) -> None:
    here = ROOT / "kubernetes" / folder
    resources = yaml.safe_load((here / "kustomization.yaml").read_text(encoding="utf-8"))["resources"]
    assert all((here / each).exists() for each in resources)
    others = {file.name for file in here.glob("*.yaml")} - {"kustomization.yaml"}
    assert others <= set(resources)


@pytest.mark.parametrize("name", sorted(pods()))
def test_a_pod_has_no_privileges_and_a_command_that_exists(name: str) -> None:
    pod = pods()[name]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] and pod["automountServiceAccountToken"] is False
    own = container["securityContext"]
    assert (
        own["readOnlyRootFilesystem"] and not own["allowPrivilegeEscalation"] and own["capabilities"]["drop"] == ["ALL"]
    )
    mounted = {each["name"] for each in container["volumeMounts"]}
    assert mounted == {each["name"] for each in pod["volumes"]} and "tmp" in mounted
    parse(container["args"])


def test_a_worker_is_killed_after_its_grace_and_never_because_the_ledger_is_away() -> None:
    pod = pods()["Deployment understudy-worker"]
    (container,) = pod["containers"]
    assert seconds_after(container["args"], "--grace") < pod["terminationGracePeriodSeconds"]
    assert container["readinessProbe"]["exec"]["command"] == ["understudy", "health"]
    assert "livenessProbe" not in container


def test_the_api_is_probed_where_it_answers_and_its_service_and_port_fit() -> None:
    (container,) = pods()["Deployment understudy-api"]["containers"]
    (port,) = container["ports"]
    assert port == {"name": "http", "containerPort": 8080}
    served = set(create_app(None).openapi()["paths"])  # type: ignore[arg-type]
    for probe in ("readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["path"] in served
        assert container[probe]["httpGet"]["port"] == "http"


def test_selectors_fit_the_labels_of_their_pods() -> None:
    labels = {
        name: each["spec"]["template"]["metadata"]["labels"] for name, each in manifests().items() if name in pods()
    }
    for name in ("understudy-api", "understudy-worker"):
        assert manifests()[f"Deployment {name}"]["spec"]["selector"]["matchLabels"] == labels[f"Deployment {name}"]
    assert manifests()["Service understudy-api"]["spec"]["selector"] == labels["Deployment understudy-api"]
    budget = manifests()["PodDisruptionBudget understudy-worker"]["spec"]["selector"]["matchLabels"]
    assert budget == labels["Deployment understudy-worker"]


def test_the_settings_of_the_pods_are_valid(tmp_path: Path) -> None:
    settings = load_settings(BASE / "understudy.toml", {})
    assert settings.api.host == "0.0.0.0" and settings.api.port == 8080


def test_keda_scales_the_workers_by_a_metric_that_exists() -> None:
    scaled = manifests()["ScaledObject understudy-worker"]["spec"]
    assert f"Deployment {scaled['scaleTargetRef']['name']}" in pods()
    (trigger,) = scaled["triggers"]
    metric = re.search(r"understudy_\w+", trigger["metadata"]["query"])
    source = (ROOT.parent / "producer/api/monitoring.py").read_text(encoding="utf-8")
    assert metric and f'"{metric[0]}"' in source


@pytest.mark.parametrize("file", UNITS, ids=lambda file: file.stem)
def test_a_unit_starts_a_command_that_exists_as_a_user_without_privileges(file: Path) -> None:
    service = unit(file)
    program, *words = shlex.split(service["ExecStart"])
    assert program.endswith("/bin/understudy") and service["User"] == "understudy"
    parse(words)
    assert service["NoNewPrivileges"] == "yes" and service["ProtectSystem"] == "strict"


def test_systemd_kills_workers_after_their_grace() -> None:
    service = unit(ROOT / "systemd/understudy-worker.service")
    assert seconds_after(shlex.split(service["ExecStart"]), "--grace") < float(service["TimeoutStopSec"])
