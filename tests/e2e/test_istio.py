"""The manifests below envoy/istio: valid, in step with envoy.yaml, and what Istio makes of them serves."""

import hashlib
import http.server
import json
import re
import threading

import harness
import harness_istio
import pytest
import yaml
from harness_core import CORE, deployed
from harness_manifests import MANIFESTS, kustomize, only, problems, require_schemas

REMOTE = "istio/remote"
FLAVOURS = [("gateway",), ("gateway-api",), ("gateway", REMOTE), ("gateway-api", REMOTE)]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """`built(flavour, component...)`: its objects."""
    scratch = tmp_path_factory.mktemp("istio")
    return lambda flavour, *components: kustomize(f"istio/{flavour}", scratch, *components)


def test_the_schemas_have_nothing_against_them(built):
    assert problems([entry for flavour in FLAVOURS for entry in built(*flavour)]) == ""


def test_the_schemas_would_have(built):
    """A check that cannot fail is none: a wrong value, and a field that does not exist."""
    objects = built("gateway")
    only(objects, "ServiceEntry")["spec"]["resolution"] = "SOMEHOW"
    only(objects, "Deployment")["spec"]["template"]["spec"]["volumes"][0]["imagine"] = {}
    found = problems(objects)
    assert "ServiceEntry cloudflare-api" in found
    assert "'\"imagine\"' does not exist" in found


def test_why_wasm_plugin_alone_will_not_do():
    """Should this fail, the guide's word on it, and on Envoy Gateway's EnvoyExtensionPolicy, is out of date."""
    require_schemas()
    schemas = MANIFESTS / "node_modules" / "@kubernetes-models"
    for path, known in [
        ("istio/extensions.istio.io/v1alpha1/WasmPlugin.d.ts", "failStrategy"),
        ("envoy-gateway/gateway.envoyproxy.io/v1alpha1/Wasm.d.ts", "failOpen"),
    ]:
        fields = {name.lower() for name in re.findall(r'"(\w+)"\??:', (schemas / path).read_text())}
        assert known.lower() in fields
        assert not {"vmid", "allowonheadersstopiteration"} & fields


def test_what_istio_lays_over_its_deployment(built):
    """A part of a Deployment, in a ConfigMap, where no schema looks."""
    objects = built("gateway-api")
    part = yaml.safe_load(only(objects, "ConfigMap")["data"]["deployment"])
    part["spec"]["selector"] = {"matchLabels": {"x": "y"}}
    whole = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "one-balance-gateway"}, **part}
    assert problems([whole]) == ""
    container = part["spec"]["template"]["spec"]["containers"][0]
    own = only(built("gateway"), "Deployment")["spec"]["template"]
    for field in ("name", "envFrom", "volumeMounts"):
        assert container[field] == own["spec"]["containers"][0][field]
    assert part["spec"]["template"]["spec"]["volumes"] == own["spec"]["volumes"]
    annotation = "proxy.istio.io/config"
    assert part["spec"]["template"]["metadata"]["annotations"][annotation] == own["metadata"]["annotations"][annotation]


def test_all_name_the_same_gateway(built):
    label = {"gateway.networking.k8s.io/gateway-name": "one-balance"}
    for folder in ("gateway", "gateway-api"):
        objects = built(folder)
        assert only(objects, "EnvoyFilter")["spec"]["workloadSelector"]["labels"] == label
        assert only(objects, "Gateway")["metadata"]["name"] == "one-balance"
        assert {entry["metadata"].get("namespace") for entry in objects if entry["kind"] != "Namespace"} == {
            "one-balance"
        }
    objects = built("gateway")
    assert only(objects, "Deployment")["spec"]["template"]["metadata"]["labels"].items() >= label.items()
    assert only(objects, "Gateway")["spec"]["selector"] == only(objects, "Service")["spec"]["selector"] == label


def test_in_step_with_envoy_yaml(built):
    """What stands in both says the same."""
    config = harness.run.load()
    manager = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    host = manager["route_config"]["virtual_hosts"][0]
    shipped = {
        **{entry["name"]: entry for entry in manager["http_filters"]},
        **{entry["name"]: entry for entry in config["static_resources"]["clusters"]},
    }
    harness.set_plugin(config, {"d1_cluster": "outbound|443||api.cloudflare.com"})
    for node in harness.run.walk(config):
        if "vm_config" in node:
            node["vm_config"]["code"] = {"local": {"filename": "/etc/one-balance/plugin.wasm"}}
    routes = []
    for entry in only(built("gateway"), "EnvoyFilter")["spec"]["configPatches"]:
        value, kind = entry["patch"]["value"], entry["applyTo"]
        if kind in ("HTTP_FILTER", "CLUSTER"):
            assert value == shipped.pop(value["name"])
        elif kind == "NETWORK_FILTER":
            assert value["typed_config"].items() <= manager.items()
        elif kind == "VIRTUAL_HOST":
            assert value == {name: host[name] for name in ("request_body_buffer_limit", "retry_policy")}
        elif kind == "HTTP_ROUTE":
            routes.append(value)
        else:
            assert kind == "BOOTSTRAP"
            assert value == {"stats_config": config["stats_config"]}
    # Exclusive, so their order does not matter.
    assert sorted(routes, key=json.dumps) == sorted(host["routes"], key=json.dumps)
    assert set(shipped) == {"d1"}, "Istio's own cluster, from the ServiceEntry"


@pytest.fixture(scope="module", params=["gateway", "gateway-api"])
def balancer(request, built, tmp_path_factory, ca):
    config = harness_istio.bootstrap()
    harness_istio.apply(config, only(built(request.param), "EnvoyFilter"))
    with deployed(tmp_path_factory.mktemp("istio"), ca, harness_istio.runnable(config)) as balancer:
        yield balancer


@pytest.mark.parametrize("check", CORE, ids=lambda check: check.__name__)
def test_core(balancer, check, model):
    check(balancer, model)


def test_d1_by_the_cluster_of_the_service_entry(start, built, simulator, d1, model):
    config = harness_istio.bootstrap()
    harness_istio.apply(config, only(built("gateway"), "EnvoyFilter"))
    d1.insert("openai", simulator.key("openai").secret)
    balancer = start(
        config=harness_istio.runnable(config),
        env={**d1.env(), "PROVIDER_KEYS": None},
        plugin=d1.plugin(),
        edit=lambda bootstrap: d1.edit(bootstrap, "outbound|443||api.cloudflare.com"),
    )
    harness.eventually(lambda: balancer.client.chat(f"openai/{model}").status_code == 200)


def test_the_order_of_filters(built):
    """Behind Istio's own, among them CORS: a preflight carries no AUTH_KEY."""
    config = harness_istio.bootstrap()
    harness_istio.apply(config, only(built("gateway"), "EnvoyFilter"))
    [names] = [
        [entry["name"] for entry in node["http_filters"]] for node in harness.run.walk(config) if "route_config" in node
    ]
    assert names[-4:] == [
        "istio.stats",
        "one_balance",
        "envoy.filters.http.dynamic_forward_proxy",
        "envoy.filters.http.router",
    ]


@pytest.fixture
def module_server():
    """`module_server(name)`: a cluster of this name, in which the module is served."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            module = harness.run.MODULE.read_bytes()
            self.send_response(200)
            self.send_header("content-length", str(len(module)))
            self.end_headers()
            self.wfile.write(module)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = {"socket_address": {"address": "127.0.0.1", "port_value": server.server_port}}
        yield lambda name: {
            "name": name,
            "load_assignment": {
                "cluster_name": name,
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
            },
        }
        server.shutdown()


def test_the_module_from_a_url(built, tmp_path, ca, model, module_server):
    config = harness_istio.bootstrap()
    envoy_filter = only(built("gateway", REMOTE), "EnvoyFilter")
    sources = [node["code"] for node in harness.run.walk(envoy_filter) if "code" in node]
    assert len(sources) == 3
    assert all(source == sources[0] and "remote" in source for source in sources), "no place was forgotten"
    remote = sources[0]["remote"]
    harness_istio.apply(config, envoy_filter)
    config = harness_istio.runnable(config)
    config["static_resources"]["clusters"].append(module_server(remote["http_uri"]["cluster"]))
    sha256 = hashlib.sha256(harness.run.MODULE.read_bytes()).hexdigest()
    for node in harness.run.walk(config):
        if "remote" in node:
            node["remote"]["sha256"] = sha256
    with deployed(tmp_path, ca, config, module=None) as balancer:
        # Envoy's words while it fetches.
        balancer.tolerated = "failed to load"
        for check in CORE:
            check(balancer, f"{model}-{check.__name__}")
