"""The manifests below envoy/gateway, for Envoy Gateway: valid, in step with envoy.yaml, and serving."""

import copy

import harness
import harness_istio
import jsonpatch
import pytest
import yaml
from harness_core import CORE, deployed
from harness_manifests import MANIFESTS, kustomize, only, problems

TYPE = "type.googleapis.com/envoy.config."


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    return kustomize("gateway", tmp_path_factory.mktemp("gateway"))


def test_the_schemas_have_nothing_against_them(objects):
    assert problems(objects) == ""


def test_the_schemas_would_have(objects):
    wrong = copy.deepcopy(objects)
    only(wrong, "EnvoyPatchPolicy")["spec"]["jsonPatches"][0]["operation"]["op"] = "insert"
    only(wrong, "EnvoyProxy")["spec"]["provider"]["kubernetes"]["envoyDeployment"]["pod"]["volume"] = []
    found = problems(wrong)
    assert "EnvoyPatchPolicy one-balance" in found
    assert "'\"volume\"' does not exist" in found


def apply(config, policy):
    """The patches in turn, each on the resource of its type and name; one for a new cluster has no path."""
    resources = config["static_resources"]
    [listener] = resources["listeners"]
    [manager] = listener["default_filter_chain"]["filters"]
    routes = manager["typed_config"]["route_config"]
    for entry in policy["spec"]["jsonPatches"]:
        operation, kind = entry["operation"], entry["type"].removeprefix(TYPE).rpartition(".")[2]
        if kind == "Cluster":
            assert (operation["op"], operation["path"]) == ("add", "")
            assert operation["value"]["name"] == entry["name"]
            resources["clusters"].append(copy.deepcopy(operation["value"]))
            continue
        target = {"Listener": listener, "RouteConfiguration": routes}[kind]
        assert entry["name"] == target["name"], "Envoy Gateway finds no such resource"
        jsonpatch.apply_patch(target, [copy.deepcopy(operation)], in_place=True)


@pytest.fixture(scope="module")
def patched(objects):
    config = harness.run.load(MANIFESTS / "envoy-gateway.yaml")
    apply(config, only(objects, "EnvoyPatchPolicy"))
    return config


def test_the_bootstrap_has_the_labels_of_the_metrics(objects):
    bootstrap = only(objects, "EnvoyProxy")["spec"]["bootstrap"]
    assert bootstrap["type"] == "Merge"
    assert yaml.safe_load(bootstrap["value"]) == {"stats_config": harness.run.load()["stats_config"]}


def manager_of(listener):
    chain = listener.get("default_filter_chain") or listener["filter_chains"][0]
    return chain["filters"][0]["typed_config"]


def test_in_step_with_envoy_yaml(patched):
    shipped = harness.run.load()
    for node in harness.run.walk(shipped):
        if "vm_config" in node:
            node["vm_config"]["code"] = {"local": {"filename": "/etc/one-balance/plugin.wasm"}}
    theirs, ours = (config["static_resources"] for config in (patched, shipped))
    assert theirs["clusters"] == ours["clusters"]
    theirs, ours = (manager_of(part["listeners"][0]) for part in (theirs, ours))
    assert theirs["http_filters"] == ours["http_filters"]
    limits = ["stream_idle_timeout", "request_headers_timeout", "request_timeout"]
    for name in ["normalize_path", "skip_xff_append", "upgrade_configs", "access_log", *limits]:
        assert theirs[name] == ours[name]
    theirs_common, ours_common = (manager["common_http_protocol_options"] for manager in (theirs, ours))
    assert theirs_common["idle_timeout"] == ours_common["idle_timeout"]
    theirs, ours = (part["route_config"]["virtual_hosts"][0] for part in (theirs, ours))
    for name in ("request_body_buffer_limit", "retry_policy"):
        assert theirs[name] == ours[name]
    assert [route for route in theirs["routes"] if "route" in route] == ours["routes"][::-1]


def test_the_variables_are_the_filter_s(objects):
    proxy = only(objects, "EnvoyProxy")["spec"]["provider"]["kubernetes"]["envoyDeployment"]
    names = {entry["name"] for entry in proxy["container"]["env"]}
    assert all(entry["valueFrom"]["secretKeyRef"]["key"] == entry["name"] for entry in proxy["container"]["env"])
    [passed] = [node["host_env_keys"] for node in harness.run.walk(harness.run.load()) if "host_env_keys" in node][:1]
    assert names <= set(passed)


@pytest.fixture(scope="module")
def balancer(objects, patched, tmp_path_factory, ca):
    config = copy.deepcopy(patched)
    [listener] = config["static_resources"]["listeners"]
    listener["name"] = "one_balance"
    harness_istio.merge(config, yaml.safe_load(only(objects, "EnvoyProxy")["spec"]["bootstrap"]["value"]))
    with deployed(tmp_path_factory.mktemp("gateway"), ca, config) as balancer:
        yield balancer


@pytest.mark.parametrize("check", CORE, ids=lambda check: check.__name__)
def test_core(balancer, check, model):
    check(balancer, model)
