//! What stands in more than one shipped file agrees.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use one_balance::config::VARIABLES;

fn read(path: &str) -> String {
    let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A variable that Envoy does not pass on would be ignored without a word.
#[test]
fn every_variable_reaches_the_filter_and_is_documented() {
    let (yaml, readme) = (read("envoy/envoy.yaml"), read("README.md"));
    for (variable, field) in VARIABLES {
        assert!(yaml.contains(&format!("- {variable}\n")), "{variable} is not in host_env_keys of envoy/envoy.yaml");
        assert!(readme.contains(&format!("`{variable}`")), "{variable} is not in the README");
        assert!(readme.contains(&format!("`{field}`")) || field.starts_with("d1_"), "{field} is not in the README");
    }
}

/// The body limit of the filter must be reached before Envoy's, whose 413 no client can read.
#[test]
fn envoy_buffers_a_little_more_than_the_filter_accepts() {
    let yaml = read("envoy/envoy.yaml");
    let limit = yaml.lines().find_map(|line| line.trim().strip_prefix("request_body_buffer_limit: "));
    let limit: usize = limit.unwrap().parse().unwrap();
    let env = |name: &str| (name == "AUTH_KEY").then(|| "a".to_owned());
    assert!(limit > one_balance::config::Config::parse(b"", env).unwrap().max_body_bytes);
}
