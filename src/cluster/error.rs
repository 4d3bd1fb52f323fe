//! What the API server answered, in the words that decisions need.

use kube::core::Status;

/// A refused or failed call to the API server. No variant carries a body of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// 409 without causes, a wrong UID, or a precondition that failed: the object is not what the caller thought. Judge again.
    #[error("the object has changed meanwhile")]
    Changed,
    /// 409 of server-side apply: other managers hold these fields.
    #[error("{} of another field manager", fields.join(", "))]
    Held { fields: Vec<String>, managers: Vec<String> },
    /// 422: `immutable: true`, or a type that cannot change.
    #[error("the target is immutable")]
    Immutable,
    /// 413 or 422: more than the API server or etcd takes.
    #[error("the target is too large")]
    TooLarge,
    /// The namespace is going away or gone.
    #[error("the namespace is terminating")]
    NamespaceTerminating,
    /// 404.
    #[error("not found")]
    NotFound,
    /// 403: a right is missing, or an admission policy refuses.
    #[error("the API server refuses ({0})")]
    Forbidden(String),
    /// Other 4xx: a request that cannot work.
    #[error("the API server calls the request invalid ({0})")]
    Invalid(u16),
    /// No answer in time, 5xx, 429, network.
    #[error("the API server cannot be reached or fails ({0})")]
    Unavailable(&'static str),
}

impl From<kube::Error> for ClusterError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::from_status(&status),
            kube::Error::SerdeError(_) => Self::Unavailable("malformed answer"),
            kube::Error::Auth(_) => Self::Unavailable("credentials"),
            _ => Self::Unavailable("no answer"),
        }
    }
}

impl ClusterError {
    fn from_status(status: &Status) -> Self {
        let causes = status.details.as_ref().map_or(&[][..], |details| details.causes.as_slice());
        match status.code {
            409 if causes.iter().any(|cause| cause.reason == "FieldManagerConflict") => Self::Held {
                fields: causes.iter().map(|cause| cause.field.clone()).collect(),
                managers: causes.iter().filter_map(|cause| quoted(&cause.message)).collect(),
            },
            409 => Self::Changed,
            422 if causes.iter().any(|cause| cause.field == "metadata.uid") => Self::Changed,
            422 if causes.iter().any(|cause| cause.message.contains("immutable")) => Self::Immutable,
            413 => Self::TooLarge,
            422 if causes.iter().any(|cause| cause.reason == "FieldValueTooLong" || cause.message.contains("Too long")) => Self::TooLarge,
            403 if causes.iter().any(|cause| cause.reason == "NamespaceTerminating") => Self::NamespaceTerminating,
            404 if status.details.as_ref().is_some_and(|details| details.kind == "namespaces") => Self::NamespaceTerminating,
            404 => Self::NotFound,
            401 | 403 => Self::Forbidden(status.reason.clone()),
            // etcd says so when a request is above its limit; the API server passes the text on with 500.
            500 if status.message.contains("request is too large") => Self::TooLarge,
            429 => Self::Unavailable("429"),
            500..=599 => Self::Unavailable("5xx"),
            code => Self::Invalid(code),
        }
    }
}

/// The first text in double quotes: the API server names managers so.
fn quoted(message: &str) -> Option<String> {
    message.split('"').nth(1).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::ClusterError;

    fn of(json: &str) -> ClusterError {
        ClusterError::from_status(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn answers_are_told_apart() {
        let cases = [
            (r#"{"code":409,"message":"m","reason":"Conflict"}"#, ClusterError::Changed),
            (
                r#"{"code":409,"message":"m","reason":"Conflict","details":{"causes":[{"reason":"FieldManagerConflict","message":"conflict with \"kubectl-edit\" using v1","field":".data.a"}]}}"#,
                ClusterError::Held { fields: vec![".data.a".to_owned()], managers: vec!["kubectl-edit".to_owned()] },
            ),
            (
                r#"{"code":422,"message":"m","reason":"Invalid","details":{"causes":[{"reason":"FieldValueInvalid","message":"Invalid value: field is immutable","field":"metadata.uid"}]}}"#,
                ClusterError::Changed,
            ),
            (
                r#"{"code":422,"message":"m","reason":"Invalid","details":{"causes":[{"reason":"FieldValueForbidden","message":"Forbidden: field is immutable when `immutable` is set","field":"data"}]}}"#,
                ClusterError::Immutable,
            ),
            (
                r#"{"code":403,"message":"m","reason":"Forbidden","details":{"causes":[{"reason":"NamespaceTerminating","message":"m","field":"metadata.namespace"}]}}"#,
                ClusterError::NamespaceTerminating,
            ),
            (r#"{"code":403,"message":"m","reason":"Forbidden"}"#, ClusterError::Forbidden("Forbidden".to_owned())),
            (r#"{"code":404,"message":"m","reason":"NotFound","details":{"kind":"namespaces"}}"#, ClusterError::NamespaceTerminating),
            (r#"{"code":404,"message":"m","reason":"NotFound","details":{"kind":"secrets"}}"#, ClusterError::NotFound),
            (r#"{"code":500,"message":"etcdserver: request is too large","reason":""}"#, ClusterError::TooLarge),
            (r#"{"code":503,"message":"m","reason":""}"#, ClusterError::Unavailable("5xx")),
            (r#"{"code":400,"message":"m","reason":""}"#, ClusterError::Invalid(400)),
        ];
        for (json, expected) in cases {
            assert_eq!(of(json), expected, "{json}");
        }
    }
}
