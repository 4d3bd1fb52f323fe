//! A kubeconfig that stands in a Secret. A tenant may have written it: nothing in it may name a file, a program or a proxy of the
//! operator's machine, or weaken TLS. Pure.

use serde::{Deserialize, de::IgnoredAny};

use crate::{
    fault::{Class, Fault, Reason, quote},
    secret::SecretValue,
};
use base64::{Engine, prelude::BASE64_STANDARD};

/// What its current context says.
pub(super) struct Access {
    pub server: String,
    /// PEM certificates that sign the server's.
    pub authority: Option<SecretValue>,
    pub token: Option<SecretValue>,
    /// PEM certificate and key.
    pub identity: Option<(SecretValue, SecretValue)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    current_context: Option<String>,
    #[serde(default)]
    contexts: Vec<NamedContext>,
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    user: String,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority_data: Option<String>,
    certificate_authority: Option<IgnoredAny>,
    proxy_url: Option<IgnoredAny>,
    tls_server_name: Option<IgnoredAny>,
    insecure_skip_tls_verify: Option<bool>,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    token: Option<String>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<IgnoredAny>,
    client_certificate: Option<IgnoredAny>,
    client_key: Option<IgnoredAny>,
    exec: Option<IgnoredAny>,
    auth_provider: Option<IgnoredAny>,
    username: Option<IgnoredAny>,
    password: Option<IgnoredAny>,
    r#as: Option<IgnoredAny>,
    as_uid: Option<IgnoredAny>,
    as_groups: Option<IgnoredAny>,
    as_user_extra: Option<IgnoredAny>,
}

/// Reads the current context.
pub(super) fn parse(text: &[u8]) -> Result<Access, Fault> {
    let unreadable = || not_ready("what stands there is no kubeconfig: put one there, as `kubectl config view --raw --minify` prints it");
    let text = std::str::from_utf8(text).map_err(|_| unreadable())?;
    // The parser's own words quote the text.
    let file: File = serde_saphyr::from_str(text).map_err(|_| unreadable())?;
    let missing = |what: &str, name: &str| not_ready(&format!("the kubeconfig has no {what} {}: correct it", quote(name)));
    let name = file.current_context.ok_or_else(|| not_ready("the kubeconfig has no current-context: set it"))?;
    let context = file.contexts.into_iter().find(|one| one.name == name).ok_or_else(|| missing("context", &name))?.context;
    let cluster = file.clusters.into_iter().find(|one| one.name == context.cluster);
    let cluster = cluster.ok_or_else(|| missing("cluster", &context.cluster))?.cluster;
    let user = file.users.into_iter().find(|one| one.name == context.user).ok_or_else(|| missing("user", &context.user))?.user;
    match refused(&cluster, &user) {
        Some(field) => Err(Fault::not_allowed(format!(
            "provider.kubernetes.authRef: the kubeconfig has {field}, which is not taken from a Secret: put certificates, keys and tokens into it as data"
        ))),
        None => access(cluster, user),
    }
}

/// The first field that would reach into the operator's machine, or around the server's identity.
fn refused(cluster: &Cluster, user: &User) -> Option<&'static str> {
    let fields = [
        ("exec", user.exec.is_some()),
        ("auth-provider", user.auth_provider.is_some()),
        ("tokenFile", user.token_file.is_some()),
        ("client-certificate", user.client_certificate.is_some()),
        ("client-key", user.client_key.is_some()),
        ("certificate-authority", cluster.certificate_authority.is_some()),
        ("proxy-url", cluster.proxy_url.is_some()),
        ("tls-server-name", cluster.tls_server_name.is_some()),
        ("insecure-skip-tls-verify", cluster.insecure_skip_tls_verify.unwrap_or(false)),
        ("username", user.username.is_some()),
        ("password", user.password.is_some()),
        ("as", user.r#as.is_some()),
        ("as-uid", user.as_uid.is_some()),
        ("as-groups", user.as_groups.is_some()),
        ("as-user-extra", user.as_user_extra.is_some()),
    ];
    fields.into_iter().find(|(_, is_set)| *is_set).map(|(field, _)| field)
}

fn access(cluster: Cluster, user: User) -> Result<Access, Fault> {
    let decode = |field: &str, text: Option<String>| {
        text.map(|text| {
            let text = SecretValue::from(text);
            let bytes = BASE64_STANDARD.decode(text.expose().trim_ascii());
            bytes.map(SecretValue::new).map_err(|_| not_ready(&format!("{field} of the kubeconfig is no base64: correct it")))
        })
        .transpose()
    };
    let authority = decode("certificate-authority-data", cluster.certificate_authority_data)?;
    let certificate = decode("client-certificate-data", user.client_certificate_data)?;
    let key = decode("client-key-data", user.client_key_data)?;
    let token = user.token.map(SecretValue::from).filter(|token| !token.is_empty());
    let identity = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => return Err(not_ready("client-certificate-data and client-key-data of the kubeconfig belong together: set both")),
    };
    if token.is_none() && identity.is_none() {
        return Err(not_ready("the kubeconfig has neither a token nor a client certificate as data: add one"));
    }
    Ok(Access { server: cluster.server, authority, token, identity })
}

fn not_ready(detail: &str) -> Fault {
    Fault::new(Class::Unavailable, Reason::StoreNotReady, format!("provider.kubernetes.authRef: {detail}"))
}

#[cfg(test)]
mod tests {
    use super::{Access, parse};
    use crate::fault::{Fault, Reason};

    fn with(cluster: &str, user: &str) -> Result<Access, Fault> {
        parse(
            format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: a\npreferences: {{}}\ncontexts: [{{name: a, context: {{cluster: c, user: u, namespace: x}}}}]\n\
                 clusters: [{{name: c, cluster: {{server: 'https://api:6443', {cluster}}}}}]\nusers: [{{name: u, user: {{{user}}}}}]\n"
            )
            .as_bytes(),
        )
    }

    #[test]
    fn what_stands_in_it_as_data_is_taken() {
        let access = with("certificate-authority-data: Y2E=", "token: secret-token").ok().unwrap();
        assert_eq!((access.server.as_str(), access.authority.unwrap().expose()), ("https://api:6443", &b"ca"[..]));
        assert_eq!(access.token.unwrap().expose(), b"secret-token");
        let access = with("", "client-certificate-data: Y2VydA==, client-key-data: a2V5").ok().unwrap();
        let (certificate, key) = access.identity.unwrap();
        assert_eq!((certificate.expose(), key.expose()), (&b"cert"[..], &b"key"[..]));
    }

    #[test]
    fn what_reaches_into_the_operators_machine_is_refused_by_name() {
        let token = "token: secret-token";
        for (cluster, user, field) in [
            ("", "exec: {command: /bin/sh}, token: secret-token", "exec"),
            ("", "auth-provider: {name: oidc}", "auth-provider"),
            ("", "tokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token", "tokenFile"),
            ("", "client-certificate: /etc/x, client-key-data: a2V5", "client-certificate"),
            ("", "client-key: /etc/x", "client-key"),
            ("certificate-authority: /etc/ca", token, "certificate-authority"),
            ("proxy-url: 'http://169.254.169.254'", token, "proxy-url"),
            ("tls-server-name: x", token, "tls-server-name"),
            ("insecure-skip-tls-verify: true", token, "insecure-skip-tls-verify"),
            ("", "username: a, password: b", "username"),
            ("", "as: admin, token: secret-token", "as"),
            ("", "as-groups: ['system:masters'], token: secret-token", "as-groups"),
        ] {
            let fault = with(cluster, user).err().unwrap();
            assert_eq!(fault.reason, Reason::NotAllowed, "{field}: {fault}");
            assert!(fault.detail.contains(&format!("has {field},")) && !fault.detail.contains("secret-token"), "{fault}");
        }
    }

    #[test]
    fn what_cannot_be_used_says_what_to_do_and_shows_nothing() {
        let faults = [
            with("", "").err(),
            with("", "client-certificate-data: Y2VydA==").err(),
            with("certificate-authority-data: '%canary'", "token: canary").err(),
            parse(b"canary: [").err(),
            parse(b"\xff").err(),
            parse(b"current-context: a").err(),
            parse(b"contexts: []").err(),
        ];
        for fault in faults {
            let fault = fault.unwrap();
            assert_eq!(fault.reason, Reason::StoreNotReady, "{fault}");
            assert!(fault.detail.starts_with("provider.kubernetes.authRef: ") && !fault.detail.contains("canary"), "{fault}");
        }
    }
}
