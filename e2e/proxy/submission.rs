//! What a call submits to a login, so that a test can compare it: the names of the members of its JSON object and of each a keyed digest,
//! which tells whether it is a text that the test knows, and nothing else. Of a JWT also the claims, which are no secret without signature.
//! Must not be here: any value.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

/// The members of a JSON object that was sent.
#[derive(Clone, Default)]
pub struct Submission {
    members: BTreeMap<String, Member>,
    is_object: bool,
}

#[derive(Clone)]
struct Member {
    print: hmac::Tag,
    claims: Option<Value>,
}

impl Submission {
    #[must_use]
    pub fn of(body: &[u8]) -> Self {
        let object: Option<Map<String, Value>> = serde_json::from_slice(body).ok();
        let is_object = object.is_some();
        let members = object.into_iter().flatten().map(|(name, value)| (name, Member::of(&value)));
        Self { members: members.collect(), is_object }
    }

    /// Whether a JSON object was sent.
    #[must_use]
    pub fn is_object(&self) -> bool {
        self.is_object
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.members.keys().map(String::as_str)
    }

    /// Whether the member is exactly this text.
    #[must_use]
    pub fn holds(&self, name: &str, text: &str) -> bool {
        self.members.get(name).is_some_and(|member| member.print.as_ref() == print(&Value::from(text)).as_ref())
    }

    /// The claims of the member, if it is a JWT.
    #[must_use]
    pub fn claims(&self, name: &str) -> Option<&Value> {
        self.members.get(name)?.claims.as_ref()
    }
}

impl fmt::Debug for Submission {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_set().entries(self.names()).finish()
    }
}

impl Member {
    fn of(value: &Value) -> Self {
        Self { print: print(value), claims: value.as_str().and_then(claims) }
    }
}

/// A text and what merely looks like it in JSON are different things, so the notation is digested.
fn print(value: &Value) -> hmac::Tag {
    static KEY: OnceLock<hmac::Key> = OnceLock::new();
    let key = KEY.get_or_init(|| {
        let mut bytes = [0; 32];
        aws_lc_rs::rand::fill(&mut bytes).expect("the system has randomness");
        hmac::Key::new(hmac::HMAC_SHA256, &bytes)
    });
    hmac::sign(key, value.to_string().as_bytes())
}

fn claims(text: &str) -> Option<Value> {
    let [_, payload, _] = text.split('.').collect::<Vec<_>>().try_into().ok()?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok().filter(Value::is_object)
}
