//! What a call does, in the terms in which tests count and break calls: verb, resource, name.
//! Only AWS says in its bodies what a call is about.

use std::fmt;

use http::Method;
use http::header::CONTENT_TYPE;
use http::request::Parts;

/// Which language the server behind a proxy speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Verbs and resources as RBAC and the audit log name them; `apply` is told from `patch`.
    Kubernetes,
    /// `read`, `list`, `write`, `patch` and `delete` of a path, without its `/v1/`.
    Vault,
    /// The vendor's own names: `GetSecretValue secretsmanager eu-west-1/db`. Each call is a POST to `/`; which one it is stands in
    /// `X-Amz-Target`, or in the form of a service that takes forms.
    Aws,
}

/// One kind of call. Two calls with equal operations are occurrences of the same point.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Operation {
    pub verb: String,
    /// API group; empty for the core group and for Vault.
    pub group: String,
    /// `secrets`, `externalsecrets/status`, `/version`; the path for Vault; the service for AWS.
    pub resource: String,
    /// Kubernetes namespace, `X-Vault-Namespace` or the region that was signed for; empty where there is none.
    pub namespace: String,
    /// Empty for a list, for a create and for Vault. For AWS the one secret, parameter, path or role; empty for a batch.
    pub name: String,
}

impl Operation {
    #[must_use]
    pub fn of(dialect: Dialect, head: &Parts, body: &[u8]) -> Self {
        match dialect {
            Dialect::Kubernetes => kubernetes(head),
            Dialect::Vault => vault(head),
            Dialect::Aws => aws(head, body),
        }
    }

    /// Whether it is a login to Vault, of whatever method and mount.
    #[must_use]
    pub fn is_login(&self) -> bool {
        self.group.is_empty() && self.resource.starts_with("auth/") && !self.resource.starts_with("auth/token/")
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} ", self.verb)?;
        if !self.group.is_empty() {
            write!(out, "{}/", self.group)?;
        }
        write!(out, "{}", self.resource)?;
        match (self.namespace.as_str(), self.name.as_str()) {
            ("", "") => Ok(()),
            ("", name) => write!(out, " {name}"),
            (namespace, name) => write!(out, " {namespace}/{name}"),
        }
    }
}

fn kubernetes(head: &Parts) -> Operation {
    let segments: Vec<&str> = head.uri.path().split('/').filter(|s| !s.is_empty()).collect();
    let (group, rest) = match segments.as_slice() {
        ["api", _version, rest @ ..] if !rest.is_empty() => ("", rest),
        ["apis", group, _version, rest @ ..] if !rest.is_empty() => (*group, rest),
        _ => return without_resource(head),
    };
    let (namespace, rest) = match rest {
        ["namespaces", _, "status" | "finalize"] => ("", rest),
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
        _ => ("", rest),
    };
    let named_by_selector = field_selector_name(head);
    let name = rest.get(1).map_or(named_by_selector.as_str(), |name| name);
    let resource = match rest {
        [resource, _, subresource @ ..] if !subresource.is_empty() => {
            format!("{resource}/{}", subresource.join("/"))
        }
        _ => rest[0].to_owned(),
    };
    Operation {
        verb: kubernetes_verb(head, rest.len() > 1).to_owned(),
        group: group.to_owned(),
        resource,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

fn kubernetes_verb(head: &Parts, has_name: bool) -> &'static str {
    match head.method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH if is_apply(head) => "apply",
        Method::PATCH => "patch",
        Method::DELETE if has_name => "delete",
        Method::DELETE => "deletecollection",
        _ if is_watch(head) => "watch",
        _ if has_name => "get",
        _ => "list",
    }
}

fn without_resource(head: &Parts) -> Operation {
    Operation { verb: head.method.as_str().to_lowercase(), resource: head.uri.path().to_owned(), ..Operation::default() }
}

fn is_apply(head: &Parts) -> bool {
    let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|value| value.starts_with("application/apply-patch"))
}

fn is_watch(head: &Parts) -> bool {
    query(head, "watch").is_some_and(|value| !matches!(value.as_str(), "0" | "false"))
}

/// A list or watch of one name is that name's operation, as the API server's authorizer sees it too.
fn field_selector_name(head: &Parts) -> String {
    let selector = query(head, "fieldSelector").unwrap_or_default();
    let mut terms = selector.split(',');
    let name = terms.find_map(|term| term.strip_prefix("metadata.name="));
    name.unwrap_or_default().trim_start_matches('=').to_owned()
}

fn query(head: &Parts, key: &str) -> Option<String> {
    let pairs = url::form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes());
    pairs.into_iter().find(|(name, _)| name == key).map(|(_, value)| value.into_owned())
}

fn vault(head: &Parts) -> Operation {
    let path = head.uri.path();
    let namespace = head.headers.get("x-vault-namespace").and_then(|value| value.to_str().ok());
    Operation {
        verb: vault_verb(head).to_owned(),
        resource: path.strip_prefix("/v1/").unwrap_or(path).to_owned(),
        namespace: namespace.unwrap_or_default().to_owned(),
        ..Operation::default()
    }
}

fn vault_verb(head: &Parts) -> &'static str {
    match head.method.as_str() {
        "LIST" => "list",
        "GET" if query(head, "list").is_some_and(|value| value == "true") => "list",
        "PUT" | "POST" => "write",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "read",
    }
}

/// Members of an input that say what one thing it is about.
const AWS_NAMES: &[&str] = &["SecretId", "Name", "Path", "RoleArn", "ResourceId"];

fn aws(head: &Parts, body: &[u8]) -> Operation {
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    // Of `Credential=<access key>/<date>/<region>/<service>/aws4_request`.
    let scope: Vec<&str> = header("authorization").split_once("Credential=").map_or("", |(_, scope)| scope).split('/').collect();
    let region = scope.get(2).copied().unwrap_or_default();
    let (service, verb, name) = match header("x-amz-target").split_once('.') {
        Some(("AmazonSSM", verb)) => ("ssm", verb.to_owned(), aws_name(&serde_json::from_slice(body).unwrap_or_default())),
        Some((service, verb)) => (service, verb.to_owned(), aws_name(&serde_json::from_slice(body).unwrap_or_default())),
        // An AssumeRoleWithWebIdentity is not signed, and no other service of forms is spoken to.
        None => {
            let form: serde_json::Value = url::form_urlencoded::parse(body)
                .into_owned()
                .map(|(name, value)| (name, value.into()))
                .collect::<serde_json::Map<_, _>>()
                .into();
            ("sts", form["Action"].as_str().unwrap_or_default().to_owned(), aws_name(&form))
        }
    };
    Operation { verb, resource: service.to_owned(), namespace: region.to_owned(), name, ..Operation::default() }
}

fn aws_name(input: &serde_json::Value) -> String {
    AWS_NAMES.iter().find_map(|name| input[*name].as_str()).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Method, URI, headers, the operation as it is printed.
    type Case = (&'static str, &'static str, &'static [(&'static str, &'static str)], &'static str);

    fn operation(dialect: Dialect, method: &str, uri: &str, headers: &[(&str, &str)]) -> String {
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        Operation::of(dialect, &head, b"").to_string()
    }

    #[test]
    fn a_kubernetes_call_is_named_as_the_audit_log_names_it() {
        const APPLY: &[(&str, &str)] = &[("content-type", "application/apply-patch+yaml")];
        const MERGE: &[(&str, &str)] = &[("content-type", "application/merge-patch+json")];
        let cases: &[Case] = &[
            ("GET", "/api/v1/secrets", &[], "list secrets"),
            ("GET", "/api/v1/namespaces/a/secrets", &[], "list secrets a/"),
            ("GET", "/api/v1/namespaces/a/secrets/db", &[], "get secrets a/db"),
            ("GET", "/api/v1/secrets?watch=true&resourceVersion=7", &[], "watch secrets"),
            ("GET", "/api/v1/secrets?watch=1", &[], "watch secrets"),
            ("GET", "/api/v1/secrets?watch=false", &[], "list secrets"),
            ("PATCH", "/api/v1/namespaces/a/secrets/db?fieldManager=x", APPLY, "apply secrets a/db"),
            ("PATCH", "/api/v1/namespaces/a/secrets/db", MERGE, "patch secrets a/db"),
            ("POST", "/api/v1/namespaces/a/secrets", &[], "create secrets a/"),
            ("PUT", "/api/v1/namespaces/a/secrets/db", &[], "update secrets a/db"),
            ("DELETE", "/api/v1/namespaces/a/secrets/db", &[], "delete secrets a/db"),
            ("DELETE", "/api/v1/namespaces/a/secrets", &[], "deletecollection secrets a/"),
            ("GET", "/api/v1/namespaces", &[], "list namespaces"),
            ("GET", "/api/v1/namespaces/a", &[], "get namespaces a"),
            ("PUT", "/api/v1/namespaces/a/finalize", &[], "update namespaces/finalize a"),
            (
                "PATCH",
                "/apis/keyferry.dev/v1alpha1/namespaces/a/externalsecrets/db/status",
                MERGE,
                "patch keyferry.dev/externalsecrets/status a/db",
            ),
            ("POST", "/api/v1/namespaces/a/serviceaccounts/op/token", &[], "create serviceaccounts/token a/op"),
            (
                "GET",
                "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/x.y",
                &[],
                "get apiextensions.k8s.io/customresourcedefinitions x.y",
            ),
            ("GET", "/api/v1/secrets?watch=true&fieldSelector=metadata.name%3Ddb", &[], "watch secrets db"),
            ("GET", "/version", &[], "get /version"),
            ("GET", "/apis/keyferry.dev/v1alpha1", &[], "get /apis/keyferry.dev/v1alpha1"),
            ("GET", "/api", &[], "get /api"),
        ];
        for (method, uri, headers, expected) in cases {
            assert_eq!(&operation(Dialect::Kubernetes, method, uri, headers), expected, "{method} {uri}");
        }
    }

    #[test]
    fn a_vault_call_is_a_verb_and_a_path() {
        const NAMESPACE: &[(&str, &str)] = &[("x-vault-namespace", "team")];
        let cases: &[Case] = &[
            ("GET", "/v1/secret/data/db?version=3", &[], "read secret/data/db"),
            ("GET", "/v1/secret/metadata/db?list=true", &[], "list secret/metadata/db"),
            ("LIST", "/v1/secret/metadata/", &[], "list secret/metadata/"),
            ("POST", "/v1/secret/data/db", &[], "write secret/data/db"),
            ("PUT", "/v1/auth/kubernetes/login", &[], "write auth/kubernetes/login"),
            ("PATCH", "/v1/secret/data/db", &[], "patch secret/data/db"),
            ("DELETE", "/v1/secret/data/db", &[], "delete secret/data/db"),
            ("GET", "/v1/secret/data/db", NAMESPACE, "read secret/data/db team/"),
        ];
        for (method, uri, headers, expected) in cases {
            assert_eq!(&operation(Dialect::Vault, method, uri, headers), expected, "{method} {uri}");
        }
    }

    #[test]
    fn an_aws_call_is_named_by_its_target_or_its_form() {
        const SIGNED: (&str, &str) =
            ("authorization", "AWS4-HMAC-SHA256 Credential=AKID/20261122/eu-west-1/ssm/aws4_request, SignedHeaders=host");
        let cases: &[(&str, Option<(&str, &str)>, &str, &str)] = &[
            ("secretsmanager.GetSecretValue", None, r#"{"SecretId":"app/db"}"#, "GetSecretValue secretsmanager app/db"),
            (
                "secretsmanager.BatchGetSecretValue",
                Some(SIGNED),
                r#"{"SecretIdList":["a"]}"#,
                "BatchGetSecretValue secretsmanager eu-west-1/",
            ),
            ("AmazonSSM.GetParametersByPath", Some(SIGNED), r#"{"Path":"/app"}"#, "GetParametersByPath ssm eu-west-1//app"),
            ("AmazonSSM.GetParameters", None, "no JSON", "GetParameters ssm"),
            ("", None, "Action=AssumeRoleWithWebIdentity&RoleArn=arn%3Aaws&x=y", "AssumeRoleWithWebIdentity sts arn:aws"),
            ("", None, "", " sts"),
        ];
        for (target, signed, body, expected) in cases {
            let mut request = http::Request::post("/").header("x-amz-target", *target);
            if let Some((name, value)) = signed {
                request = request.header(*name, *value);
            }
            let (head, ()) = request.body(()).unwrap().into_parts();
            assert_eq!(&Operation::of(Dialect::Aws, &head, body.as_bytes()).to_string(), expected);
        }
    }
}
