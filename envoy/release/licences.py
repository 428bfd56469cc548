"""The licences of what is linked into the module, with their texts, from Cargo's own metadata.

Procedural macros, build scripts and test tools are not in the module, so not in the list.
"""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

TARGET = "wasm32-wasip1"
ALLOWED = {"Apache-2.0", "BSD-3-Clause", "ISC", "MIT", "Unicode-3.0", "Unlicense", "Zlib"}
"""A crate must offer one of these, or a human has to look. Exceptions (`WITH`) only widen a licence."""
TEXTS = re.compile(r"^(licen[cs]e|copying|unlicense|notice)", re.IGNORECASE)


class Refused(Exception):
    """A crate under terms that nobody has agreed to, or without their text."""


def collect(root: Path) -> str:
    """The whole list as a text."""
    command = ["cargo", "metadata", "--format-version=1", "--locked", "--filter-platform", TARGET]
    metadata = json.loads(subprocess.run(command, cwd=root, check=True, capture_output=True).stdout)
    crates = sorted(linked(metadata), key=lambda crate: (crate["name"], crate["version"]))
    lines = ["Linked into one_balance.wasm, beside one-balance itself (Apache-2.0, see LICENSE) and Rust's"]
    lines += ["standard library (MIT OR Apache-2.0):", ""]
    lines += [f"  {crate['name']} {crate['version']}: {crate['license']}" for crate in crates]
    for crate in crates:
        lines += ["", "", f"== {crate['name']} {crate['version']}: {crate['license']}, {crate['repository'] or ''}"]
        lines += texts(crate)
    return "\n".join(lines) + "\n"


def linked(metadata: dict[str, Any]) -> list[dict[str, Any]]:
    """The packages that the library's code comes from, without itself."""
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = metadata["resolve"]["root"]
    seen, todo = {root}, [root]
    while todo:
        for dependency in nodes[todo.pop()]["deps"]:
            package = packages[dependency["pkg"]]
            macro = any("proc-macro" in target["kind"] for target in package["targets"])
            normal = any(kind["kind"] is None for kind in dependency["dep_kinds"])
            if normal and not macro and package["id"] not in seen:
                seen.add(package["id"])
                todo.append(package["id"])
    return [packages[ident] for ident in seen - {root}]


def allowed(expression: str) -> bool:
    """Whether an SPDX expression lets us: one choice of its ORs, all parts of each AND. Brackets are refused."""
    choices = re.sub(r"\s+WITH\s+\S+", "", expression).replace("/", " OR ").split(" OR ")
    return any(all(part.strip() in ALLOWED for part in choice.split(" AND ")) for choice in choices)


def texts(crate: dict[str, Any]) -> list[str]:
    if not allowed(crate["license"] or "none"):
        raise Refused(f"{crate['name']}: {crate['license']}")
    folder = Path(crate["manifest_path"]).parent
    files = sorted(path for path in folder.iterdir() if path.is_file() and TEXTS.match(path.name))
    if not files:
        raise Refused(f"{crate['name']} {crate['version']} comes without the text of its licence")
    return [f"-- {path.name}\n{path.read_text(errors='replace').rstrip()}" for path in files]
