"""A real D1 behind its REST API: tests/d1/server.mjs, from Python."""

import json
import os
import secrets
import shutil
import subprocess
import urllib.request
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "d1"
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def missing() -> str | None:
    """Why there can be no D1 here."""
    if not shutil.which("node"):
        return "Node is not installed"
    return None if (FOLDER / "node_modules" / "miniflare").exists() else "tests/d1 is not installed: make setup"


class D1:
    """The database, its faults, and what an Envoy needs to reach it."""

    def __init__(self) -> None:
        self.account, self.database = secrets.token_hex(16), str(uuid.uuid4())
        self.token = "d1-token-" + secrets.token_hex(16)
        names = {"ACCOUNT": self.account, "DATABASE": self.database, "TOKEN": self.token}
        self._process = subprocess.Popen(
            ["node", "server.mjs"],
            cwd=FOLDER,
            env={**os.environ, **names},
            # The server ends when this pipe does, so also when this process dies.
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        line = self._process.stdout.readline()
        assert line, "the D1 server did not start; its errors stand above"
        self.port = json.loads(line)["port"]

    def close(self) -> None:
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()

    # For Envoy.

    def env(self, sync_seconds: int = 1) -> dict[str, str]:
        return {
            "D1_ACCOUNT_ID": self.account,
            "D1_DATABASE_ID": self.database,
            "D1_API_TOKEN": self.token,
            "SYNC_SECONDS": str(sync_seconds),
        }

    def plugin(self) -> dict[str, str]:
        return {"d1_base_url": f"http://127.0.0.1:{self.port}/client/v4"}

    def edit(self, bootstrap: dict[str, Any], name: str = "d1") -> None:
        """Makes the cluster of this name lead here, without TLS."""
        cluster = next(entry for entry in bootstrap["static_resources"]["clusters"] if entry["name"] == name)
        cluster.pop("transport_socket", None)
        cluster["type"] = "STATIC"
        endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
        endpoint["address"]["socket_address"].update(address="127.0.0.1", port_value=self.port)

    # The content.

    def insert(self, provider: str, key: str, **columns: Any) -> str:
        """A row; other columns by name. Returns its id."""
        ident = columns.pop("id", str(uuid.uuid4()))
        self.insert_all([{"id": ident, "provider": provider, "key": key, **columns}])
        return ident

    def insert_all(self, rows: Sequence[Mapping[str, Any]]) -> None:
        statements = []
        for row in rows:
            names, marks = ", ".join(row), ", ".join("?" * len(row))
            statements.append({"sql": f"INSERT INTO keys ({names}) VALUES ({marks})", "params": list(row.values())})
        self._statements(statements)

    def sql(self, text: str, *params: Any) -> list[dict[str, Any]]:
        """The rows of a statement. Neither counted nor disturbed by faults."""
        return self._statements([{"sql": text, "params": list(params)}])[0]

    def row(self, ident: str) -> dict[str, Any] | None:
        """The row, with `model_coolings` decoded; None if there is none."""
        rows = self.sql("SELECT * FROM keys WHERE id = ?", ident)
        for row in rows:
            row["model_coolings"] = json.loads(row["model_coolings"] or "null")
        return rows[0] if rows else None

    # The wire.

    def fault(self, kind: str, times: int = 1, **details: Any) -> None:
        """The next `times` calls go wrong, after the faults that were asked for before.

        `status` (status=, retry_after=), `delay` (seconds=), `cut` (nothing is run), `lost` (run,
        but not answered), `half`, `bad_json`.
        """
        self._control("fault", {"kind": kind, "times": times, **details})

    def calls(self) -> list[dict[str, Any]]:
        """The calls since the test began: their `statements`, and the `status` that was answered."""
        return self._control("calls", {})

    def reset(self) -> None:
        self._control("reset", {})

    def _statements(self, statements: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
        return self._control("sql", statements)

    def _control(self, name: str, body: Any) -> Any:
        url = f"http://127.0.0.1:{self.port}/control/{name}"
        with _OPENER.open(urllib.request.Request(url, json.dumps(body).encode()), timeout=30) as answer:
            return json.loads(answer.read())
