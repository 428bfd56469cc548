"""The module as an OCI image, without a container runtime.

One layer with one file, `plugin.wasm`: the "compat" layout of the Wasm image specification, which
Istio's and Envoy Gateway's `oci://` read, and which Kubernetes can mount as a volume. The other layout
(the bare module as a layer of its own media type) cannot be mounted. The layer is the same for every
platform, so one index lists them all.
"""

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

FILE = "plugin.wasm"
"""The name that Istio looks for."""
ARCHITECTURES = ("amd64", "arm64")
OCI = "application/vnd.oci.image"


def layout(module: bytes, version: str) -> dict[str, bytes]:
    """The files of an OCI image layout, by path. The same module gives the same bytes."""
    blobs: dict[str, bytes] = {}

    def blob(kind: str, content: bytes, **more: Any) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = content
        return {"mediaType": f"{OCI}.{kind}", "digest": f"sha256:{digest}", "size": len(content), **more}

    tar = archive({FILE: module})
    layer = blob("layer.v1.tar+gzip", gzip.compress(tar, 9, mtime=0))
    title = {"org.opencontainers.image.title": "one-balance", "org.opencontainers.image.version": version}
    manifests = []
    for architecture in ARCHITECTURES:
        platform = {"architecture": architecture, "os": "linux"}
        rootfs = {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(tar).hexdigest()}"]}
        config = blob("config.v1+json", encode({**platform, "config": {"Labels": title}, "rootfs": rootfs}))
        manifest = {"schemaVersion": 2, "mediaType": f"{OCI}.manifest.v1+json", "config": config, "layers": [layer]}
        manifests.append(blob("manifest.v1+json", encode({**manifest, "annotations": title}), platform=platform))
    index = {"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": manifests}
    name = {"org.opencontainers.image.ref.name": version}
    top = {"schemaVersion": 2, "manifests": [blob("index.v1+json", encode(index), annotations=name)]}
    return {"oci-layout": encode({"imageLayoutVersion": "1.0.0"}), "index.json": encode(top), **blobs}


def archive(files: dict[str, bytes]) -> bytes:
    """A tar whose bytes depend on nothing but these files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(files):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(files[name]), 0o644
            tar.addfile(entry, io.BytesIO(files[name]))
    return out.getvalue()


def write(module: Path, version: str, path: Path) -> None:
    """Writes an archive for `skopeo copy --all oci-archive:PATH docker://...`."""
    path.write_bytes(archive(layout(module.read_bytes(), version)))


def encode(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
