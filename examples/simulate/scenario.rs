//! The scenarios: who asks how much, of which keys, at what time.

use fastrand::Rng;
use one_balance::quota::Minute;
use one_balance::time::{DAY, DailyReset, MINUTE, Span, Time};

use crate::hostile::Hostile;
use crate::policy::Request;
use crate::provider::{Key, Limits, Provider, Style, UNLIMITED};

#[derive(Clone)]
pub struct Scenario {
    pub name: &'static str,
    pub slug: &'static str,
    pub style: Style,
    pub start: Time,
    pub length: Span,
    pub per_second: f64,
    /// Whether each key is valid, and its limits.
    pub keys: Vec<(bool, Limits)>,
    pub tokens: u64,
    /// The models that the innocent use, all as often.
    pub models: &'static [&'static str],
    /// What can be wrong with a request. One in twenty is hostile, unless this is empty.
    pub hostile: &'static [Hostile],
    pub outage: Option<(Time, Time)>,
    pub egress: Option<(Time, Time)>,
    /// Whether answers state all quotas. If not, nobody can know what was there.
    pub is_stated: bool,
    /// What the real Worker did in each part of the scenario, which is cut into equal parts for it.
    pub measured: &'static [Measured],
}

/// What the real one-balance did in one part of a scenario, in several runs: yield, and upstream 429s per
/// 1,000 answers. workerd ran it, with a local D1, against a provider like ours on loopback.
pub struct Measured {
    runs: &'static [(f64, f64)],
}

impl Measured {
    pub fn mean(&self) -> (f64, f64) {
        let count = self.runs.len() as f64;
        let (shares, limited): (Vec<f64>, Vec<f64>) = self.runs.iter().copied().unzip();
        (shares.iter().sum::<f64>() / count, limited.iter().sum::<f64>() / count)
    }

    /// Whether a model gives the same mean within a tenth.
    pub fn agrees(&self, share: f64, limited: f64) -> bool {
        let near = |real: f64, modelled: f64| (modelled - real).abs() <= real / 10.0;
        let real = self.mean();
        near(real.0, share) && near(real.1, limited)
    }
}

/// Twelve minutes in parts of four, six runs that began at different seconds of a minute.
const WORKER: &[Measured] = &[
    Measured { runs: &[(0.75, 142.0), (0.757, 147.6), (0.753, 158.2), (0.723, 207.4), (0.767, 146.7), (0.741, 153.0)] },
    Measured { runs: &[(0.72, 93.0), (0.754, 91.7), (0.692, 147.0), (0.718, 125.4), (0.588, 140.2), (0.693, 103.4)] },
    Measured { runs: &[(0.72, 93.0), (0.799, 83.4), (0.805, 89.0), (0.622, 112.6), (0.708, 97.6), (0.692, 96.4)] },
];

const FREE: Limits = Limits { rpm: 15, rpd: UNLIMITED, tpm: UNLIMITED };

fn keys(good: usize, bad: usize, limits: Limits) -> Vec<(bool, Limits)> {
    (0..good + bad).map(|number| (number % 10 != 3 || number / 10 >= bad, limits)).collect()
}

impl Scenario {
    fn known(&self) -> &'static one_balance::provider::Provider {
        one_balance::provider::find(self.slug).expect("a provider of the table")
    }

    fn day(&self) -> DailyReset {
        self.known().daily_reset
    }

    /// How many parts the scenario has; there is a row for each.
    pub fn parts(&self) -> usize {
        self.measured.len().max(1)
    }

    /// The part in which a request arrives.
    pub fn part(&self, arrived: Time) -> usize {
        (self.start.until(arrived).0 * self.parts() as u64 / self.length.0) as usize
    }

    pub fn title(&self, part: usize) -> String {
        if self.parts() == 1 {
            return self.name.to_owned();
        }
        let minutes = self.length.0 / self.parts() as u64 / MINUTE.0;
        let before = part as u64 * minutes;
        format!("{}, minutes {}-{}", self.name, before + 1, before + minutes)
    }

    pub fn provider(&self) -> Provider {
        Provider {
            style: self.style,
            minute: self.known().minute,
            day: self.day(),
            keys: self.keys.iter().map(|&(valid, limits)| Key::new(valid, limits)).collect(),
            outages: self.outage.into_iter().collect(),
            egress: self.egress.into_iter().collect(),
        }
    }

    /// The request that arrives now.
    pub fn request(&self, now: Time, rng: &mut Rng) -> Request {
        let tokens = if self.tokens == 0 { 0 } else { rng.u64(self.tokens / 2..self.tokens * 3 / 2) };
        let model = match self.models {
            [model] => model,
            models => models[rng.usize(..models.len())],
        };
        let hostile =
            if self.hostile.is_empty() || rng.u8(..20) > 0 { None } else { rng.choice(self.hostile).copied() };
        let model = hostile.and_then(Hostile::model).unwrap_or(model);
        Request::new(now, model, hostile, tokens)
    }

    /// How many of a part's requests the quotas allow. Days and calendar minutes are counted one by
    /// one; a rolling minute gives its quota once at the start and then at its pace.
    pub fn allowed(&self, part: usize, requests: u64) -> u64 {
        let length = Span(self.length.0 / self.parts() as u64);
        let start = self.start.plus(Span(length.0 * part as u64));
        let end = start.plus(length);
        let overlap = |(from, until): (Time, Time)| from.max(start).until(until.min(end)).0;
        let closed = [self.outage, self.egress].into_iter().flatten().map(overlap).sum::<u64>();
        let open = Span(length.0 - closed);
        let minutes = match self.known().minute {
            Minute::Rolling => (open.0 as f64 / MINUTE.0 as f64).ceil(),
            Minute::Calendar => (open.0 as f64 / MINUTE.0 as f64).ceil(),
        };
        let mut days = 1;
        let mut day = self.day().next(start);
        while day < end {
            days += 1;
            day = self.day().next(day);
        }
        let worth = |limits: &Limits| {
            let by_minute = (limits.rpm as f64 * minutes).min(limits.tpm as f64 / self.tokens.max(1) as f64 * minutes);
            by_minute.min(limits.rpd as f64 * f64::from(days))
        };
        let capacity: f64 = self.keys.iter().filter(|(valid, _)| *valid).map(|(_, limits)| worth(limits)).sum();
        let asked = requests as f64 * open.0 as f64 / length.0 as f64;
        (capacity * self.models.len() as f64).min(asked) as u64
    }
}

/// A Unix time in seconds, on a full minute.
const fn at(secs: u64) -> Time {
    Time::from_secs(secs)
}

/// 24 November 2026, 15:00 UTC.
const NOW: Time = at(1_795_532_400);
/// 7 March 2026, 20:00 UTC: the next Pacific day has 23 hours.
const SPRING: Time = at(1_772_913_600);
/// 31 October 2026, 20:00 UTC: the next Pacific day has 25 hours.
const AUTUMN: Time = at(1_793_476_800);

pub fn all() -> Vec<Scenario> {
    let minutes = |count: u64| Span(MINUTE.0 * count);
    let base = || Scenario {
        name: "",
        slug: "google-ai-studio",
        style: Style::Google,
        start: NOW,
        length: minutes(10),
        per_second: 7.5,
        keys: keys(20, 2, FREE),
        tokens: 0,
        models: &["gemini-2.0-flash"],
        hostile: &[],
        outage: None,
        egress: None,
        is_stated: true,
        measured: &[],
    };
    let daily = Limits { rpm: 15, rpd: 50, tpm: UNLIMITED };
    let tokens = Limits { rpm: UNLIMITED, rpd: UNLIMITED, tpm: 250_000 };
    let openai = Limits { rpm: 30, rpd: UNLIMITED, tpm: UNLIMITED };
    let mixed =
        || (0..20).map(|number| (true, if number % 5 == 0 { Limits { rpm: 60, ..FREE } } else { FREE })).collect();
    vec![
        Scenario { name: "Gemini free tier, 1.5 x", length: minutes(12), measured: WORKER, ..base() },
        Scenario { name: "the same at half the quota", per_second: 2.5, ..base() },
        Scenario { name: "the same at five times the quota", per_second: 25.0, ..base() },
        Scenario { name: "one key, twice its quota", keys: keys(1, 0, FREE), per_second: 0.5, ..base() },
        Scenario {
            name: "daily quota, 26 hours",
            keys: keys(20, 2, daily),
            length: Span(DAY.0 / 24 * 26),
            per_second: 0.05,
            ..base()
        },
        Scenario {
            name: "daily quota over the 23-hour day",
            keys: keys(20, 0, daily),
            start: SPRING,
            length: Span(DAY.0 * 2),
            per_second: 0.05,
            ..base()
        },
        Scenario {
            name: "daily quota over the 25-hour day",
            keys: keys(20, 0, daily),
            start: AUTUMN,
            length: Span(DAY.0 * 2),
            per_second: 0.05,
            ..base()
        },
        Scenario {
            name: "OpenAI, quotas in headers, 1.5 x",
            slug: "openai",
            style: Style::Headers,
            keys: keys(10, 1, openai),
            ..base()
        },
        Scenario {
            name: "Gemini tokens per minute, 1.5 x",
            keys: keys(10, 0, tokens),
            tokens: 2000,
            per_second: 31.0,
            length: minutes(10),
            ..base()
        },
        Scenario {
            name: "an outage of 30 s",
            per_second: 3.0,
            outage: Some((at(1_795_532_520), at(1_795_532_550))),
            ..base()
        },
        Scenario {
            name: "the address is limited for 20 s",
            per_second: 3.0,
            egress: Some((at(1_795_532_520), at(1_795_532_540))),
            ..base()
        },
        Scenario {
            name: "two tiers, 1.5 x",
            keys: mixed(),
            per_second: 12.0,
            length: minutes(480),
            is_stated: false,
            ..base()
        },
        Scenario {
            name: "bare 429s, under the quota",
            slug: "deepseek",
            style: Style::Bare,
            keys: keys(10, 1, openai),
            per_second: 4.0,
            ..base()
        },
        Scenario {
            name: "1,000 keys, 1.5 x",
            keys: keys(1000, 10, FREE),
            per_second: 375.0,
            length: minutes(3),
            ..base()
        },
        Scenario {
            name: "5 % hostile requests, Gemini",
            models: &["gemini-2.0-flash", "gemini-2.5-flash", "gemini-2.5-flash-lite"],
            hostile: Hostile::GEMINI,
            ..base()
        },
        Scenario {
            name: "5 % hostile requests, OpenRouter",
            slug: "openrouter",
            style: Style::Bare,
            models: &["deepseek/deepseek-r1:free", "qwen/qwen3-coder:free", "z-ai/glm-4.5-air:free"],
            hostile: Hostile::OPENROUTER,
            ..base()
        },
    ]
}
