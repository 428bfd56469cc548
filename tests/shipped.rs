//! Facts that are in more than one shipped file agree.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use one_balance::config::{Config, Problems, VARIABLES};
use serde_json::{Value, json};

fn read(path: &str) -> String {
    let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A row of the manual's table of settings.
struct Setting {
    variable: String,
    field: String,
    /// What is in backticks or plain in the columns for range and default.
    range: String,
    default: String,
}

fn settings() -> Vec<Setting> {
    let manual = read("docs/configuration.md");
    let rows = manual.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let settings: Vec<_> = rows
        .filter_map(|row| {
            let cells: Vec<_> = row.split('|').map(|cell| cell.trim().replace('`', "")).collect();
            let [variable, field, range, default]: [String; 4] = cells.try_into().ok()?;
            Some(Setting { variable, field, range, default })
        })
        .filter(|setting| setting.field != "field" && !setting.field.starts_with('-'))
        .collect();
    assert!(settings.len() > VARIABLES.len(), "the table of settings is not found");
    settings
}

/// Reads a configuration with this value for a field.
fn parse(field: &str, value: Value) -> Result<Config, Problems> {
    let config = match field.strip_prefix("providers.{slug}.") {
        Some("weights") => {
            json!({"auth_key": "a", "providers": {"anthropic": {"weights": {"0123456789abcdef": value}}}})
        }
        Some(name) => json!({"auth_key": "a", "providers": {"anthropic": {name: value}}}),
        None => json!({"auth_key": "a", field: value}),
    };
    Config::parse(config.to_string().as_bytes(), |_| None)
}

/// A variable that Envoy does not pass on would be ignored without a word.
#[test]
fn every_variable_reaches_the_filter_and_is_documented() {
    let yaml = read("envoy/envoy.yaml");
    let settings = settings();
    for (variable, field) in VARIABLES {
        assert!(yaml.contains(&format!("- {variable}\n")), "{variable} is not in host_env_keys of envoy/envoy.yaml");
        let documented = settings.iter().any(|setting| setting.variable == *variable && setting.field == *field);
        assert!(documented, "{variable} with its field {field} is not in docs/configuration.md");
    }
    let named = settings.iter().filter(|setting| !setting.variable.is_empty()).count();
    assert_eq!(named, VARIABLES.len(), "docs/configuration.md names a variable that does not exist");
}

#[test]
fn documented_ranges_are_those_that_are_accepted() {
    let settings = settings();
    let ranges = settings.iter().filter_map(|setting| {
        let (least, most) = setting.range.split_once('–')?;
        Some((&*setting.field, least.parse::<u64>().ok()?, most.parse::<u64>().ok()?))
    });
    let mut tried = 0;
    for (field, least, most) in ranges {
        assert!(parse(field, json!(least)).is_ok(), "{field}: {least} is refused");
        assert!(parse(field, json!(most)).is_ok(), "{field}: {most} is refused");
        assert!(parse(field, json!(most + 1)).is_err(), "{field}: {} is accepted", most + 1);
        assert!(parse(field, json!(least as i64 - 1)).is_err(), "{field}: {} is accepted", least as i64 - 1);
        tried += 1;
    }
    assert_eq!(tried, 7);
}

#[test]
fn documented_choices_are_those_that_are_accepted() {
    let settings = settings();
    let choices = settings.iter().filter(|setting| setting.range.contains(", "));
    let mut tried = 0;
    for Setting { field, range, .. } in choices {
        let is_flag = range.starts_with("true");
        let value = |word: &str| if is_flag { json!(word == "true") } else { json!(word) };
        for word in range.split(", ") {
            assert!(parse(field, value(word)).is_ok(), "{field}: {word} is refused");
        }
        let Err(problems) = parse(field, json!("odd")) else { panic!("{field}: odd is accepted") };
        let words = problems.join("\n");
        if !is_flag {
            assert!(words.ends_with(&format!("must be one of {range}")), "{field}: {words}");
        }
        tried += 1;
    }
    assert_eq!(tried, 7);
}

#[test]
fn documented_defaults_are_those_in_force() {
    let settings = settings();
    let default = |field: &str| {
        let setting = settings.iter().find(|setting| setting.field == field);
        setting.map(|setting| setting.default.clone()).unwrap_or_default()
    };
    let same = |field: &str, value: String| assert_eq!(default(field), value, "{field}");
    let defaults = Config::parse(br#"{"auth_key": "a"}"#, |_| None).unwrap();
    same("max_retries", defaults.max_retries.to_string());
    same("max_body_bytes", defaults.max_body_bytes.to_string());
    same("token_metrics", defaults.token_metrics.to_string());
    same("consecutive_429_threshold", defaults.policy.consecutive_429_threshold.to_string());
    same("default_cooling_seconds", defaults.policy.default_cooling.as_secs_up().to_string());
    same("credit_rest_seconds", defaults.policy.credit_rest.as_secs_up().to_string());
    // The default of a choice is what its word means.
    let word = |field: &str| parse(field, json!(default(field))).unwrap();
    assert_eq!(word("when_all_cooling").when_all_cooling, defaults.when_all_cooling);
    assert_eq!(word("console").console, defaults.console);
    for field in ["selection", "escalate", "daily_quota"] {
        assert_eq!(word(field).policy, defaults.policy, "{field}");
    }
}

/// The body limit of the filter must be reached before Envoy's, whose 413 no client can read.
#[test]
fn envoy_buffers_a_little_more_than_the_filter_accepts() {
    let yaml = read("envoy/envoy.yaml");
    let limit = yaml.lines().find_map(|line| line.trim().strip_prefix("request_body_buffer_limit: "));
    let limit: usize = limit.unwrap().parse().unwrap();
    let env = |name: &str| (name == "AUTH_KEY").then(|| "a".to_owned());
    assert!(limit > Config::parse(b"", env).unwrap().max_body_bytes);
}
