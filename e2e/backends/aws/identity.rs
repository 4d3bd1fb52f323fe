//! Who speaks to the server: users, roles, the sessions of roles, and providers of web identities.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::gate::Caller;
use super::signature::Key;

/// Users, roles and sessions, and every login that was granted.
#[derive(Default)]
pub struct Identities {
    keys: BTreeMap<String, Holder>,
    pub roles: BTreeMap<String, Role>,
    pub providers: Vec<Provider>,
    pub logins: Vec<Login>,
    /// Every key that ever was.
    pub all: Vec<Key>,
}

/// Whose an access key is.
#[derive(Clone)]
pub struct Holder {
    pub key: Key,
    pub caller: Caller,
    /// None for users, whose keys end never.
    pub expires: Option<Timestamp>,
    /// Session tags that go on into the sessions of further roles.
    pub transitive: BTreeMap<String, String>,
}

/// A role as its trust policy makes it.
#[derive(Clone, Debug, Default)]
pub struct Role {
    /// ARNs of users, roles and sessions; `*` at the end stands for any rest.
    pub trusts: Vec<String>,
    /// Subjects of web identities: (issuer, audience, subject).
    pub web_identities: Vec<(String, String, String)>,
    pub external_id: Option<String>,
    /// Whether a session may have tags.
    pub takes_tags: bool,
    /// Seconds that a session may last at most; 0 for an hour.
    pub max_duration: i64,
}

/// Where the keys of an issuer of web identities are found.
#[derive(Clone, Debug)]
pub struct Provider {
    /// As tokens name it in `iss`.
    pub issuer: String,
    /// Where it really is: `https://127.0.0.1:6443`. Both documents of discovery are read there.
    pub origin: String,
    /// The authority that vouches for it; empty for `http://…`.
    pub ca_pem: String,
}

/// A session that was given out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// `AssumeRole`, `AssumeRoleWithWebIdentity`
    pub operation: String,
    /// Who asked: the ARN of a caller, or the subject of a web identity.
    pub by: String,
    pub role: String,
    pub session_name: String,
    pub external_id: Option<String>,
    /// All that the session has, those included that it inherits.
    pub tags: BTreeMap<String, String>,
    pub transitive: Vec<String>,
    /// Seconds.
    pub duration: i64,
    /// The access key of the session.
    pub access_key: String,
}

impl Identities {
    pub fn add(&mut self, holder: Holder) {
        self.all.push(holder.key.clone());
        self.keys.insert(holder.key.id.clone(), holder);
    }

    pub fn holder(&self, access_key: &str) -> Option<&Holder> {
        self.keys.get(access_key)
    }

    pub fn revoke(&mut self, access_key: &str) {
        self.keys.remove(access_key);
    }

    /// Every session that was given out up to now is over.
    pub fn expire_sessions(&mut self, now: Timestamp) {
        for holder in self.keys.values_mut() {
            holder.expires = holder.expires.map(|_| now);
        }
    }
}

impl Role {
    pub fn trusts(&self, arn: &str) -> bool {
        self.trusts.iter().any(|pattern| pattern.strip_suffix('*').map_or(pattern == arn, |start| arn.starts_with(start)))
    }
}
