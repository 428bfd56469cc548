//! When does what a failed answer complains about end?
//!
//! Several parts of one answer can name a time. They are asked in an order in which a more exact one
//! comes before a vaguer one; what none of them names stays `None`.

use super::rules::Failure;
use super::{Window, reset};
use crate::time::{DailyReset, Span, Time};

impl Failure<'_> {
    /// When the answer says to try again: the longer of the used-up limit's reset and of the first
    /// explicit wait; without either, the one reset that is stated.
    pub fn wait(&self) -> Option<Time> {
        let spent = self.exhausted.and_then(|spent| spent.until);
        let explicit = self.explicit_wait();
        let at = spent.max(explicit).or_else(|| self.only_reset())?;
        Some(reset::clamp(self.answer.now, at, reset::LONGEST))
    }

    /// The first explicit demand to wait: headers before the body's fields before its prose.
    pub fn explicit_wait(&self) -> Option<Time> {
        let now = self.answer.now;
        let headers = self.answer.headers;
        let millis = || {
            let millis: f64 = headers.text("retry-after-ms")?.parse().ok()?;
            Span::from_secs_f64(millis / 1000.0).filter(|span| span.0 > 0).map(|span| now.plus(span))
        };
        let fields = || self.error.number(&["retry_after_seconds", "retry_after", "estimated_time"]);
        millis()
            .or_else(|| reset::parse(headers.text("retry-after")?, now))
            .or_else(|| self.google.retry.map(|delay| now.plus(delay)))
            .or_else(|| fields().and_then(|number| reset::from_number(number, now)))
            .or_else(|| reset::in_message(&self.error.message, now))
    }

    /// The reset of the lone limit whose rest is not stated, or else of the limit that the message
    /// complains about (the request needed more than its rest). Of several others none can be told.
    fn only_reset(&self) -> Option<Time> {
        let dated = || self.limits.iter().filter(|limit| limit.reset.is_some());
        let mut unsure = dated().filter(|limit| limit.remaining.is_none());
        match (unsure.next(), unsure.next()) {
            (Some(only), None) => only.reset,
            _ => dated().find(|limit| limit.what == self.limited().0)?.reset,
        }
    }

    /// The stated end of a used-up limit over this window.
    pub fn reset_of(&self, window: Window) -> Option<Time> {
        self.exhausted.filter(|spent| spent.window == window)?.until
    }

    /// The end of the provider's day, where that is known.
    pub fn next_day(&self) -> Option<Time> {
        let (now, day) = (self.answer.now, self.answer.provider.daily_reset);
        (day != DailyReset::After24Hours).then(|| reset::clamp(now, day.next(now), reset::LONGEST))
    }
}
