//! What is known about a secret besides its versions: type, description, tags, service, environment, owner, expiry, rotation, status.
//! Types, bounds and what they mean for a read; pure.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::kind::Kind;
use crate::secret::SecretValue;

/// Longest description, in bytes.
pub const MAX_DESCRIPTION: usize = 1024;
/// Longest service, environment, owner, and key or value of a tag, in bytes.
pub const MAX_WORD: usize = 256;
/// Most tags of one secret.
pub const MAX_TAGS: usize = 64;

/// What searches find like tags or could take for one.
const RESERVED: &[&str] = &["type", "status", "service", "environment", "owner"];

/// Whether a secret is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    #[default]
    Active,
    /// Still read; somebody should stop using it.
    Deprecated,
    /// Not read until it is active again.
    Disabled,
    /// Not read: it must not be used any more.
    Revoked,
}

/// No status has this name.
#[derive(Debug, thiserror::Error)]
#[error("is no status: use active, deprecated, disabled or revoked")]
pub struct UnknownStatus;

impl Status {
    pub const ALL: &[Self] = &[Self::Active, Self::Deprecated, Self::Disabled, Self::Revoked];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Deprecated => "deprecated",
            Self::Disabled => "disabled",
            Self::Revoked => "revoked",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Status {
    type Err = UnknownStatus;

    /// In any case: `Active` and `active` are one.
    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        Self::ALL.iter().copied().find(|status| status.as_str().eq_ignore_ascii_case(text)).ok_or(UnknownStatus)
    }
}

/// The metadata of one secret. It stands in the sealed index, so it is as authentic as what exists.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct About {
    #[serde(rename = "type", skip_serializing_if = "is_default")]
    pub kind: Kind,
    #[serde(skip_serializing_if = "is_default")]
    pub status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// From when on it is not read any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// Seconds after which a version should be followed by a new one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotate_every: Option<u64>,
}

/// Why metadata cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("the description is longer than {MAX_DESCRIPTION} bytes")]
    Description,
    #[error("{0} must be 1 to {MAX_WORD} bytes without control characters")]
    Word(&'static str),
    #[error("type, status, service, environment and owner are no tags: they have flags of their own, and searches find them like tags")]
    Reserved,
    #[error("there are more than {MAX_TAGS} tags")]
    Tags,
    #[error("the rotation interval must be at least one second")]
    Rotation,
}

/// Changes of metadata: what is not named stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub kind: Option<Kind>,
    pub status: Option<Status>,
    /// An empty text takes it away, here and in the next three.
    pub description: Option<String>,
    pub service: Option<String>,
    pub environment: Option<String>,
    pub owner: Option<String>,
    /// `None` takes a tag away.
    pub tags: BTreeMap<String, Option<String>>,
    pub expires: Option<New<Timestamp>>,
    pub rotate_every: Option<New<Duration>>,
}

/// A new value of something that may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum New<T> {
    Never,
    Is(T),
}

impl<T> New<T> {
    fn value(self) -> Option<T> {
        match self {
            Self::Never => None,
            Self::Is(value) => Some(value),
        }
    }
}

/// Why a secret is not read, whatever its versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withheld {
    Disabled,
    Revoked,
    Expired(Timestamp),
}

impl About {
    /// All of it as a JSON object, type and status always among it.
    #[must_use]
    pub fn document(&self) -> SecretValue {
        let mut document = serde_json::to_value(self).expect("texts, numbers and moments are JSON");
        document["type"] = self.kind.as_str().into();
        document["status"] = self.status.as_str().into();
        SecretValue::from(document.to_string())
    }

    /// Whether its values are withheld at this moment.
    #[must_use]
    pub fn withheld(&self, now: Timestamp) -> Option<Withheld> {
        match self.status {
            Status::Disabled => Some(Withheld::Disabled),
            Status::Revoked => Some(Withheld::Revoked),
            Status::Active | Status::Deprecated => self.expires.filter(|expires| *expires <= now).map(Withheld::Expired),
        }
    }

    /// Whether a search for this tag finds it. Type, service, environment and owner are found under these names like tags.
    #[must_use]
    pub fn says(&self, key: &str, value: &str) -> bool {
        let own = match key {
            "type" => Some(self.kind.as_str()),
            "service" => self.service.as_deref(),
            "environment" => self.environment.as_deref(),
            "owner" => self.owner.as_deref(),
            _ => self.tags.get(key).map(String::as_str),
        };
        own == Some(value)
    }

    /// The metadata after the changes.
    ///
    /// # Errors
    /// [`Unfit`] for what is out of bounds.
    pub fn changed(&self, changes: &Changes) -> Result<Self, Unfit> {
        let mut about = self.clone();
        about.kind = changes.kind.unwrap_or(about.kind);
        about.status = changes.status.unwrap_or(about.status);
        about.expires = changes.expires.map_or(about.expires, New::value);
        about.rotate_every = changes.rotate_every.map_or(about.rotate_every, |every| every.value().map(|every| every.as_secs()));
        let texts = [
            (&mut about.description, &changes.description),
            (&mut about.service, &changes.service),
            (&mut about.environment, &changes.environment),
            (&mut about.owner, &changes.owner),
        ];
        for (text, new) in texts {
            if let Some(new) = new {
                *text = Some(new.clone()).filter(|new| !new.is_empty());
            }
        }
        for (key, value) in &changes.tags {
            match value {
                Some(value) => drop(about.tags.insert(key.clone(), value.clone())),
                None => drop(about.tags.remove(key)),
            }
        }
        about.check()?;
        Ok(about)
    }

    fn check(&self) -> Result<(), Unfit> {
        if self.description.as_ref().is_some_and(|text| text.len() > MAX_DESCRIPTION) {
            return Err(Unfit::Description);
        }
        for (name, text) in [("the service", &self.service), ("the environment", &self.environment), ("the owner", &self.owner)] {
            if text.as_deref().is_some_and(|text| !is_word(text)) {
                return Err(Unfit::Word(name));
            }
        }
        let is_tag = |(key, value): (&String, &String)| is_word(key) && (value.is_empty() || is_word(value));
        if !self.tags.iter().all(is_tag) {
            return Err(Unfit::Word("the key of a tag, and its value where it has one,"));
        }
        if self.tags.keys().any(|key| RESERVED.contains(&key.as_str())) {
            return Err(Unfit::Reserved);
        }
        if self.tags.len() > MAX_TAGS {
            return Err(Unfit::Tags);
        }
        if self.rotate_every == Some(0) { Err(Unfit::Rotation) } else { Ok(()) }
    }
}

fn is_word(text: &str) -> bool {
    (1..=MAX_WORD).contains(&text.len()) && !text.chars().any(char::is_control)
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use jiff::Timestamp;

    use super::{About, Changes, Kind, New, Status, Unfit, Withheld};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn what_is_disabled_revoked_or_expired_is_withheld() {
        let cases = [
            (Status::Active, None, None),
            (Status::Deprecated, None, None),
            (Status::Disabled, None, Some(Withheld::Disabled)),
            (Status::Revoked, None, Some(Withheld::Revoked)),
            (Status::Active, Some(101), None),
            (Status::Active, Some(100), Some(Withheld::Expired(at(100)))),
            (Status::Deprecated, Some(99), Some(Withheld::Expired(at(99)))),
            (Status::Disabled, Some(99), Some(Withheld::Disabled)),
        ];
        for (status, expires, expected) in cases {
            let about = About { status, expires: expires.map(at), ..About::default() };
            assert_eq!(about.withheld(at(100)), expected, "{status} {expires:?}");
        }
    }

    #[test]
    fn a_change_leaves_what_it_does_not_name_and_an_empty_word_takes_away() {
        let first = Changes {
            kind: Some(Kind::Jwt),
            description: Some("d".into()),
            owner: Some("o".into()),
            tags: BTreeMap::from([("a".to_owned(), Some("1".to_owned())), ("b".to_owned(), Some(String::new()))]),
            expires: Some(New::Is(at(7))),
            rotate_every: Some(New::Is(Duration::from_secs(60))),
            ..Changes::default()
        };
        let about = About::default().changed(&first).unwrap();
        assert_eq!(about.changed(&Changes::default()).unwrap(), about);
        let second = Changes {
            description: Some(String::new()),
            tags: BTreeMap::from([("a".to_owned(), None)]),
            expires: Some(New::Never),
            ..Changes::default()
        };
        let expected = About { description: None, tags: BTreeMap::from([("b".to_owned(), String::new())]), expires: None, ..about.clone() };
        assert_eq!(about.changed(&second).unwrap(), expected);
        let text = serde_json::to_string(&about).unwrap();
        assert_eq!(serde_json::from_str::<About>(&text).unwrap(), about, "{text}");
        assert!(serde_json::from_str::<About>(r#"{"unheard": 1}"#).is_err(), "what is not known may restrict");
    }

    #[test]
    fn a_search_goes_by_tags_type_and_words_and_never_by_what_withholds() {
        let words = Changes { kind: Some(Kind::Jwt), status: Some(Status::Disabled), service: Some("shop".into()), ..Changes::default() };
        let tags = BTreeMap::from([("tier".to_owned(), Some("1".to_owned()))]);
        let about = About::default().changed(&Changes { tags, ..words }).unwrap();
        for (key, value, expected) in [
            ("tier", "1", true),
            ("tier", "2", false),
            ("tie", "1", false),
            ("type", "jwt", true),
            ("service", "shop", true),
            ("owner", "", false),
            ("status", "disabled", false),
        ] {
            assert_eq!(about.says(key, value), expected, "{key}={value}");
        }
        for key in ["type", "status", "owner"] {
            let tags = BTreeMap::from([(key.to_owned(), Some("x".to_owned()))]);
            assert_eq!(about.changed(&Changes { tags, ..Changes::default() }), Err(Unfit::Reserved), "{key}");
        }
    }

    #[test]
    fn what_is_out_of_bounds_is_refused() {
        let long = "x".repeat(257);
        let tags = |count: usize| (0..count).map(|number| (number.to_string(), Some(String::new()))).collect();
        let cases = [
            (Changes { description: Some("x".repeat(1025)), ..Changes::default() }, Unfit::Description),
            (Changes { service: Some(long.clone()), ..Changes::default() }, Unfit::Word("the service")),
            (Changes { owner: Some("a\nb".into()), ..Changes::default() }, Unfit::Word("the owner")),
            (Changes { tags: tags(65), ..Changes::default() }, Unfit::Tags),
            (Changes { rotate_every: Some(New::Is(Duration::from_millis(10))), ..Changes::default() }, Unfit::Rotation),
        ];
        for (changes, unfit) in cases {
            assert_eq!(About::default().changed(&changes), Err(unfit));
        }
        assert!(About::default().changed(&Changes { tags: BTreeMap::from([(long, Some(String::new()))]), ..Changes::default() }).is_err());
        assert!(About::default().changed(&Changes { tags: tags(64), ..Changes::default() }).is_ok());
    }
}
