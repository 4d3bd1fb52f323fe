//! What a login must carry, and how what a proxy saw differs from it. A server ignores what it does not know and takes what merely suffices,
//! so its answer alone shows too little. A difference names the parameter and never what stands in it.

use crate::proxy::Call;

/// A login as a store names it.
#[derive(Clone, Debug)]
pub struct Login {
    /// Below `/v1/`, escaped as it is sent.
    path: String,
    namespace: String,
    members: Vec<(&'static str, Given)>,
    shows_certificate: bool,
}

/// What a member must be.
#[derive(Clone, Debug)]
pub enum Given {
    /// Exactly this.
    Text(String),
    /// A JWT of this subject for these audiences and nobody else, which lives this long at most.
    Token { subject: String, audiences: Vec<String>, seconds: i64 },
}

impl Login {
    pub fn at(path: &str) -> Self {
        Self { path: path.to_owned(), namespace: String::new(), members: Vec::new(), shows_certificate: false }
    }

    pub fn of_namespace(mut self, namespace: &str) -> Self {
        namespace.clone_into(&mut self.namespace);
        self
    }

    pub fn text(mut self, member: &'static str, text: &str) -> Self {
        self.members.push((member, Given::Text(text.to_owned())));
        self
    }

    pub fn token(mut self, member: &'static str, subject: &str, audiences: &[&str], seconds: i64) -> Self {
        let audiences = audiences.iter().map(|audience| (*audience).to_owned()).collect();
        self.members.push((member, Given::Token { subject: subject.to_owned(), audiences, seconds }));
        self
    }

    pub fn by_certificate(mut self) -> Self {
        self.shows_certificate = true;
        self
    }

    /// In what a call is another one.
    pub fn differences(&self, call: &Call) -> Vec<String> {
        let mut found = Vec::new();
        let mut check = |is_right: bool, what: &str| {
            if !is_right {
                found.push(what.to_owned());
            }
        };
        check(call.operation.verb == "write", "it is no POST");
        check(call.path_and_query == format!("/v1/{}", self.path), "another path");
        check(call.operation.namespace == self.namespace, "another namespace");
        check(call.credentials.is_empty(), "a header carries a credential");
        check(call.user_agent == concat!("keyferry/", env!("CARGO_PKG_VERSION")), "another user agent");
        check(call.shows_certificate == self.shows_certificate, "a certificate where none belongs, or none where one does");
        check(call.submission.is_object(), "its body is no JSON object");
        for name in call.submission.names().filter(|name| self.members.iter().all(|(member, _)| member != name)) {
            check(false, &format!("{name} does not belong there"));
        }
        for (name, given) in &self.members {
            check(given.is_in(call, name), &format!("{name} is missing or another one"));
        }
        found
    }
}

impl Given {
    fn is_in(&self, call: &Call, name: &str) -> bool {
        match self {
            Self::Text(text) => call.submission.holds(name, text),
            Self::Token { subject, audiences, seconds } => call.submission.claims(name).is_some_and(|claims| {
                let life = claims["exp"].as_i64().zip(claims["iat"].as_i64()).map(|(end, start)| end - start);
                let is_for_them = match &claims["aud"] {
                    serde_json::Value::String(one) => audiences == std::slice::from_ref(one),
                    many => *many == serde_json::json!(audiences),
                };
                claims["sub"] == **subject && is_for_them && life.is_some_and(|life| (1..=*seconds).contains(&life))
            }),
        }
    }
}

/// What is wrong with the logins among these calls: each must be one of those that are expected, and each of those must have come.
pub fn compare(calls: &[Call], expected: &[Login]) -> Vec<String> {
    let logins: Vec<&Call> = calls.iter().filter(|call| call.operation.is_login()).collect();
    let strange = logins.iter().filter_map(|call| {
        let mut differences: Vec<Vec<String>> = expected.iter().map(|login| login.differences(call)).collect();
        differences.sort_by_key(Vec::len);
        match differences.into_iter().next() {
            Some(nearest) if nearest.is_empty() => None,
            Some(nearest) => Some(format!("a login at {} is none of those expected: {}", call.operation.resource, nearest.join("; "))),
            None => Some(format!("a login at {} where none is expected", call.operation.resource)),
        }
    });
    let missing = expected.iter().filter(|login| logins.iter().all(|call| !login.differences(call).is_empty()));
    strange.chain(missing.map(|login| format!("a login at {} never came as expected", login.path))).collect()
}
