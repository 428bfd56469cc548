//! Chooses when the limit ends that a failed answer complains about. How a time is written is the
//! affair of [`super::reset`].
//!
//! Several parts of one answer can state a time. A more exact one comes before a vaguer one, and if
//! none states it, the end is `None`.

use super::rules::Failure;
use super::{Window, reset};
use crate::time::{DailyReset, Span, Time};

impl Failure<'_> {
    /// When the answer says to try again: the later of the used-up limit's reset and the first explicit
    /// wait. Without either, it is the one reset that is stated.
    pub(crate) fn wait(&self) -> Option<Time> {
        let spent = self.exhausted.and_then(|spent| spent.until);
        let explicit = self.explicit_wait();
        let at = spent.max(explicit).or_else(|| self.only_reset())?;
        Some(reset::clamp(self.answer.now, at, reset::LONGEST))
    }

    /// The first explicit demand to wait: headers before the body's fields before its prose.
    pub(crate) fn explicit_wait(&self) -> Option<Time> {
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

    /// The reset of the only limit whose rest is not stated, or else of the limit that the message
    /// complains about, because the request needed more than its rest. If several limits are possible,
    /// there is no telling which one was hit.
    fn only_reset(&self) -> Option<Time> {
        let dated = || self.limits.iter().filter(|limit| limit.reset.is_some());
        let mut unsure = dated().filter(|limit| limit.remaining.is_none());
        match (unsure.next(), unsure.next()) {
            (Some(only), None) => only.reset,
            _ => dated().find(|limit| limit.what == self.limited().0)?.reset,
        }
    }

    /// The stated end of a used-up limit over this window.
    pub(crate) fn reset_of(&self, window: Window) -> Option<Time> {
        self.exhausted.filter(|spent| spent.window == window)?.until
    }

    /// The end of the provider's day, if the time of its daily reset is known.
    pub(crate) fn next_day(&self) -> Option<Time> {
        let (now, day) = (self.answer.now, self.answer.provider.daily_reset);
        (day != DailyReset::After24Hours).then(|| reset::clamp(now, day.next(now), reset::LONGEST))
    }
}
