//! Authorization of clients: the AUTH_KEY definitions and the rights of each.
//!
//! The grammar is the Worker's: definitions joined by `;`, each `key`, `key(unixExpirySeconds)` or
//! `key=provider,model,model&provider2`; the last two forms can be combined. The Worker treats all
//! providers and all models of a definition as two sets, so that `p1,m1&p2,m2` also allows m2 of
//! p1. Here they are pairs, because that is what people who write them mean.

use crate::provider;
use crate::secret::Secret;
use crate::time::Time;

/// All AUTH_KEY definitions.
#[derive(Debug, Default)]
pub struct AuthKeys(Vec<Definition>);

/// One AUTH_KEY and its rights.
#[derive(Debug)]
pub struct Definition {
    key: Secret,
    expires: Option<Time>,
    /// `None` allows everything.
    rights: Option<Vec<Right>>,
}

/// An allowed provider with its allowed models; an empty list allows all models.
#[derive(Debug, PartialEq, Eq)]
struct Right {
    provider: String,
    models: Vec<String>,
}

/// Why a client was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The client sent no credential.
    Missing,
    /// None of the credentials is an AUTH_KEY.
    Wrong,
    /// The AUTH_KEY has expired.
    Expired,
}

impl AuthKeys {
    /// Parses the definitions.
    ///
    /// # Errors
    /// All problems, each with the number of its definition; they never contain a key.
    pub(crate) fn parse(text: &str) -> Result<Self, Vec<String>> {
        let mut definitions = Vec::new();
        let mut problems = Vec::new();
        for (index, part) in text.split(';').map(str::trim).filter(|part| !part.is_empty()).enumerate() {
            match Definition::parse(part) {
                Ok(definition) if definitions.iter().any(|other: &Definition| other.key == definition.key) => {
                    problems.push(format!("definition {}: an earlier definition has the same key", index + 1));
                }
                Ok(definition) => definitions.push(definition),
                Err(problem) => problems.push(format!("definition {}: {problem}", index + 1)),
            }
        }
        if definitions.is_empty() && problems.is_empty() {
            problems.push("no key is given, so no client could send requests".to_owned());
        }
        if problems.is_empty() { Ok(AuthKeys(definitions)) } else { Err(problems) }
    }

    /// Finds the definition that matches one of the `candidates`, and its index.
    ///
    /// Every candidate is compared with every definition, so that the duration reveals nothing. The `clock` is only
    /// read if a matching definition expires.
    ///
    /// # Errors
    /// Why no candidate is accepted.
    pub(crate) fn check<'a>(
        &self,
        candidates: impl IntoIterator<Item = &'a [u8]>,
        clock: impl Fn() -> Time,
    ) -> Result<(usize, &Definition), Denied> {
        let mut denied = Denied::Missing;
        let mut found = None;
        for candidate in candidates {
            if denied == Denied::Missing {
                denied = Denied::Wrong;
            }
            for (index, definition) in self.0.iter().enumerate() {
                if !definition.key.matches(candidate) {
                    continue;
                }
                if definition.expires.is_some_and(|end| end <= clock()) {
                    denied = Denied::Expired;
                } else {
                    found = Some((index, definition));
                }
            }
        }
        found.ok_or(denied)
    }

    /// The definition at an index that [`Self::check`] returned.
    pub(crate) fn definition(&self, index: usize) -> Option<&Definition> {
        self.0.get(index)
    }

    /// The rights whose provider does not exist, as the numbers of the definition and of the provider in it, both from
    /// 1. The name is left out, because it may be the end of a key that contains `=`.
    pub(crate) fn unknown(&self, is_known: impl Fn(&str) -> bool) -> impl Iterator<Item = (usize, usize)> {
        let rights = self.0.iter().zip(1..).flat_map(|(definition, number)| {
            definition.rights.iter().flatten().zip(1..).map(move |(right, position)| (number, position, right))
        });
        rights.filter(move |(.., right)| !is_known(&right.provider)).map(|(number, position, _)| (number, position))
    }

    /// The number of definitions.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }
}

impl Definition {
    fn parse(text: &str) -> Result<Self, String> {
        let (head, rights) = match text.split_once('=') {
            Some((head, rights)) => (head.trim(), Some(parse_rights(rights)?)),
            None => (text, None),
        };
        let (key, expires) = match head.strip_suffix(')').and_then(|open| open.rsplit_once('(')) {
            Some((key, seconds)) => {
                let seconds = seconds.trim().parse().map_err(|_| "the expiry in (…) is not in Unix seconds")?;
                (key.trim(), Some(Time::from_secs(seconds)))
            }
            None => (head, None),
        };
        if key.is_empty() {
            return Err("the key is empty".to_owned());
        }
        Ok(Definition { key: Secret::new(key), expires, rights })
    }

    /// Whether at least one model of a provider is allowed.
    pub(crate) fn allows_provider(&self, slug: &str) -> bool {
        self.rights.as_ref().is_none_or(|rights| rights.iter().any(|right| right.provider == slug))
    }

    /// Whether a model is allowed. `None` is a request in which no model was found; it is allowed only if all models of
    /// the provider are.
    pub(crate) fn allows(&self, slug: &str, model: Option<&str>) -> bool {
        let Some(rights) = &self.rights else { return true };
        rights.iter().filter(|right| right.provider == slug).any(|right| {
            right.models.is_empty() || model.is_some_and(|model| right.models.iter().any(|allowed| allowed == model))
        })
    }

    /// Whether everything is allowed.
    pub(crate) fn unrestricted(&self) -> bool {
        self.rights.is_none()
    }
}

fn parse_rights(text: &str) -> Result<Vec<Right>, String> {
    let mut rights = Vec::new();
    for part in text.split('&') {
        let mut words = part.split(',').map(str::trim).filter(|word| !word.is_empty());
        let name = words.next().ok_or("a provider is missing behind = or &")?;
        let known = provider::find(name);
        let bare = |model| known.map_or(model, |known| known.bare_model(model)).to_owned();
        let provider = known.map_or(name, |known| known.slug).to_owned();
        rights.push(Right { provider, models: words.map(bare).collect() });
    }
    Ok(rights)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<'a>(keys: &'a AuthKeys, candidates: &[&str], now: u64) -> Result<(usize, &'a Definition), Denied> {
        keys.check(candidates.iter().map(|text| text.as_bytes()), || Time::from_secs(now))
    }

    #[test]
    fn credentials_are_matched() {
        let keys = AuthKeys::parse("open; timed(1000); both(1000)=openai ;").unwrap();
        for (candidates, now, expected) in [
            (&[][..], 0, Err(Denied::Missing)),
            (&["nope"], 0, Err(Denied::Wrong)),
            (&["ope"], 0, Err(Denied::Wrong)),
            (&["open"], 0, Ok(0)),
            (&["nope", "open"], 0, Ok(0)),
            (&["timed"], 999, Ok(1)),
            (&["timed"], 1000, Err(Denied::Expired)),
            (&["both"], 999, Ok(2)),
            (&["timed(1000)"], 0, Err(Denied::Wrong)),
        ] {
            let index = check(&keys, candidates, now).map(|(index, _)| index);
            assert_eq!(index, expected, "{candidates:?} at {now}");
        }
    }

    #[test]
    fn rights_are_pairs() {
        let keys = AuthKeys::parse("k=google-ai-studio,m1,models/m2&perplexity&openai,gpt-4o").unwrap();
        let (_, definition) = check(&keys, &["k"], 0).unwrap();
        for (slug, model, allowed) in [
            ("google-ai-studio", Some("m1"), true),
            ("google-ai-studio", Some("m2"), true),
            ("google-ai-studio", Some("gpt-4o"), false),
            ("google-ai-studio", None, false),
            ("perplexity-ai", Some("anything"), true),
            ("perplexity-ai", None, true),
            ("openai", Some("gpt-4o"), true),
            ("openai", Some("m1"), false),
            ("anthropic", Some("m1"), false),
        ] {
            assert_eq!(definition.allows(slug, model), allowed, "{slug} {model:?}");
        }
        assert!(!definition.allows_provider("anthropic"));
        assert!(!definition.unrestricted());
    }

    #[test]
    fn rights_without_a_provider_are_found() {
        let keys = AuthKeys::parse("open;; k=openai&opnai,m; part=of=a-key==").unwrap();
        let unknown: Vec<_> = keys.unknown(|slug| slug == "openai").collect();
        assert_eq!(unknown, [(2, 2), (3, 1)]);
    }

    #[test]
    fn problems_name_the_definition_and_not_the_key() {
        let problems = AuthKeys::parse("good;sk-hidden(soon);=openai;sk-x=&openai;good").unwrap_err();
        assert_eq!(
            problems,
            [
                "definition 2: the expiry in (…) is not in Unix seconds",
                "definition 3: the key is empty",
                "definition 4: a provider is missing behind = or &",
                "definition 5: an earlier definition has the same key",
            ]
        );
        assert_eq!(AuthKeys::parse(" ; ").unwrap_err(), ["no key is given, so no client could send requests"]);
    }
}
