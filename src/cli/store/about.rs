//! What `keyferry store` says and asks about metadata: flags, filters, and how it is shown. No value is ever here.

use std::{collections::BTreeMap, str::FromStr, time::Duration};

use anyhow::{Result, anyhow};
use clap::Args;
use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};
use serde::Serialize;

use crate::{
    backend::file::{Changes, Kind, Name, New, Status, Version},
    schedule::duration,
};

/// What is known about a key. What is not named stays as it is; an empty text takes it away.
#[derive(Debug, Args)]
pub struct AboutArgs {
    /// opaque (any bytes, the default), api-key, database-password, ssh-key, tls-certificate, oauth-token, jwt, environment-variable,
    /// service-account-key, webhook-secret or encryption-key: the value must look like one.
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<Word<Kind>>,
    /// What it is for: at most 1024 bytes.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Add or change a tag, KEY=VALUE; `KEY-` takes it away. May be given again.
    #[arg(long = "tag", value_name = "KEY=VALUE")]
    tags: Vec<String>,
    /// The service that uses it.
    #[arg(long, value_name = "TEXT")]
    service: Option<String>,
    /// The environment that it belongs to, such as production.
    #[arg(long, value_name = "TEXT")]
    environment: Option<String>,
    /// Who answers for it.
    #[arg(long, value_name = "TEXT")]
    owner: Option<String>,
    /// From when on it is not read: a time (2027-01-31T12:00:00Z), a day (2027-01-31, its beginning in UTC), a duration from now (90d,
    /// 12h), or never.
    #[arg(long, value_name = "TIME")]
    expires: Option<String>,
    /// How long a version is meant to live (90d, 12h), or never. Shown by list and describe; nothing is rotated by itself.
    #[arg(long, value_name = "DURATION")]
    rotate_every: Option<String>,
    /// active, deprecated (still read), disabled (not read) or revoked (not read, and never to be used again).
    #[arg(long, value_name = "STATUS")]
    status: Option<Word<Status>>,
}

impl AboutArgs {
    /// The changes that the flags ask for.
    ///
    /// # Errors
    /// A text that is no tag, time or duration, with what would be.
    pub fn changes(&self, now: Timestamp) -> Result<Changes> {
        Ok(Changes {
            kind: self.kind.map(|word| word.0),
            status: self.status.map(|word| word.0),
            description: self.description.clone(),
            service: self.service.clone(),
            environment: self.environment.clone(),
            owner: self.owner.clone(),
            tags: self.tags.iter().map(|text| parse_tag(text)).collect::<Result<_>>()?,
            expires: self.expires.as_deref().map(|text| parse_expiry(text, now)).transpose()?,
            rotate_every: self.rotate_every.as_deref().map(parse_rotation).transpose()?,
        })
    }
}

/// Which keys are listed: those for which everything holds that is named.
#[derive(Debug, Args)]
pub struct Filter {
    /// Only keys of this type.
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<Word<Kind>>,
    /// Only keys whose description has this text in it.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Only keys with this tag; `KEY` alone takes any value. May be given again: all of them.
    #[arg(long = "tag", value_name = "KEY[=VALUE]")]
    tags: Vec<String>,
    /// Only keys of this service.
    #[arg(long, value_name = "TEXT")]
    service: Option<String>,
    /// Only keys of this environment.
    #[arg(long, value_name = "TEXT")]
    environment: Option<String>,
    /// Only keys of this owner.
    #[arg(long, value_name = "TEXT")]
    owner: Option<String>,
    /// Only keys with this status.
    #[arg(long, value_name = "STATUS")]
    status: Option<Word<Status>>,
    /// Only keys that have expired by then: a time, a day, a duration from now, or now.
    #[arg(long, value_name = "TIME", value_parser = Before::from_str)]
    expires_before: Option<Before>,
    /// Only keys whose latest version is older than their rotation interval.
    #[arg(long)]
    rotation_due: bool,
}

impl Filter {
    pub fn takes(&self, name: &Name, now: Timestamp) -> bool {
        let about = &name.about;
        let same = |wanted: &Option<String>, is: &Option<String>| wanted.is_none() || wanted == is;
        let has_tag = |wanted: &String| match wanted.split_once('=') {
            Some((key, value)) => about.tags.get(key).is_some_and(|is| is == value),
            None => about.tags.contains_key(wanted),
        };
        let describes = |text: &String| about.description.as_ref().is_some_and(|is| is.contains(text));
        self.kind.is_none_or(|word| word.0 == about.kind)
            && self.status.is_none_or(|word| word.0 == about.status)
            && self.description.as_ref().is_none_or(describes)
            && same(&self.service, &about.service)
            && same(&self.environment, &about.environment)
            && same(&self.owner, &about.owner)
            && self.tags.iter().all(has_tag)
            && self.expires_before.as_ref().is_none_or(|before| about.expires.is_some_and(|expires| expires <= before.at(now)))
            && (!self.rotation_due || is_rotation_due(name, now))
    }
}

fn is_rotation_due(name: &Name, now: Timestamp) -> bool {
    rotation_due(name).is_some_and(|due| due <= now)
}

/// When the latest version is as old as the rotation interval. Unknown for versions that are older than the record of their time.
fn rotation_due(name: &Name) -> Option<Timestamp> {
    let every = SignedDuration::from_secs(i64::try_from(name.about.rotate_every?).ok()?);
    name.written?.checked_add(every).ok()
}

/// A key as it is shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    key: String,
    version: u64,
    deleted: bool,
    #[serde(rename = "type")]
    kind: Kind,
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tags: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    environment: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    written: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<Timestamp>,
    expired: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    rotate_every: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rotation_due: Option<Timestamp>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    versions: Vec<ShownVersion>,
}

#[derive(Debug, Serialize)]
struct ShownVersion {
    version: u64,
    deleted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    written: Option<Timestamp>,
}

impl Shown {
    pub fn listed(name: Name, now: Timestamp) -> Self {
        let rotation_due = rotation_due(&name);
        let Name { key, version, deleted, written, about } = name;
        Self {
            key,
            version,
            deleted,
            written,
            kind: about.kind,
            status: about.status,
            description: about.description,
            tags: about.tags,
            service: about.service,
            environment: about.environment,
            owner: about.owner,
            expires: about.expires,
            expired: about.expires.is_some_and(|expires| expires <= now),
            rotate_every: about.rotate_every.map(|seconds| duration::format(Duration::from_secs(seconds))),
            rotation_due,
            versions: Vec::new(),
        }
    }

    pub fn described(name: Name, versions: &[Version], now: Timestamp) -> Self {
        let version =
            |(version, number): (&Version, u64)| ShownVersion { version: number, deleted: version.deleted, written: version.written };
        Self { versions: versions.iter().zip(1..).map(version).collect(), ..Self::listed(name, now) }
    }

    /// For people: one line per fact.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("key: {}", self.key), format!("type: {}", self.kind), format!("status: {}", self.status)];
        let words = [
            ("description", &self.description),
            ("service", &self.service),
            ("environment", &self.environment),
            ("owner", &self.owner),
            ("rotate every", &self.rotate_every),
        ];
        lines.extend(words.iter().filter_map(|(name, word)| word.as_ref().map(|word| format!("{name}: {}", plain(word)))));
        lines.extend(self.tags.iter().map(|(key, value)| format!("tag: {key}={value}")));
        let expired = if self.expired { " (expired)" } else { "" };
        lines.extend(self.expires.map(|expires| format!("expires: {expires}{expired}")));
        lines.extend(self.rotation_due.map(|due| format!("rotation due: {due}")));
        lines.extend(self.versions.iter().map(|version| {
            let written = version.written.map(|written| format!(" written {written}")).unwrap_or_default();
            format!("version: {}{written}{}", version.version, if version.deleted { " deleted" } else { "" })
        }));
        lines
    }
}

/// A description may have line ends; one fact is one line.
fn plain(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

/// A word of the file store, as a flag reads it.
#[derive(Clone, Copy, Debug)]
struct Word<T>(T);

impl<T: FromStr> FromStr for Word<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        text.parse().map(Self)
    }
}

fn parse_tag(text: &str) -> Result<(String, Option<String>)> {
    match (text.split_once('='), text.strip_suffix('-')) {
        (Some((key, value)), _) => Ok((key.to_owned(), Some(value.to_owned()))),
        (None, Some(key)) => Ok((key.to_owned(), None)),
        (None, None) => Err(anyhow!("--tag {text:?} is no tag: write KEY=VALUE, or KEY- to take it away")),
    }
}

fn parse_expiry(text: &str, now: Timestamp) -> Result<New<Timestamp>> {
    if text == "never" {
        return Ok(New::Never);
    }
    let remedy =
        || anyhow!("--expires {text:?} is no time: write 2027-01-31T12:00:00Z, 2027-01-31, a duration from now such as 90d, or never");
    parse_time(text).and_then(|moment| moment.at(now)).map(New::Is).ok_or_else(remedy)
}

fn parse_rotation(text: &str) -> Result<New<Duration>> {
    if text == "never" {
        return Ok(New::Never);
    }
    parse_span(text).map(New::Is).ok_or_else(|| anyhow!("--rotate-every {text:?} is no duration: write 90d, 12h, or never"))
}

/// A moment, or one that is counted from now.
#[derive(Clone, Copy, Debug)]
enum Moment {
    At(Timestamp),
    In(SignedDuration),
}

impl Moment {
    fn at(self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::At(moment) => Some(moment),
            Self::In(span) => now.checked_add(span).ok(),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Before(Moment);

impl Before {
    fn at(&self, now: Timestamp) -> Timestamp {
        self.0.at(now).unwrap_or(Timestamp::MAX)
    }
}

impl FromStr for Before {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let moment = if text == "now" { Some(Moment::In(SignedDuration::ZERO)) } else { parse_time(text) };
        moment.map(Self).ok_or("is no time: write 2027-01-31T12:00:00Z, 2027-01-31, a duration from now such as 30d, or now")
    }
}

fn parse_time(text: &str) -> Option<Moment> {
    let day = || text.parse::<Date>().ok()?.to_zoned(TimeZone::UTC).ok().map(|day| day.timestamp());
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Some(Moment::At(moment));
    }
    if let Some(day) = day() {
        return Some(Moment::At(day));
    }
    parse_span(text).and_then(|span| SignedDuration::try_from(span).ok()).map(Moment::In)
}

/// A Go duration, or whole days: `90d`.
fn parse_span(text: &str) -> Option<Duration> {
    if let Some(days) = text.strip_suffix('d') {
        return days.parse::<u32>().ok().map(|days| Duration::from_secs(u64::from(days) * 86_400));
    }
    duration::parse(text).ok()
}
