"""The documents against the code: what they name exists, and both languages say the same."""

import ast
import re

import harness
import pytest
import yaml

DOCS = harness.ROOT / "docs"
PAIRS = [("docs/deployment.md", "docs/deployment.zh.md"), ("README.md", "README.zh.md")]
PAGES = sorted(str(path.relative_to(harness.ROOT)) for folder in (harness.ROOT, DOCS) for path in folder.glob("*.md"))
"""Every document, also of contributors."""
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
USERS = {"envoy/docker/.env", "envoy/secret/secrets.env"}
"""Files that the user makes."""


def text(page):
    return (harness.ROOT / page).read_text()


def blocks(page):
    return BLOCK.findall(text(page))


def words(page):
    """Everything in backticks."""
    return CODE.findall(BLOCK.sub("", text(page)))


def source(pattern="*.rs"):
    """The source without its tests, of the files whose names fit."""
    files = (harness.ROOT / "src").rglob(pattern)
    return "".join(path.read_text().partition("#[cfg(test)]")[0] for path in files)


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", text(page)), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page):
    """The relative links of a page, each as the path that it leads to and the anchor there."""
    for link in LINK.findall(BLOCK.sub("", text(page))):
        if not re.match(r"[a-z]+:", link):
            path, _, anchor = link.partition("#")
            target = ((harness.ROOT / page).parent / path).resolve() if path else harness.ROOT / page
            yield link, target, anchor


def table(page, heading):
    """The cells of the rows below a heading, without the table's head."""
    section = text(page).split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [
        [cell.strip() for cell in row.strip("|").split("|")] for row in re.findall(r"^\|.*\|$", section, re.MULTILINE)
    ]
    return rows[2:]


def test_the_pages_are_found():
    assert {"README.md", "README.zh.md", "docs/configuration.md", "docs/behaviour.md"} <= set(PAGES)


@pytest.mark.parametrize(("english", "chinese"), PAIRS)
def test_both_languages_have_the_same_commands(english, chinese):
    assert blocks(english)
    assert blocks(english) == blocks(chinese)


@pytest.mark.parametrize(("english", "chinese"), PAIRS)
def test_both_languages_name_the_same_things(english, chinese):
    assert sorted(words(english)) == sorted(words(chinese))


@pytest.mark.parametrize(("english", "chinese"), PAIRS)
def test_both_languages_have_the_same_tables(english, chinese):
    first, second = (
        [line.count("|") for line in text(page).splitlines() if line.startswith("|")] for page in (english, chinese)
    )
    assert first == second


@pytest.mark.parametrize("page", PAGES)
def test_the_links_lead_somewhere(page):
    for link, target, anchor in links(page):
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.relative_to(harness.ROOT)), link


def test_the_links_of_a_release_lead_to_what_it_has():
    script = (harness.ROOT / "envoy" / "release" / "dist.py").read_text()
    shipped = ast.literal_eval(re.search(r"^SHIPPED = (\[.*?\])$", script, re.MULTILINE | re.DOTALL)[1])
    within = lambda target: any(target.is_relative_to(harness.ROOT / name) for name in shipped)  # noqa: E731
    pages = [page for page in PAGES if within(harness.ROOT / page)]
    assert "README.md" in pages
    assert [(page, link) for page in pages for link, target, _ in links(page) if not within(target)] == []


@pytest.mark.parametrize("page", PAGES)
def test_the_targets_exist(page):
    named = set(re.findall(r"(?:`|^)make ([a-z][a-z0-9-]*)", text(page), re.MULTILINE))
    existing = set(re.findall(r"^([a-z0-9-]+):", text("Makefile"), re.MULTILINE))
    assert named or page not in (*PAIRS[0], "README.md")
    assert named <= existing


@pytest.mark.parametrize("page", PAGES)
def test_the_files_exist(page):
    named = set(re.findall(r"(?<![/\w.])(?:envoy|examples|src|tests)/[\w./-]*\w", text(page)))
    assert named or page not in PAIRS[0]
    assert [name for name in named - USERS if not (harness.ROOT / name).exists()] == []


def test_the_codes_exist():
    rows = [row for row in text("docs/deployment.md").splitlines() if re.match(r"\| (OpenAI|\d{3})", row)]
    codes = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", " ".join(row.split("|")[1] for row in rows)))
    assert len(codes) >= 10
    assert [code for code in codes if f'"{code}"' not in source()] == []


def test_every_code_is_documented_with_its_status():
    codes = dict(re.findall(r' = "([a-z0-9_]+)", (\d{3}), \w+, \w+;', text("src/reply/code.rs")))
    rows = table("docs/behaviour.md", "Codes")
    documented = {code.strip("`"): status for code, status, _ in rows}
    assert len(codes) >= 40
    assert len(documented) == len(rows)
    assert documented.keys() == codes.keys()
    # Where the status is the provider's, the table of the source has the one in case there is none.
    assert [
        code for code in codes if documented[code] != "the provider's" and codes[code] not in documented[code]
    ] == []
    named = {code for page in PAGES for code in re.findall(r"\b[45]\d\d `([a-z0-9_]+)`", text(page))}
    assert named <= codes.keys()


def test_the_metrics_exist():
    metrics = source("metrics.rs")
    families = [
        row[0].strip("`").removeprefix("one_balance_")
        for row in table("docs/metrics.md", "Metrics")
        if "one_" in row[0]
    ]
    assert len(families) == 13
    for family in families:
        dotted = family.replace("d1_", "d1.", 1)
        assert f'"{family}"' in metrics or f"one_balance.{dotted}" in metrics, family
    made = set(re.findall(r"\bname\(\"([a-z_]+)\"|one_balance\.((?:d1\.)?[a-z_]+)[\".]", metrics))
    made = {(family or other).replace(".", "_") for family, other in made}
    assert made - {"requests"} <= set(families)


@pytest.mark.parametrize("label", ["result", "outcome", "reason", "class"])
def test_the_values_of_labels_exist(label):
    [line] = re.findall(rf"^- `{label}` is ((?:.|\n  )*)", text("docs/metrics.md"), re.MULTILINE)
    values = CODE.findall(line)
    assert len(values) >= 5
    assert [value for value in values if f'"{value}"' not in source()] == []


def test_every_setting_is_documented():
    config = source("config/*.rs")
    read = r'\b(?:text|texts|number|flag|choice|object|seconds|limit)\(\s*(?:reader, )?"([a-z0-9_]+)"'
    fields = set(re.findall(read, config))
    assert len(fields) > 30
    named = [*words("docs/configuration.md"), *(block for _, block in blocks("docs/configuration.md"))]
    documented = re.findall(r"[a-z0-9_]+", " ".join(named))
    assert fields <= set(documented)


def test_the_hints_of_verify_are_for_codes_that_exist():
    verify = (harness.ROOT / "envoy" / "verify.py").read_text()
    hints = set(re.findall(r'^    "([a-z_]+)": ', verify, re.MULTILINE))
    assert hints
    assert [code for code in hints if f'"{code}"' not in source()] == []


def test_the_variables_are_passed_to_the_filter():
    [passed] = [node["host_env_keys"] for node in harness.run.walk(harness.run.load()) if "host_env_keys" in node][:1]
    named = {
        word.partition("=")[0]
        for word in words("docs/deployment.md")
        if re.fullmatch(r"[A-Z][A-Z0-9_]{5,}(=.*)?", word)
    }
    named -= {"CLOUDFLARE_ACCOUNT_ID"}  # wrangler's
    assert {name for name in named if name not in passed and name != "SHA256SUMS"} == set()


@pytest.mark.parametrize("page", PAGES)
def test_the_yaml_and_json_parse(page):
    for language, block in blocks(page):
        if language in ("yaml", "json"):
            yaml.safe_load(block)


def test_the_versions_are_those_that_are_tried():
    tried = (harness.ROOT / "tests" / "e2e" / "test_versions.py").read_text()
    pinned = (harness.ROOT / "envoy" / "requirements.txt").read_text()
    named = set(re.findall(r"\b1\.3\d\.\d\b|\b1\.4\d\.\d\b", text("docs/deployment.md")))
    assert named
    assert [version for version in named if version not in tried + pinned] == []
