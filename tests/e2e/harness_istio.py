"""What istiod makes of an EnvoyFilter: the patches that our manifests use, on a gateway's bootstrap.

The semantics are those of istio.io's EnvoyFilter reference and of pilot/pkg/networking/core/envoyfilter:
patches apply in order; MERGE is protobuf's: scalars are set unless they are the type's zero, lists grow,
an entry of a map is replaced whole, durations are replaced. INSERT_BEFORE goes before the matched filter,
INSERT_FIRST to the front, ADD to the end. Inserts of HTTP filters come before merges.
"""

import copy
import json
from typing import Any

import harness
from harness_manifests import MANIFESTS

Config = dict[str, Any]
HCM = "envoy.filters.network.http_connection_manager"
MAPS = {"typed_extension_protocol_options", "typed_per_filter_config", "filter_metadata"}
"""The map fields that occur: JSON does not tell a map from a message."""


class Unsupported(Exception):
    """A patch of a kind that this has not been taught; better than a patch that does nothing."""


def bootstrap() -> Config:
    """A gateway as Istio makes it."""
    return harness.run.load(MANIFESTS / "istio-gateway.yaml")


def apply(config: Config, envoy_filter: Config) -> None:
    """Applies all patches, in place. Each one must find what it is for."""
    for patch in order(envoy_filter["spec"]["configPatches"]):
        if not _apply(config, patch):
            raise Unsupported(f"this patch matches nothing: {json.dumps(patch)[:300]}")


def order(patches: list[Config]) -> list[Config]:
    """As they come, but merges of what others insert after those; routes last, in a virtual host merged first."""
    late = [patch for patch in patches if patch["applyTo"] == "HTTP_FILTER" and patch["patch"]["operation"] == "MERGE"]
    return [patch for patch in patches if patch not in late] + late


def _apply(config: Config, entry: Config) -> int:
    kind, operation = entry["applyTo"], entry["patch"]["operation"]
    value = copy.deepcopy(entry["patch"]["value"])
    match = {key: found for key, found in entry.get("match", {}).items() if key != "context"}
    if entry.get("match", {}).get("context") not in ("GATEWAY", "ANY", None):
        raise Unsupported(f"context of {entry}")
    if kind == "BOOTSTRAP" and operation == "MERGE" and not match:
        merge(config, value)
        return 1
    if kind == "CLUSTER" and operation == "ADD" and not match:
        config["static_resources"]["clusters"].append(value)
        return 1
    managers = [
        node
        for listener in config["static_resources"]["listeners"]
        for chain in listener["filter_chains"]
        for node in chain["filters"]
        if node["name"] == HCM
    ]
    hosts = [host for node in managers for host in node["typed_config"]["route_config"]["virtual_hosts"]]
    if kind == "VIRTUAL_HOST" and operation == "MERGE" and not match:
        for host in hosts:
            merge(host, value)
        return len(hosts)
    if kind == "HTTP_ROUTE" and operation == "INSERT_FIRST" and not match:
        for host in hosts:
            host["routes"].insert(0, copy.deepcopy(value))
        return len(hosts)
    name, below = _filter_match(match)
    if name != HCM:
        raise Unsupported(json.dumps(entry)[:300])
    if kind == "NETWORK_FILTER" and operation == "MERGE" and not below:
        for node in managers:
            merge(node["typed_config"], value["typed_config"])
        return len(managers)
    if kind != "HTTP_FILTER" or not below:
        raise Unsupported(json.dumps(entry)[:300])
    found = 0
    for node in managers:
        filters = node["typed_config"]["http_filters"]
        for index in [index for index, filter_ in enumerate(filters) if filter_["name"] == below]:
            found += 1
            if operation == "INSERT_BEFORE":
                filters.insert(index, value)
            elif operation == "MERGE":
                merge(filters[index]["typed_config"], value["typed_config"])
            else:
                raise Unsupported(operation)
    return found


def _filter_match(match: Config) -> tuple[str | None, str | None]:
    """The network filter and the HTTP filter that are meant; nothing else may be in the match."""
    filter_ = match.get("listener", {}).get("filterChain", {}).get("filter", {})
    name, below = filter_.get("name"), filter_.get("subFilter", {}).get("name")
    expected = {
        "listener": {"filterChain": {"filter": {"name": name, **({"subFilter": {"name": below}} if below else {})}}}
    }
    return (name, below) if match == expected else (None, None)


def merge(target: Config, source: Config) -> None:
    """Protobuf's merge, in JSON."""
    for key, value in source.items():
        old = target.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            old.update(copy.deepcopy(value)) if key in MAPS else merge(old, value)
        elif isinstance(value, list) and isinstance(old, list):
            old.extend(copy.deepcopy(value))
        elif value or value == {}:
            target[key] = copy.deepcopy(value)
        # Zero, false and "" are what an unset field has: such a patch would do nothing, so it is a mistake.
        else:
            raise Unsupported(f"{key}: {value!r} is the zero value, which a merge does not set")


def runnable(config: Config) -> Config:
    """For a stock Envoy: without Istio's own filters, and under the name that the harness knows."""
    result = copy.deepcopy(config)
    for node in harness.run.walk(result):
        for name in ("filters", "http_filters"):
            if name in node:
                node[name] = [entry for entry in node[name] if not entry["name"].startswith("istio.")]
    [listener] = result["static_resources"]["listeners"]
    listener["name"] = "one_balance"
    return result
