"""A new listener from a file, as docs/deployment.md says: without a restart, and nothing learned is lost."""

import json
import os
import time

import harness
import pytest
from harness import eventually, free_port
from provider_simulator import Answer, Stream

LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"


class ListenerFile:
    """A listener that Envoy reads from a file and watches."""

    def __init__(self, folder):
        self.file = folder / "listener.json"
        self.listener = {}

    def edit(self, config):
        """Takes the listener out of a bootstrap, for `start(edit=…)`."""
        [self.listener] = config["static_resources"].pop("listeners")
        # A file's address is what it says, so not "any free port".
        self.listener["address"]["socket_address"]["port_value"] = free_port()
        self.write()
        source = {"resource_api_version": "V3", "path_config_source": {"path": str(self.file)}}
        config |= {"dynamic_resources": {"lds_config": source}, "node": {"id": "one-balance", "cluster": "one-balance"}}

    def configure(self, plugin):
        """Gives the filter another configuration."""
        for node in harness.run.walk(self.listener):
            if node.get("root_id") == "downstream":
                node["configuration"]["value"] = json.dumps(plugin)
        self.write()

    def write(self):
        """Whole at once: Envoy watches for the move."""
        fresh = self.file.with_suffix(".fresh")
        fresh.write_text(json.dumps({"resources": [{"@type": LISTENER, **self.listener}]}))
        os.replace(fresh, self.file)


@pytest.fixture
def listener(tmp_path):
    return ListenerFile(tmp_path)


def test_a_changed_listener_is_taken_up(start, simulator, listener, model):
    bad, _ = simulator.key("openai"), simulator.key("openai")
    simulator.script(Answer(401, body={"error": {"code": "invalid_api_key"}}), key=bad, times=None)
    balancer = start(edit=listener.edit)
    chat = balancer.client.chat
    assert {chat(f"openai/{model}").status_code for _ in range(3)} == {200}
    asked = sum(request.key is bad for request in simulator.requests)
    assert asked == 1, "and blocked"
    assert chat("quick").status_code == 400, "no alias yet"

    listener.configure({"aliases": {"quick": f"openai/{model}"}})
    eventually(lambda: chat("quick").status_code == 200)
    assert sum(request.key is bad for request in simulator.requests) == asked, "the bad key is still known"

    # What Envoy refuses changes nothing.
    listener.configure({"surprise": 1})
    eventually(
        lambda: balancer.stats(r"^listener_manager\.lds\.update_rejected$")["listener_manager.lds.update_rejected"]
    )
    assert chat("quick").status_code == 200
    balancer.tolerated = "failed to load"


@pytest.mark.waits
def test_metrics_over_a_reload(start, simulator, listener, model):
    """The old configuration lives on for its streams; its counts are its own, its gauges nobody's."""
    key = simulator.key("openai")
    stream = Stream()
    simulator.script(Answer(chunks=stream), model="streamed")
    keys = simulator.provider_keys()
    plugin = {"provider_keys": keys}
    balancer = start(env={"PROVIDER_KEYS": None}, plugin=plugin, edit=listener.edit, concurrency=1)
    # It stands in the configuration, which /config_dump shows.
    balancer.secrets.discard(key.secret)
    assert balancer.client.chat(f"openai/{model}").status_code == 200
    with balancer.client.stream("/api/openai/responses", json={"model": "streamed"}) as arriving:
        stream.send(b"data: 1\n\n")
        assert arriving.exactly(9) == b"data: 1\n\n"
        # Its counters have other places, for another provider comes before.
        listener.configure(
            {"provider_keys": f"groq=sk-of-groq-1,sk-of-groq-2;{keys}", "aliases": {"q": f"openai/{model}"}}
        )
        eventually(lambda: balancer.client.chat("q").status_code == 200)
        served = "wasmcustom.one_balance.requests.provider.openai.result.served"
        ready = "wasmcustom.one_balance.keys.provider.groq.state.ready"
        expected = {served: 3, ready: 2}
        pattern = r"one_balance\.(requests|answers|keys)\.provider\..*(served|groq)"
        eventually(lambda: {name: value for name, value in balancer.stats(pattern).items() if value} == expected)
        for _ in range(6):
            time.sleep(1)
            assert balancer.stats(ready) == {ready: 2}, "the old one has no groq"
        stream.close()


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
