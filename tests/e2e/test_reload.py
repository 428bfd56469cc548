"""A new listener from a file, as docs/deployment.md says: without a restart, and nothing learned is lost."""

import json
import os

import harness
from harness import eventually, free_port
from provider_simulator import Answer, Stream

LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"


def test_a_changed_listener_is_taken_up(start, simulator, tmp_path, model):
    bad, _ = simulator.key("openai"), simulator.key("openai")
    simulator.script(Answer(401, body={"error": {"code": "invalid_api_key"}}), key=bad, times=None)
    file = tmp_path / "listener.json"

    def write(listener):
        """Whole at once: Envoy watches for the move."""
        fresh = tmp_path / "fresh.json"
        fresh.write_text(json.dumps({"resources": [{"@type": LISTENER, **listener}]}))
        os.replace(fresh, file)

    def from_file(config):
        [listener] = config["static_resources"].pop("listeners")
        # A file's address is what it says, so not "any free port".
        listener["address"]["socket_address"]["port_value"] = free_port()
        write(listener)
        source = {"resource_api_version": "V3", "path_config_source": {"path": str(file)}}
        config |= {"dynamic_resources": {"lds_config": source}, "node": {"id": "one-balance", "cluster": "one-balance"}}

    balancer = start(edit=from_file)
    chat = balancer.client.chat
    assert {chat(f"openai/{model}").status_code for _ in range(3)} == {200}
    asked = sum(request.key is bad for request in simulator.requests)
    assert asked == 1, "and blocked"
    assert chat("quick").status_code == 400, "no alias yet"

    [resource] = json.loads(file.read_text())["resources"]
    listener = {name: value for name, value in resource.items() if name != "@type"}
    for node in harness.run.walk(listener):
        if node.get("root_id") == "downstream":
            node["configuration"]["value"] = json.dumps({"aliases": {"quick": f"openai/{model}"}})
    write(listener)
    eventually(lambda: chat("quick").status_code == 200)
    assert sum(request.key is bad for request in simulator.requests) == asked, "the bad key is still known"

    # What Envoy refuses changes nothing.
    for node in harness.run.walk(listener):
        if node.get("root_id") == "downstream":
            node["configuration"]["value"] = json.dumps({"surprise": 1})
    write(listener)
    eventually(
        lambda: balancer.stats(r"^listener_manager\.lds\.update_rejected$")["listener_manager.lds.update_rejected"]
    )
    assert chat("quick").status_code == 200
    balancer.tolerated = "failed to load"


def test_requests_under_way_end_before_a_restart(start, simulator, model):
    simulator.key("openai")
    stream = Stream()
    simulator.script(Answer(chunks=stream), model=model)
    balancer = start()
    stream.send(b"data: 1\n\n")
    with balancer.client.stream("/api/openai/responses", json={"model": model}) as arriving:
        assert arriving.exactly(9) == b"data: 1\n\n"
        assert balancer.envoy.get("/drain_listeners?graceful", "POST").strip() == "OK"
        stream.send(b"data: 2\n\n")
        stream.close()
        assert arriving.rest() == b"data: 2\n\n"
