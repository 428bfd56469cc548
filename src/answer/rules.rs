//! The tests that classify a failed answer, in their order. This file decides what an answer says about a key.
//!
//! [`failure`] runs the tests one after the other, and the first that fits decides. An answer often fits
//! several: a 403 can be about credit, the region, our IP address, the key or the model, and providers
//! put the same words into different statuses. So the order is part of the rules:
//!
//! 1. `gateway`: AI Gateway's own errors look like the provider's, so they must be recognised before
//!    anything in them is taken for the provider's word.
//! 2. `quota`: spent credit and quotas come with 400, 402, 403 and 429, and mostly beside words that the
//!    later tests would take for a rate limit or a refusal.
//! 3. `overloaded`, before `rate_limit`: both come as 429, but an overload is not the key's.
//! 4. `rate_limit`, `transient`: a wait or another attempt helps.
//! 5. `not_mine`: what only another key owns comes as 403 and 404, too, and says nothing about this one.
//! 6. `region`, `ours`: refusals of our IP address come as 401 and 403, as a bad key does. They must be
//!    found first, or one blocked address would kill every key.
//! 7. `credential`: the only test after which a key may be taken for dead. Nothing is left by now that another
//!    cause explains; an answer that cannot be read never gets here, and a word of the request that an answer
//!    quotes does not count.
//! 8. `model_access`, `forbidden`: the remaining 401, 403 and 404.
//!
//! An answer that fits no test is the caller's fault, which costs the key nothing. When in doubt, a test
//! leaves an answer to a later one, because a living key that is taken for dead is lost until somebody
//! looks, and a dead key that is tried again costs one attempt.

use super::body::ErrorBody;
use super::google::QuotaFailure;
use super::markers::{self, Markers};
use super::{Answer, Evidence, Exhausted, Outcome, Period, Quota, RateLimit, Sign, StatedLimit, Verdict};
use super::{What, Window, limits, reset};

/// A failed answer, with everything that the tests read of it.
pub(crate) struct Failure<'a> {
    pub(crate) answer: &'a Answer<'a>,
    pub(crate) error: ErrorBody,
    pub(crate) google: QuotaFailure,
    pub(crate) limits: Vec<StatedLimit>,
    /// The used-up one of the limits that ends last.
    pub(crate) exhausted: Option<Exhausted>,
}

type Finding = (Outcome, Sign);

/// Classifies an answer that is not a success.
pub(crate) fn failure(answer: &Answer) -> Verdict {
    let error = ErrorBody::read(answer);
    let google = QuotaFailure::read(&error);
    let limits = stated_limits(answer, &error, &google);
    let failure = Failure { answer, exhausted: limits::exhausted(&limits), limits, error, google };
    let (outcome, sign) = failure
        .gateway()
        .or_else(|| failure.quota())
        .or_else(|| failure.overloaded())
        .or_else(|| failure.rate_limit())
        .or_else(|| failure.transient())
        .or_else(|| failure.not_mine())
        .or_else(|| failure.region())
        .or_else(|| failure.ours())
        .or_else(|| failure.credential())
        .or_else(|| failure.model_access())
        .or_else(|| failure.forbidden())
        .unwrap_or((Outcome::Caller, Sign::Status));
    Verdict { outcome, evidence: Evidence { status: answer.status, sign }, limits: failure.limits }
}

/// The limits that the headers, OpenRouter's `metadata.headers` and Google's violations state.
fn stated_limits(answer: &Answer, error: &ErrorBody, google: &QuotaFailure) -> Vec<StatedLimit> {
    let mut limits = limits::from_headers(answer);
    let inner = error.error().and_then(|error| error.get("metadata")?.get("headers")?.as_object());
    for (name, value) in inner.into_iter().flatten().take(2 * StatedLimit::MOST) {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        limits::add_header(&mut limits, name, &text, answer);
    }
    limits.extend(google.limits());
    limits.truncate(StatedLimit::MOST);
    // The name leaves the window open, and the message states it: "free-models-per-day".
    let spent = |limit: &&mut StatedLimit| limit.window == Window::Unstated && limit.is_exhausted();
    for limit in limits.iter_mut().filter(spent) {
        limit.window = window_of(error);
    }
    limits
}

impl Failure<'_> {
    fn has(&self, markers: &Markers) -> Option<Sign> {
        markers.find(&self.error)
    }

    fn accused(&self, markers: &Markers) -> Option<Sign> {
        markers.find_unquoted(&self.error, self.answer.status)
    }

    /// Cloudflare AI Gateway's own errors, and answers that only a gateway can have written.
    fn gateway(&self) -> Option<Finding> {
        let answer = self.answer;
        let code = self.gateway_code();
        if self.error.has_code("aigatewayerror") || (answer.through_ai_gateway && code.is_some()) {
            let code = code.unwrap_or(0);
            // Guardrails refuse a prompt (2016) or an answer (2017) because of its content.
            let outcome = match code {
                2016 | 2017 => Outcome::Caller,
                // The gateway failed or did not reach the provider. The next attempt may succeed.
                _ if answer.status >= 500 => Outcome::Transient { until: self.wait() },
                _ => Outcome::Gateway { until: self.wait() },
            };
            return Some((outcome, Sign::AiGateway(code)));
        }
        // Without a body there is no telling whose 401 this is, and a key must not die of doubt.
        let unreadable = answer.through_ai_gateway && answer.status == 401 && self.error.is_empty();
        (unreadable || answer.status == 407).then_some((Outcome::Gateway { until: None }, Sign::NoBody))
    }

    /// The code of Cloudflare's envelope: `internalCode`, or that of the first error beside
    /// `"success":false`.
    fn gateway_code(&self) -> Option<u32> {
        let json = self.error.json.as_ref()?;
        let failed = json.get("success").and_then(serde_json::Value::as_bool) == Some(false);
        let envelope = failed.then_some(json);
        let first = || ["error", "errors"].iter().find_map(|list| envelope?.get(*list)?.get(0)?.get("code"));
        json.get("internalCode").or_else(first).and_then(serde_json::Value::as_u64)?.try_into().ok()
    }

    fn quota(&self) -> Option<Finding> {
        if !matches!(self.answer.status, 400..=499) {
            return None;
        }
        self.google_quota()
            .or_else(|| self.accused(&markers::MONTHLY).map(|sign| self.spent(Period::Monthly, sign)))
            .or_else(|| self.credit().map(|sign| self.spent(Period::Credit, sign)))
            .or_else(|| self.accused(&markers::NOT_IN_TIER).map(|sign| self.spent(Period::NotInTier, sign)))
            .or_else(|| self.bare_402().then(|| self.spent(Period::Credit, Sign::Status)))
            .or_else(|| self.daily_or_monthly())
    }

    fn credit(&self) -> Option<Sign> {
        self.accused(&markers::CREDIT).filter(|_| self.unaffordable().is_none())
    }

    fn bare_402(&self) -> bool {
        self.answer.status == 402 && self.unaffordable().is_none()
    }

    /// A 402 to a request whose prompt or `max_tokens` could cost more than the key has left: a smaller one is
    /// served, unless nothing is left at all.
    fn unaffordable(&self) -> Option<Sign> {
        let spent = self.error.message.contains("can only afford 0");
        self.has(&markers::UNAFFORDABLE).filter(|_| self.answer.status == 402 && !spent)
    }

    fn google_quota(&self) -> Option<Finding> {
        let (period, id, ..) = self.google.longest()?;
        let now = self.answer.now;
        let retry = self.google.retry.map(|delay| reset::clamp(now, now.plus(delay), reset::LONGEST));
        let until = match period? {
            Period::Daily => self.next_day(),
            _ => None,
        };
        Some((Outcome::Quota(Quota { period: period?, until, retry, id: Some(id) }), Sign::QuotaId(id)))
    }

    /// A 429 whose message or headers say that a day's or a month's quota is spent.
    fn daily_or_monthly(&self) -> Option<Finding> {
        if self.answer.status != 429 {
            return None;
        }
        if let Some(sign) = self.has(&markers::DAILY).filter(|_| window_of(&self.error) == Window::Day) {
            return Some(self.spent(Period::Daily, sign));
        }
        let spent = self.exhausted?;
        let sign = Sign::Remaining(spent.what, spent.window);
        match spent.window {
            Window::Day => Some(self.spent(Period::Daily, sign)),
            Window::Month => Some(self.spent(Period::Monthly, sign)),
            _ => None,
        }
    }

    fn spent(&self, period: Period, sign: Sign) -> Finding {
        let now = self.answer.now;
        let until = match period {
            Period::Daily => self.reset_of(Window::Day).or_else(|| self.next_day()).or_else(|| self.wait()),
            Period::Monthly => {
                let end = self.reset_of(Window::Month).or_else(|| self.explicit_wait());
                end.map(|at| reset::clamp(now, at, reset::LONGEST_MONTHLY))
            }
            // There is no knowing when somebody pays, whatever `retry-after` says.
            Period::Credit | Period::NotInTier => None,
        };
        (Outcome::Quota(Quota { period, until, retry: None, id: None }), sign)
    }

    fn overloaded(&self) -> Option<Finding> {
        let sign = match self.answer.status {
            529 => Some(Sign::Status),
            // DeepSeek documents its 503 as "Server Overloaded".
            503 if self.answer.provider.slug == "deepseek" => Some(Sign::Status),
            429 | 500..=599 => self.has(&markers::OVERLOADED),
            _ => None,
        }?;
        Some((Outcome::Overloaded { until: self.wait() }, sign))
    }

    fn rate_limit(&self) -> Option<Finding> {
        let code = self.has(&markers::RATE_LIMIT);
        let hit = match self.answer.status {
            429 => true,
            // "Request too large … on tokens per minute": the request exceeds the limit of every key.
            413 => false,
            400..=499 => code.is_some(),
            _ => false,
        };
        if !hit {
            return None;
        }
        let (what, window, sign) = self.limited();
        let sign = sign.or(code).unwrap_or(Sign::Status);
        let oversized = self.has(&markers::OVERSIZED).is_some();
        let until = self.wait();
        Some((Outcome::RateLimit(RateLimit { what, window, until, oversized }), sign))
    }

    /// What there was too much of, by Google's quotaId, a rest of 0, or the error's words.
    pub(crate) fn limited(&self) -> (What, Window, Option<Sign>) {
        if let Some((_, id, what, window)) = self.google.longest() {
            return (what, window, Some(Sign::QuotaId(id)));
        }
        if let Some(spent) = self.exhausted {
            return (spent.what, spent.window, Some(Sign::Remaining(spent.what, spent.window)));
        }
        let whats = [
            (&markers::CONCURRENCY, What::Concurrency),
            (&markers::INPUT_TOKENS, What::InputTokens),
            (&markers::OUTPUT_TOKENS, What::OutputTokens),
            (&markers::TOKENS, What::Tokens),
            (&markers::REQUESTS, What::Requests),
        ];
        let said = whats.iter().find_map(|(words, what)| Some((*what, self.has(words)?)));
        let (what, sign) = said.map_or((What::Unstated, None), |(what, sign)| (what, Some(sign)));
        (what, window_of(&self.error), sign)
    }

    fn transient(&self) -> Option<Finding> {
        let failed = matches!(self.answer.status, 408 | 424 | 425 | 500..=599).then_some(Sign::Status);
        failed.or_else(|| self.unaffordable()).map(|sign| (Outcome::Transient { until: self.wait() }, sign))
    }

    /// What the request names is another key's, or gone. It says nothing about the key.
    fn not_mine(&self) -> Option<Finding> {
        let sign = matches!(self.answer.status, 400 | 403 | 404).then(|| self.has(&markers::NOT_MINE)).flatten();
        sign.map(|sign| (Outcome::NotMine, sign))
    }

    fn region(&self) -> Option<Finding> {
        let sign = match self.answer.status {
            451 => Some(Sign::Status),
            400..=404 => self.has(&markers::REGION),
            _ => None,
        };
        // Anthropic's words for an IP address that it does not serve.
        let anthropic = || {
            let text = "request not allowed";
            let refused = self.answer.provider.slug == "anthropic" && self.error.message.contains(text);
            (refused && self.answer.status == 403).then_some(Sign::Text(text))
        };
        sign.or_else(anthropic).map(|sign| (Outcome::Region, sign))
    }

    /// Refusals of our IP address or of a browser's `Origin`, and the complaint that we sent no key.
    fn ours(&self) -> Option<Finding> {
        let sign = match self.answer.status {
            401 | 403 => self.has(&markers::OURS),
            _ => None,
        };
        // A web page is a firewall's, except Perplexity's 401, which is about the key.
        let keys = self.answer.status == 401 && self.answer.provider.slug == "perplexity-ai";
        let refused = matches!(self.answer.status, 401 | 403) && !keys;
        let page = || (refused && self.error.is_html()).then_some(Sign::NoBody);
        sign.or_else(page).map(|sign| (Outcome::Gateway { until: None }, sign))
    }

    fn credential(&self) -> Option<Finding> {
        let status = self.answer.status;
        if !matches!(status, 400 | 401 | 403) {
            return None;
        }
        if let Some(sign) = self.accused(&markers::REVOKED) {
            return Some((Outcome::Credential { conclusive: true }, sign));
        }
        let sign = self.accused(&markers::CREDENTIAL);
        // ElevenLabs' 401 has many reasons, of which only `invalid_api_key` is the key; restricted keys of OpenAI
        // get a 401 for what they may not do, and Google's for methods that take no API key.
        let other = || {
            let no_key_would_do = self.error.has_code("credentials_missing");
            no_key_would_do
                || self.has(&markers::WRONG_RESOURCE).is_some()
                || self.answer.provider.slug == "elevenlabs"
                || self.has(&markers::MODEL).is_some()
        };
        // What cannot be read is never a refused credential: a client can make the body go away with HEAD, with a
        // format of its choice or with an encoding. Perplexity says it with a web page.
        let readable =
            || self.error.json.is_some() || self.answer.provider.slug == "perplexity-ai" && self.error.is_html();
        let bare = || (status == 401 && readable() && !other()).then_some(Sign::Status);
        sign.or_else(bare).map(|sign| (Outcome::Credential { conclusive: false }, sign))
    }

    fn model_access(&self) -> Option<Finding> {
        let sign = match self.answer.status {
            400 => self.accused(&markers::MODEL),
            401 | 403 | 404 => self.has(&markers::MODEL),
            _ => None,
        };
        // Anthropic's 404 says only `not_found_error` and "model: claude-…".
        let named = || {
            let missing = self.error.has_code("not_found_error") && self.error.message.starts_with("model:");
            (missing && self.answer.status == 404).then_some(Sign::Code("not_found_error"))
        };
        sign.or_else(named).map(|sign| (Outcome::ModelAccess, sign))
    }

    fn forbidden(&self) -> Option<Finding> {
        match self.answer.status {
            403 => match self.has(&markers::MODERATION) {
                Some(sign) => Some((Outcome::Caller, sign)),
                None => Some((Outcome::Forbidden, Sign::Status)),
            },
            // A 401 that is about neither the key nor a model, or may be about either (ElevenLabs, Google,
            // Azure).
            401 => Some((Outcome::Forbidden, Sign::Status)),
            _ => None,
        }
    }
}

/// The window that the error's words name. Of several the first one counts, because advice follows the
/// complaint: "free-models-per-min. Add 10 credits to unlock 1000 free model requests per day".
fn window_of(error: &ErrorBody) -> Window {
    match (markers::DAILY.offset(error), markers::PER_MINUTE.offset(error)) {
        (Some(day), Some(minute)) if minute < day => Window::Minute,
        (Some(_), _) => Window::Day,
        (None, Some(_)) => Window::Minute,
        (None, None) => Window::Unstated,
    }
}
