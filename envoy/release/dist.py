"""`make dist`: what a release is, in dist/.

    one_balance.wasm                the module
    one-balance-VERSION-oci.tar     the same as an OCI image, see oci.py
    one-balance-VERSION.tar.gz      the module, configurations, manifests, documents, licences
    SHA256SUMS                      of these three, for `sha256sum --check`

The version is Cargo.toml's. The same sources and compiler give the same bytes.
"""

import gzip
import hashlib
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import licences
import oci

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "target" / "one_balance.wasm"
SHIPPED = [
    "LICENSE",
    "README.md",
    "README.zh.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs",
    "envoy",
]
"""Whatever git knows below these."""


def version() -> str:
    return tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]


def sources() -> dict[str, bytes]:
    names = subprocess.run(
        ["git", "ls-files", "-z", "--", *SHIPPED], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    return {name: (ROOT / name).read_bytes() for name in names.split("\0") if name}


def make(out: Path) -> list[Path]:
    """Writes everything; the files, SHA256SUMS last."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    name = f"one-balance-{version()}"
    module = out / MODULE.name
    shutil.copyfile(MODULE, module)
    image = out / f"{name}-oci.tar"
    oci.write(module, version(), image)
    files = {f"{name}/{path}": content for path, content in sources().items()}
    # Where a build would leave it, so that commands and the Dockerfile find it.
    files[f"{name}/{MODULE.relative_to(ROOT)}"] = module.read_bytes()
    files[f"{name}/LICENCES.txt"] = licences.collect(ROOT).encode()
    tree = out / f"{name}.tar.gz"
    tree.write_bytes(gzip.compress(oci.archive(files), 9, mtime=0))
    made = [module, image, tree]
    sums = out / "SHA256SUMS"
    sums.write_text("".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in made))
    return [*made, sums]


if __name__ == "__main__":
    try:
        for path in make(ROOT / "dist"):
            print(f"{path.stat().st_size:>9}  {path.relative_to(ROOT)}")
    except licences.Refused as refused:
        sys.exit(f"make dist: {refused}")
