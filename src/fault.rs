//! What can go wrong, in the words of the API, and the one function that says what follows from it.
//!
//! Adapters have error enums of their own and convert to [`Fault`] at their boundary.

use std::{fmt, time::Duration};

/// The closed set of reasons: one word in conditions, entries, events, metric labels and documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    Synced,
    NotFound,
    Deleted,
    Disabled,
    Destroyed,
    NoMatch,
    Expired,
    MassAbsence,
    AccessDenied,
    NotAllowed,
    InvalidData,
    EmptyValue,
    SensitiveValue,
    KeyCollision,
    TooLarge,
    ProviderUnavailable,
    Sealed,
    StoreNotReady,
    Throttled,
    Conflict,
    NotOwned,
    ImmutableTarget,
    InvalidSpec,
    Suspended,
}

impl Reason {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Synced,
        Self::NotFound,
        Self::Deleted,
        Self::Disabled,
        Self::Destroyed,
        Self::NoMatch,
        Self::Expired,
        Self::MassAbsence,
        Self::AccessDenied,
        Self::NotAllowed,
        Self::InvalidData,
        Self::EmptyValue,
        Self::SensitiveValue,
        Self::KeyCollision,
        Self::TooLarge,
        Self::ProviderUnavailable,
        Self::Sealed,
        Self::StoreNotReady,
        Self::Throttled,
        Self::Conflict,
        Self::NotOwned,
        Self::ImmutableTarget,
        Self::InvalidSpec,
        Self::Suspended,
    ];

    /// The reason of that word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == word)
    }

    /// The word as users see it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Synced => "Synced",
            Self::NotFound => "NotFound",
            Self::Deleted => "Deleted",
            Self::Disabled => "Disabled",
            Self::Destroyed => "Destroyed",
            Self::NoMatch => "NoMatch",
            Self::Expired => "Expired",
            Self::MassAbsence => "MassAbsence",
            Self::AccessDenied => "AccessDenied",
            Self::NotAllowed => "NotAllowed",
            Self::InvalidData => "InvalidData",
            Self::EmptyValue => "EmptyValue",
            Self::SensitiveValue => "SensitiveValue",
            Self::KeyCollision => "KeyCollision",
            Self::TooLarge => "TooLarge",
            Self::ProviderUnavailable => "ProviderUnavailable",
            Self::Sealed => "Sealed",
            Self::StoreNotReady => "StoreNotReady",
            Self::Throttled => "Throttled",
            Self::Conflict => "Conflict",
            Self::NotOwned => "NotOwned",
            Self::ImmutableTarget => "ImmutableTarget",
            Self::InvalidSpec => "InvalidSpec",
            Self::Suspended => "Suspended",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a fault is treated. The table is the design's "faults to policy".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// What the user wrote, or what the backend holds, cannot be used.
    Invalid,
    /// Our rules or the backend's refuse.
    Denied,
    /// The backend says authoritatively that there is no readable value.
    Absent,
    /// Somebody else holds the target.
    Conflict,
    /// The backend asks for patience; with its own hint if it gave one.
    Throttled { after: Option<Duration> },
    /// No answer, or none that can be trusted: the value's state is unknown.
    Unavailable,
    /// The API server failed.
    Cluster,
    /// A state that cannot be.
    Bug,
}

/// A fault: its class, its reason and a text that is safe to show.
///
/// `detail` says what happened and what to do. It names keys, never values, never any part of a response body, and is stable
/// between attempts (no timestamps, no request ids, no counters).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub class: Class,
    pub reason: Reason,
    pub detail: String,
}

impl Fault {
    pub fn new(class: Class, reason: Reason, detail: impl Into<String>) -> Self {
        Self { class, reason, detail: detail.into() }
    }

    /// A value that is there and cannot be used, or a spec that cannot work.
    pub fn invalid(reason: Reason, detail: impl Into<String>) -> Self {
        Self::new(Class::Invalid, reason, detail)
    }

    /// The backend refused us (401, 403). A denial is never absence.
    pub fn access_denied(detail: impl Into<String>) -> Self {
        Self::new(Class::Denied, Reason::AccessDenied, detail)
    }

    /// Our own rules refuse; the text is the same whether or not the thing exists.
    pub fn not_allowed(detail: impl Into<String>) -> Self {
        Self::new(Class::Denied, Reason::NotAllowed, detail)
    }

    /// Proven absent: `NotFound`, `Deleted`, `Disabled`, `Destroyed`, `NoMatch`, `Expired` or `MassAbsence`.
    pub fn absent(reason: Reason, detail: impl Into<String>) -> Self {
        Self::new(Class::Absent, reason, detail)
    }

    /// Unknown: time-out, 5xx, DNS, TLS, reset, truncated or malformed answer.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(Class::Unavailable, Reason::ProviderUnavailable, detail)
    }

    /// The backend asked us to slow down.
    pub fn throttled(after: Option<Duration>, detail: impl Into<String>) -> Self {
        Self::new(Class::Throttled { after }, Reason::Throttled, detail)
    }

    /// The API server failed; the reason never reaches a status, because a status could not be written either.
    pub fn cluster(detail: impl Into<String>) -> Self {
        Self::new(Class::Cluster, Reason::ProviderUnavailable, detail)
    }

    /// Somebody else holds the target: `Conflict` (another of our objects) or `NotOwned` (anyone else).
    pub fn conflict(reason: Reason, detail: impl Into<String>) -> Self {
        Self::new(Class::Conflict, reason, detail)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.detail)
    }
}

impl std::error::Error for Fault {}

/// A name for a message: quoted, control characters escaped, and a long one cut so that the remedy still fits.
#[must_use]
pub fn quote(name: &str) -> String {
    const SHOWN: usize = 96;
    let escaped = format!("{name:?}");
    let mut escaped = escaped[1..escaped.len() - 1].chars();
    let shown: String = escaped.by_ref().take(SHOWN).collect();
    let rest = if escaped.next().is_some() { "…" } else { "" };
    format!("\"{shown}{rest}\"")
}

/// What follows from a fault. Who keeps the clock stands beside each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Nothing until something that the object depends on changes.
    AwaitChange,
    /// The item: the `denied` timing with jitter; earlier when policy, store or credential change.
    DeniedPause,
    /// The item: 10 s × 3ⁿ, at most the interval.
    AbsentBackoff,
    /// The item: the server's hint (capped) with jitter. Not a failure of the store.
    Hinted(Option<Duration>),
    /// The item: grows from one second, at most the interval; the store's breaker in time.
    UnavailableBackoff,
    /// The object: exponential 1 s → 5 min, reset on success.
    ObjectBackoff,
}

/// The one function from fault to policy.
#[must_use]
pub fn retry(fault: &Fault) -> Retry {
    match (fault.class, fault.reason) {
        // An answer that cannot be used today may be mended at the backend: it is looked at in its normal slots.
        (Class::Denied, Reason::NotAllowed) | (Class::Invalid | Class::Conflict | Class::Bug, _) => Retry::AwaitChange,
        (Class::Denied, _) => Retry::DeniedPause,
        (Class::Absent, _) => Retry::AbsentBackoff,
        (Class::Throttled { after }, _) => Retry::Hinted(after),
        (Class::Unavailable, _) => Retry::UnavailableBackoff,
        (Class::Cluster, _) => Retry::ObjectBackoff,
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use super::{Class, Fault, Reason, Retry, quote, retry};

    #[test]
    fn each_class_has_its_policy() {
        let hint = Some(Duration::from_secs(7));
        let cases = [
            (Fault::invalid(Reason::InvalidData, ""), Retry::AwaitChange),
            (Fault::invalid(Reason::InvalidSpec, ""), Retry::AwaitChange),
            (Fault::not_allowed(""), Retry::AwaitChange),
            (Fault::access_denied(""), Retry::DeniedPause),
            (Fault::absent(Reason::NotFound, ""), Retry::AbsentBackoff),
            (Fault::absent(Reason::MassAbsence, ""), Retry::AbsentBackoff),
            (Fault::throttled(hint, ""), Retry::Hinted(hint)),
            (Fault::throttled(None, ""), Retry::Hinted(None)),
            (Fault::unavailable(""), Retry::UnavailableBackoff),
            (Fault::new(Class::Unavailable, Reason::Sealed, ""), Retry::UnavailableBackoff),
            (Fault::new(Class::Unavailable, Reason::StoreNotReady, ""), Retry::UnavailableBackoff),
            (Fault::cluster(""), Retry::ObjectBackoff),
            (Fault::conflict(Reason::Conflict, ""), Retry::AwaitChange),
            (Fault::conflict(Reason::NotOwned, ""), Retry::AwaitChange),
            (Fault::new(Class::Bug, Reason::InvalidData, ""), Retry::AwaitChange),
        ];
        for (fault, expected) in cases {
            assert_eq!(retry(&fault), expected, "{fault:?}");
        }
    }

    #[test]
    fn constructors_say_what_they_are_called() {
        let cases = [
            (Fault::access_denied("x"), Class::Denied, Reason::AccessDenied),
            (Fault::not_allowed("x"), Class::Denied, Reason::NotAllowed),
            (Fault::unavailable("x"), Class::Unavailable, Reason::ProviderUnavailable),
            (Fault::throttled(None, "x"), Class::Throttled { after: None }, Reason::Throttled),
            (Fault::absent(Reason::Deleted, "x"), Class::Absent, Reason::Deleted),
            (Fault::conflict(Reason::NotOwned, "x"), Class::Conflict, Reason::NotOwned),
            (Fault::invalid(Reason::TooLarge, "x"), Class::Invalid, Reason::TooLarge),
        ];
        for (fault, class, reason) in cases {
            assert_eq!((fault.class, fault.reason, fault.to_string()), (class, reason, format!("{reason}: x")));
        }
    }

    #[test]
    fn every_reason_is_one_word_of_its_own_that_is_read_back() {
        let words: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(words.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            assert_eq!(Reason::parse(reason.as_str()), Some(*reason));
            assert_eq!(format!("{reason:?}"), reason.as_str());
            assert_eq!(reason.to_string(), reason.as_str());
        }
        assert_eq!(Reason::parse("synced"), None);
    }

    #[test]
    fn a_name_in_a_message_is_quoted_escaped_and_cut() {
        let cases = [
            ("db/password's", r#""db/password's""#.to_owned()),
            ("a\"b\n\u{202e}", r#""a\"b\n\u{202e}""#.to_owned()),
            (&"x".repeat(96), format!("\"{}\"", "x".repeat(96))),
            (&"x".repeat(97), format!("\"{}…\"", "x".repeat(96))),
        ];
        for (name, shown) in cases {
            assert_eq!(quote(name), shown);
        }
    }
}
