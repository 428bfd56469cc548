"""A real Prometheus, Debian's, that scrapes Envoys as examples/dashboards/prometheus.yaml says."""

import json
import os
import re
import shutil
import socket
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import harness
import yaml
from harness import ROOT, eventually

FOLDER = ROOT / "examples" / "dashboards"
UNPACKED = ROOT / ".cache" / "prometheus" / "usr" / "bin"
"""Where make puts it, for whom it is not installed."""
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
VARIABLES = {"$provider": ".*", "$__rate_interval": "1m", "$__range": "1m"}
"""What Grafana puts into a query."""


def binary(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{UNPACKED}")


def require() -> None:
    lack = None if binary("prometheus") else "Prometheus is not installed (Debian: prometheus)"
    harness.require("the dashboard's queries", lack)


def panels() -> dict[str, dict[str, Any]]:
    """The dashboard's panels that ask something, by title."""
    dashboard = json.loads((FOLDER / "grafana.json").read_text())
    return {panel["title"]: panel for panel in dashboard["panels"] if panel["type"] != "row"}


class Prometheus:
    """One that scrapes these admin ports every second."""

    def __init__(self, folder: Path, ports: list[int]) -> None:
        config = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())
        config["global"]["scrape_interval"] = "1s"
        config["scrape_configs"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{port}" for port in ports]
        file = folder / "prometheus.yaml"
        file.write_text(yaml.safe_dump(config))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        with (folder / "prometheus.log").open("w") as log:
            self._process = subprocess.Popen(
                [
                    binary("prometheus"),
                    f"--config.file={file}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                ],
                stdout=log,
                stderr=log,
            )
        eventually(self._is_ready)

    def _is_ready(self) -> bool:
        assert self._process.poll() is None, "Prometheus has died; its log is in the test's folder"
        try:
            return bool(self.query("vector(1)"))
        except OSError:
            return False

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)

    def query(self, text: str) -> dict[tuple[str, ...], float]:
        """The values of an instant query, by the values of the labels in the order of their names."""
        for name, value in VARIABLES.items():
            text = text.replace(name, value)
        address = f"http://127.0.0.1:{self.port}/api/v1/query?" + urllib.parse.urlencode({"query": text})
        with _OPENER.open(address, timeout=10) as answer:
            result = json.loads(answer.read())["data"]["result"]
        if not isinstance(result, list) or (result and not isinstance(result[0], dict)):
            return {}
        return {
            tuple(value for name, value in sorted(sample["metric"].items()) if name not in ("__name__", "job")): float(
                sample["value"][1]
            )
            for sample in result
        }

    def panel(self, title: str) -> dict[tuple[str, ...], float]:
        """What the panel of this title shows now."""
        found: dict[tuple[str, ...], float] = {}
        for target in panels()[title]["targets"]:
            found |= self.query(target["expr"])
        return found


def metrics(query: str) -> set[str]:
    return set(re.findall(r"\bone_balance_\w+", query))
