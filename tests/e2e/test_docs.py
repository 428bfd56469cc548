"""The deployment guide against the code: what it names exists, and both languages say the same."""

import re

import harness
import pytest
import yaml

DOCS = harness.ROOT / "docs"
GUIDES = ["deployment.md", "deployment.zh.md"]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")


def blocks(name):
    return BLOCK.findall((DOCS / name).read_text())


def words(name):
    """Everything in backticks."""
    return CODE.findall(BLOCK.sub("", (DOCS / name).read_text()))


def test_both_languages_have_the_same_commands():
    assert blocks(GUIDES[0]) == blocks(GUIDES[1])


def test_both_languages_name_the_same_things():
    assert sorted(words(GUIDES[0])) == sorted(words(GUIDES[1]))


def test_both_languages_have_the_same_tables():
    first, second = (
        [line.count("|") for line in (DOCS / name).read_text().splitlines() if line.startswith("|")] for name in GUIDES
    )
    assert first == second


def test_the_targets_exist():
    text = (DOCS / GUIDES[0]).read_text()
    named = set(re.findall(r"\bmake ([a-z][a-z0-9-]*)", text))
    existing = set(re.findall(r"^([a-z0-9-]+):", (harness.ROOT / "Makefile").read_text(), re.MULTILINE))
    assert named
    assert named <= existing


def test_the_files_exist():
    text = (DOCS / GUIDES[0]).read_text()
    named = set(re.findall(r"(?<![/\w])(?:envoy|tests)/[\w./-]*\w", text))
    named -= {"envoy/docker/.env", "envoy/secret/secrets.env"}  # the user's to make
    assert named
    assert [name for name in named if not (harness.ROOT / name).exists()] == []


def test_the_codes_exist():
    source = "".join(path.read_text() for path in (harness.ROOT / "src").rglob("*.rs"))
    rows = [row for row in (DOCS / GUIDES[0]).read_text().splitlines() if re.match(r"\| (OpenAI|\d{3})", row)]
    codes = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", " ".join(row.split("|")[1] for row in rows)))
    assert len(codes) >= 10
    assert [code for code in codes if f'"{code}"' not in source and code not in source] == []


def test_the_hints_of_verify_are_for_codes_that_exist():
    source = "".join(path.read_text() for path in (harness.ROOT / "src").rglob("*.rs"))
    verify = (harness.ROOT / "envoy" / "verify.py").read_text()
    hints = set(re.findall(r'^    "([a-z_]+)": ', verify, re.MULTILINE))
    assert hints
    assert [code for code in hints if f'"{code}"' not in source] == []


def test_the_variables_are_passed_to_the_filter():
    [passed] = [node["host_env_keys"] for node in harness.run.walk(harness.run.load()) if "host_env_keys" in node][:1]
    named = {word.partition("=")[0] for word in words(GUIDES[0]) if re.fullmatch(r"[A-Z][A-Z0-9_]{5,}(=.*)?", word)}
    named -= {"CLOUDFLARE_ACCOUNT_ID"}  # wrangler's
    assert {name for name in named if name not in passed and name != "SHA256SUMS"} == set()


@pytest.mark.parametrize("name", GUIDES)
def test_the_yaml_parses(name):
    for language, text in blocks(name):
        if language == "yaml":
            yaml.safe_load(text)


def test_the_versions_are_those_that_are_tried():
    tried = (harness.ROOT / "tests" / "e2e" / "test_versions.py").read_text()
    pinned = (harness.ROOT / "envoy" / "requirements.txt").read_text()
    named = set(re.findall(r"\b1\.3\d\.\d\b|\b1\.4\d\.\d\b", (DOCS / GUIDES[0]).read_text()))
    assert named
    assert [version for version in named if version not in tried + pinned] == []
