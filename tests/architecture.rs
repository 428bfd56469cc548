//! The rules of the architecture, held against the sources' own imports.
//!
//! Paths are found as text: `use crate::…`, `super::…` and paths in the code. That is enough, because the code
//! is formatted by rustfmt and imports nothing by a glob outside of tests.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Which room must not know which others, and why.
const FORBIDDEN: &[(&str, &[&str])] = &[
    // What an answer says is a fact about providers; what follows from it is policy.
    ("answer", &["pool", "config", "balancer", "request", "d1", "console", "filter", "reply"]),
    // A translation is a function of the bodies.
    ("translate", &["request", "config", "pool", "balancer", "d1", "console", "filter"]),
    // The pool is the same with and without D1.
    ("pool", &["d1", "balancer", "request", "console", "filter", "reply", "answer", "translate"]),
    // What can be configured, and what is known of providers, is below what uses it.
    ("config", &["pool", "d1", "balancer", "request", "console", "filter", "reply"]),
    ("provider", &["pool", "config", "d1", "balancer", "request", "console", "filter", "reply"]),
    ("quota.rs", &["pool", "config", "provider", "d1", "balancer", "request"]),
    ("console", &["request", "balancer", "filter"]),
    ("d1", &["request", "balancer", "filter", "console", "reply"]),
    ("request", &["pool", "balancer", "filter", "d1"]),
    ("balancer", &["filter", "console", "d1"]),
    // The ground: forms of the wire, time and the host, which know nothing of the product.
    ("json", GROUND_KNOWS_NOTHING_OF),
    ("http", GROUND_KNOWS_NOTHING_OF),
    ("time", GROUND_KNOWS_NOTHING_OF),
    ("host", GROUND_KNOWS_NOTHING_OF),
    ("secret.rs", GROUND_KNOWS_NOTHING_OF),
    ("memcmp.rs", GROUND_KNOWS_NOTHING_OF),
];

const GROUND_KNOWS_NOTHING_OF: &[&str] = &[
    "answer",
    "auth",
    "balancer",
    "config",
    "console",
    "d1",
    "filter",
    "observe",
    "pool",
    "provider",
    "quota",
    "reply",
    "request",
    "translate",
];

/// What only the adapter may name: hosts, and sources of time, environment and randomness.
const HOSTS: &[&str] =
    &["proxy_wasm", "envoy_dynamic_module", "SystemTime::now", "Instant::now", "std::env", "RandomState", "worker::"];

/// A source file: its path below `src`, and its code without comments and tests.
struct Source {
    path: PathBuf,
    code: String,
}

impl Source {
    fn room(&self) -> String {
        self.path.iter().next().unwrap().to_str().unwrap().to_owned()
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// The module's path below `crate`.
    fn module(&self) -> Vec<String> {
        let mut module: Vec<String> =
            self.path.with_extension("").iter().map(|part| part.to_str().unwrap().to_owned()).collect();
        if matches!(module.last().map(String::as_str), Some("mod" | "lib")) {
            module.pop();
        }
        module
    }

    /// Every path that the code names, from the crate's root.
    fn paths(&self) -> BTreeSet<Vec<String>> {
        let mut paths = BTreeSet::new();
        for (at, _) in self.code.match_indices("crate::") {
            collect(&self.code[at + "crate::".len()..], &mut Vec::new(), &mut paths);
        }
        for (at, _) in self.code.match_indices("super::") {
            let before = &self.code[..at];
            // `super::super::x` is read from its first word.
            if before.ends_with("super::") || before.ends_with(|char: char| char.is_alphanumeric() || char == ':') {
                continue;
            }
            let rest = &self.code[at..];
            let ups = rest.split("::").take_while(|part| *part == "super").count();
            let mut module = self.module();
            module.truncate(module.len().saturating_sub(ups));
            collect(&rest[ups * "super::".len()..], &mut module, &mut paths);
        }
        paths
    }
}

/// Reads `a::b::{c, d::E}` from the beginning of a text.
fn collect(text: &str, prefix: &mut Vec<String>, paths: &mut BTreeSet<Vec<String>>) -> usize {
    let depth = prefix.len();
    let mut at = 0;
    loop {
        let rest = &text[at..];
        let word = rest.find(|char: char| !(char.is_alphanumeric() || char == '_')).unwrap_or(rest.len());
        if word > 0 {
            prefix.push(rest[..word].to_owned());
            at += word;
            if text[at..].starts_with("::") {
                at += 2;
                continue;
            }
            paths.insert(prefix.clone());
            break;
        }
        if rest.starts_with('{') {
            at += 1;
            while !text[at..].starts_with('}') {
                let skipped = text[at..].find(|char: char| !(char.is_whitespace() || char == ',')).unwrap();
                at += skipped;
                if text[at..].starts_with('}') {
                    break;
                }
                at += collect(&text[at..], prefix, paths).max(1);
                // `as other`.
                at += text[at..].find([',', '}']).unwrap();
            }
            at += 1;
        } else {
            paths.insert(prefix.clone());
            at += rest.chars().next().map_or(0, char::len_utf8);
        }
        break;
    }
    prefix.truncate(depth);
    at
}

fn sources() -> Vec<Source> {
    fn walk(folder: &Path, root: &Path, sources: &mut Vec<Source>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, root, sources);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
                let lines = code.lines().map(|line| line.split("//").next().unwrap());
                let code = lines.collect::<Vec<_>>().join("\n");
                sources.push(Source { path: path.strip_prefix(root).unwrap().to_owned(), code });
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    walk(&root, &root, &mut sources);
    sources
}

/// The files that each file imports, by the longest module path that is a file.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let sources = sources();
    let by_module: BTreeMap<Vec<String>, String> =
        sources.iter().map(|source| (source.module(), source.name())).collect();
    let of = |source: &Source| {
        source
            .paths()
            .into_iter()
            .filter_map(|path| (1..=path.len()).rev().find_map(|length| by_module.get(&path[..length])).cloned())
            .filter(|imported| *imported != source.name())
            .collect()
    };
    sources.iter().map(|source| (source.name(), of(source))).collect()
}

fn room(file: &str) -> &str {
    file.split('/').next().unwrap()
}

#[test]
fn the_walk_sees_what_is_there() {
    let imports = imports();
    assert!(imports.len() > 90, "{} files", imports.len());
    for (file, imported) in [
        ("balancer/mod.rs", "pool/mod.rs"),
        ("pool/lease.rs", "pool/mod.rs"),
        ("pool/usage_pages.rs", "host/store.rs"),
        ("request/openai.rs", "request/forward.rs"),
        ("plugin/host.rs", "host/mod.rs"),
    ] {
        assert!(imports[file].contains(imported), "{file} imports {imported}: {:?}", imports[file]);
    }
}

#[test]
fn only_the_adapter_names_a_host() {
    for source in sources().iter().filter(|source| source.room() != "plugin") {
        for host in HOSTS {
            assert!(!source.code.contains(host), "{} names {host}", source.name());
        }
    }
}

#[test]
fn no_room_knows_what_it_must_not() {
    let imports = imports();
    for (who, forbidden) in FORBIDDEN {
        let files: Vec<_> = imports.iter().filter(|(file, _)| room(file) == *who).collect();
        assert!(!files.is_empty(), "there is no room {who}");
        for (file, imported) in files {
            for other in imported {
                let other_room = room(other).trim_end_matches(".rs");
                assert!(!forbidden.contains(&other_room), "{file} imports {other}");
            }
        }
    }
}

/// A `mod.rs` and the files below its folder are one room, and may name each other: that is how Rust splits a
/// module. Between all others, imports form no circle.
#[test]
fn imports_form_no_circle() {
    let mut left = imports();
    for (file, imported) in &mut left {
        let own = |folder: &str, other: &str| other.starts_with(folder);
        imported.retain(|other| {
            let of_mine = file.strip_suffix("mod.rs").is_some_and(|folder| own(folder, other));
            let of_theirs = other.strip_suffix("mod.rs").is_some_and(|folder| own(folder, file));
            !(of_mine || of_theirs) && other != "lib.rs"
        });
    }
    left.remove("lib.rs");
    // Takes out whatever imports nothing that is left; what remains has a circle in it.
    loop {
        let done: BTreeSet<String> =
            left.iter().filter(|(_, imported)| imported.is_empty()).map(|(file, _)| file.clone()).collect();
        if done.is_empty() {
            break;
        }
        left.retain(|file, _| !done.contains(file));
        left.values_mut().for_each(|imported| imported.retain(|other| !done.contains(other)));
    }
    assert!(left.is_empty(), "these import each other in a circle: {left:#?}");
}

#[test]
fn the_top_of_src_can_be_taken_in_at_a_glance() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let names: Vec<_> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.len() <= 24, "{} names: {names:?}", names.len());
}
