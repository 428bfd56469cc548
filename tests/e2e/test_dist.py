"""What `make dist` writes: readable by whom it is for, complete, and the same each time."""

import gzip
import hashlib
import importlib.util
import io
import json
import re
import shutil
import sys
import tarfile
import tomllib

import harness
import pytest

FOLDER = harness.ROOT / "envoy" / "release"


def load(name: str):
    sys.path.insert(0, str(FOLDER))
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


dist, licences, oci = load("dist"), load("licences"), load("oci")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return dist.make(tmp_path_factory.mktemp("dist") / "out")


def test_the_sums_are_of_the_files(made):
    *files, sums = made
    lines = [line.split("  ") for line in sums.read_text().splitlines()]
    assert [name for _, name in lines] == [path.name for path in files]
    assert all(
        digest == hashlib.sha256(path.read_bytes()).hexdigest() for (digest, _), path in zip(lines, files, strict=True)
    )


def test_the_module_fits_a_config_map(made):
    """A ConfigMap holds a mebibyte; packed and in base64 there is room to spare."""
    harness.require("the module's size", None if shutil.which("npm") else "wasm-opt needs Node")
    module = made[0].read_bytes()
    assert len(module) <= 1 << 20
    assert len(gzip.compress(module)) * 4 / 3 < 0.6 * (1 << 20)


def test_the_same_bytes_again(made, tmp_path):
    again = dist.make(tmp_path / "out")
    assert again[-1].read_text() == made[-1].read_text()


def test_the_image_as_istio_reads_it(made):
    """As pkg/wasm/imagefetcher.go: the index's image for a platform, its last layer, plugin.wasm in it."""
    with tarfile.open(made[1]) as tar:
        files = {entry.name: tar.extractfile(entry).read() for entry in tar.getmembers()}

    def follow(descriptor):
        content = files["blobs/" + descriptor["digest"].replace(":", "/")]
        assert hashlib.sha256(content).hexdigest() == descriptor["digest"].removeprefix("sha256:")
        assert len(content) == descriptor["size"]
        return content

    [top] = json.loads(files["index.json"])["manifests"]
    assert top["annotations"]["org.opencontainers.image.ref.name"] == dist.version()
    manifests = json.loads(follow(top))["manifests"]
    assert {entry["platform"]["architecture"] for entry in manifests} == {"amd64", "arm64"}
    for entry in manifests:
        manifest = json.loads(follow(entry))
        layer = manifest["layers"][-1]
        assert layer["mediaType"] == "application/vnd.oci.image.layer.v1.tar+gzip"
        unpacked = gzip.decompress(follow(layer))
        config = json.loads(follow(manifest["config"]))
        assert config["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(unpacked).hexdigest()]
        assert config["architecture"] == entry["platform"]["architecture"]
        with tarfile.open(fileobj=io.BytesIO(unpacked)) as tar:
            assert tar.getnames() == [oci.FILE]
            assert tar.extractfile(oci.FILE).read() == harness.run.MODULE.read_bytes()


def test_what_a_release_has(made):
    with tarfile.open(made[2]) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
        listed = tar.extractfile(f"one-balance-{dist.version()}/LICENCES.txt").read().decode()
    copied = re.findall(
        r"^COPY .* (\S+) \S+$", (harness.ROOT / "envoy" / "docker" / "Dockerfile").read_text(), re.MULTILINE
    )
    assert len(copied) == 2
    for name in (*copied, "LICENSE", "README.md", "envoy/envoy.yaml", "envoy/istio/base/envoyfilter.yaml"):
        assert name in names
    assert not [name for name in names if name.endswith("secrets.env")]
    for crate in ("serde_json", "proxy-wasm", "jiff"):
        assert f"== {crate} " in listed
    assert "== syn " not in listed, "a macro is not in the module"


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT OR Apache-2.0", True),
        ("GPL-3.0 OR MIT", True),
        ("MIT/Apache-2.0", True),
        ("MIT AND GPL-3.0", False),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", False),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("AGPL-3.0", False),
        ("none", False),
    ],
)
def test_licences(expression, allowed):
    assert licences.allowed(expression) == allowed


def test_one_version():
    """Cargo.toml's; the manifests and the guide name files and images by it."""
    paths = [*(harness.ROOT / "envoy").rglob("*.yaml"), *(harness.ROOT / "docs").glob("*.md")]
    texts = [path.read_text() for path in paths if "node_modules" not in path.parts]
    tags = {tag for text in texts for tag in re.findall(r"one-balance(?:-envoy)?[:-](\d+\.\d+\.\d+)", text)}
    assert tags == {dist.version()}


def test_one_compiler():
    """The pinned compiler is a patch release of the one that Cargo.toml asks for."""
    pinned = tomllib.loads((harness.ROOT / "rust-toolchain.toml").read_text())["toolchain"]["channel"]
    oldest = tomllib.loads((harness.ROOT / "Cargo.toml").read_text())["package"]["rust-version"]
    assert pinned.rpartition(".")[0] == oldest


def test_no_path_of_this_machine_is_in_the_module():
    module = harness.run.MODULE.read_bytes()
    for path in (str(harness.ROOT), "/.cargo/registry", "/root/"):
        assert path.encode() not in module
