//! Log lines about keys: one per change of state, and no more of them than a person can read.
//!
//! Ten thousand keys that reach their daily quota together would write as many lines, and the log would
//! slow the gateway down. So lines are taken from a token bucket that holds [`BURST`] and gains one every
//! [`FILL`]; the first line after an empty bucket reports how many were left out. The metrics count all
//! changes.

use core::fmt;
use std::cell::Cell;

use log::{Level, log};

use crate::time::{Span, Time};

/// The most lines in a row.
const BURST: u32 = 30;
/// The interval at which one more line is allowed after that.
const FILL: Span = Span::secs(2);

/// One worker's bucket.
#[derive(Debug)]
pub struct KeyLog(Cell<Bucket>);

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// The lines that may be written now.
    lines: u32,
    /// When the bucket was last refilled; a new bucket is full, so that it begins at the epoch.
    filled: Time,
    /// The lines that were left out since the last one that was written.
    omitted: u32,
}

impl Default for KeyLog {
    fn default() -> Self {
        KeyLog(Cell::new(Bucket { lines: BURST, filled: Time(0), omitted: 0 }))
    }
}

impl KeyLog {
    /// Writes a line about something expected.
    pub(crate) fn info(&self, now: Time, line: fmt::Arguments) {
        self.write(Level::Info, now, line);
    }

    /// Writes a line that an operator should act on.
    pub(crate) fn warn(&self, now: Time, line: fmt::Arguments) {
        self.write(Level::Warn, now, line);
    }

    fn write(&self, level: Level, now: Time, line: fmt::Arguments) {
        match self.take(now) {
            Some(0) => log!(level, "{line}"),
            Some(omitted) => log!(level, "{line} ({omitted} lines before this one were left out)"),
            None => {}
        }
    }

    /// Takes a line from the bucket and returns how many were left out before it; `None` if the bucket is empty.
    fn take(&self, now: Time) -> Option<u32> {
        let Bucket { mut lines, mut filled, omitted } = self.0.get();
        let new = u32::try_from(filled.until(now).0.checked_div(FILL.0).unwrap_or_default()).unwrap_or(BURST);
        if new > 0 {
            lines = lines.saturating_add(new).min(BURST);
            filled = now;
        }
        let (bucket, taken) = match lines.checked_sub(1) {
            Some(lines) => (Bucket { lines, filled, omitted: 0 }, Some(omitted)),
            None => (Bucket { lines, filled, omitted: omitted.saturating_add(1) }, None),
        };
        self.0.set(bucket);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_a_trickle() {
        let key_log = KeyLog::default();
        let mut now = Time::from_secs(1_000_000);
        let lines = |now| (0..100).filter_map(|_| key_log.take(now)).collect::<Vec<_>>();
        assert_eq!(lines(now), [0; BURST as usize]);
        now = now.plus(Span(FILL.0 - 1));
        assert!(lines(now).is_empty());
        now = now.plus(Span(1));
        assert_eq!(lines(now), [170], "it says how many are missing");
        now = now.plus(Span::secs(3600));
        assert_eq!(lines(now).len(), BURST as usize, "a long pause allows no more than one burst");
        assert_eq!(key_log.take(Time(0)), None, "a clock that was set back adds no lines");
    }
}
