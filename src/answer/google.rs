//! What Google's errors state in their `details`: which quotas are violated, and how long to wait.

use serde_json::Value;

use super::body::{ErrorBody, number};
use super::{Period, StatedLimit, What, Window, reset};
use crate::time::Span;

/// The violated quotas of one error and its RetryInfo.
#[derive(Debug, Default)]
pub(crate) struct QuotaFailure {
    violations: Vec<Violation>,
    /// RetryInfo's `retryDelay`. An error about a daily quota has a short one, too.
    pub(crate) retry: Option<Span>,
}

#[derive(Debug)]
struct Violation {
    /// The `quotaId` in lower case.
    id: String,
    value: Option<u64>,
    /// The value is 0, or missing because protobuf omits zeros. Never set for a body that was cut off.
    zero: bool,
}

/// How many details, and how many violations of each, are read.
const MOST: usize = 16;

impl QuotaFailure {
    /// Reads the error's `details`, or what is left of them in a body that was cut off.
    pub(crate) fn read(error: &ErrorBody) -> Self {
        let mut failure = QuotaFailure::default();
        let Some(details) = error.error().and_then(|error| error.get("details")).and_then(Value::as_array) else {
            if error.json.is_none() {
                failure.scan(&error.message);
            }
            return failure;
        };
        for detail in details.iter().take(MOST) {
            if let Some(delay) = detail.get("retryDelay").and_then(Value::as_str) {
                failure.retry = reset::duration(delay);
            }
            let violations = detail.get("violations").and_then(Value::as_array);
            for violation in violations.into_iter().flatten().take(MOST) {
                failure.add(violation);
            }
        }
        failure
    }

    fn add(&mut self, violation: &Value) {
        let Some(id) = violation.get("quotaId").and_then(Value::as_str) else { return };
        if self.violations.len() < MOST {
            let value = violation.get("quotaValue").and_then(number).map(|value| value as u64);
            self.violations.push(Violation { id: id.to_lowercase(), value, zero: matches!(value, None | Some(0)) });
        }
    }

    fn scan(&mut self, text: &str) {
        self.retry = quoted_after(text, "\"retrydelay\"").and_then(|(delay, _)| reset::duration(delay));
        let mut rest = text;
        while let Some((id, tail)) = quoted_after(rest, "\"quotaid\"").filter(|_| self.violations.len() < MOST) {
            self.violations.push(Violation { id: id.to_owned(), value: None, zero: false });
            rest = tail;
        }
    }

    /// The violation that lasts longest. Its period is `None` if the quota is of less than a day.
    pub(crate) fn longest(&self) -> Option<(Option<Period>, u32, What, Window)> {
        let rank = |violation: &Violation| match violation.period() {
            Some(Period::NotInTier) => 2,
            Some(_) => 1,
            None => 0,
        };
        let longest = self.violations.iter().max_by_key(|violation| rank(violation))?;
        Some((longest.period(), longest.hash(), longest.what(), longest.window()))
    }

    /// The limits that the error states.
    pub(crate) fn limits(&self) -> impl Iterator<Item = StatedLimit> {
        self.violations.iter().filter(|violation| !violation.zero && violation.value.is_some()).map(|violation| {
            let (what, window) = (violation.what(), violation.window());
            StatedLimit { what, window, limit: violation.value, remaining: None, reset: None }
        })
    }
}

impl Violation {
    fn period(&self) -> Option<Period> {
        if self.zero && self.id.contains("freetier") {
            Some(Period::NotInTier)
        } else {
            (self.window() == Window::Day).then_some(Period::Daily)
        }
    }

    fn what(&self) -> What {
        if self.id.contains("inputtoken") {
            What::InputTokens
        } else if self.id.contains("token") {
            What::Tokens
        } else {
            What::Requests
        }
    }

    fn window(&self) -> Window {
        if self.id.contains("perday") {
            Window::Day
        } else if self.id.contains("perminute") {
            Window::Minute
        } else {
            Window::Unstated
        }
    }

    /// FNV-1a of the id, which is small, stable across versions, and not secret.
    fn hash(&self) -> u32 {
        self.id.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
    }
}

/// The quoted text that follows `name` and a colon, and the text after it.
fn quoted_after<'a>(text: &'a str, name: &str) -> Option<(&'a str, &'a str)> {
    let value = text.split_once(name)?.1.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
    value.split_once('"')
}
