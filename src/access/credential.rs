//! What a store's `auth` names, judged: keys of Secrets and ConfigMaps by what they are for, and a ServiceAccount whose token is wanted.

use std::collections::{BTreeMap, BTreeSet};

use super::{Granted, SeenStore, provider};
use crate::{
    crd::v1alpha1::{
        AwsAccessKey, AwsAuth, AwsProvider, CaProvider, CaProviderType, FileProvider, KubernetesAccount, KubernetesAuth,
        KubernetesProvider, Provider, SecretKeyRef, ServiceAccountRef, VaultAuth, VaultProvider,
    },
    fault::{Fault, Reason, quote},
    name::StoreName,
};

/// What a key of a credential is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    Token,
    AccessKeyId,
    SecretAccessKey,
    SessionToken,
    AppRoleId,
    SecretId,
    Password,
    Jwt,
    ClientCertificate,
    ClientKey,
    Kubeconfig,
    /// The key of a Google service account, as the JSON file that Google gives out.
    GoogleKey,
    /// Opens files that were encrypted for it.
    AgeIdentity,
    /// Certificates that sign the server's.
    Authority,
}

/// The kind of what holds keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HolderKind {
    Secret,
    ConfigMap,
}

/// A Secret or ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Holder {
    pub kind: HolderKind,
    pub namespace: String,
    pub name: String,
}

/// One key of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CredentialKey {
    pub holder: Holder,
    pub key: String,
}

/// A ServiceAccount whose token is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenAccount {
    pub namespace: String,
    pub name: String,
    /// Empty only for this cluster: then whom its API server takes tokens for.
    pub audiences: Vec<String>,
    /// The token is for the API server of this cluster, and goes nowhere else.
    pub is_for_this_cluster: bool,
}

/// All that a store needs to log in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CredentialRefs {
    pub keys: BTreeMap<Role, CredentialKey>,
    pub account: Option<TokenAccount>,
}

impl CredentialRefs {
    /// What has to be read, each once.
    #[must_use]
    pub fn holders(&self) -> BTreeSet<&Holder> {
        self.keys.values().map(|key| &key.holder).collect()
    }

    /// The keys of one holder.
    pub fn keys_of<'a>(&'a self, holder: &'a Holder) -> impl Iterator<Item = &'a str> {
        self.keys.values().filter(move |key| &key.holder == holder).map(|key| key.key.as_str())
    }
}

impl Granted<CredentialRefs> {
    /// The account for which tokens may be requested.
    #[must_use]
    pub fn account(&self) -> Option<Granted<TokenAccount>> {
        self.0.account.clone().map(Granted)
    }
}

impl std::fmt::Display for CredentialKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Holder { kind, namespace, name } = &self.holder;
        write!(f, "{kind:?} {namespace}/{name} with key {}", quote(&self.key))
    }
}

/// What a store's `auth` names: of the store's own namespace for a `SecretStore`, whatever its spec says.
///
/// # Errors
/// `NotAllowed` when it names another namespace, or the API server as audience of a token; `InvalidSpec` when it names none where the
/// store has none of its own, and without a provider or a way to log in.
pub fn credential(store: &SeenStore<'_>) -> Result<Granted<CredentialRefs>, Fault> {
    let mut naming = Naming { store: store.name, refs: CredentialRefs::default() };
    match provider(store)? {
        Provider::Vault(vault) => naming.vault(vault)?,
        Provider::Aws(aws) => naming.aws(aws)?,
        Provider::Kubernetes(kubernetes) => naming.kubernetes(kubernetes)?,
        Provider::File(file) => naming.file(file)?,
        Provider::Env(_) | Provider::Fake(_) => {}
    }
    Ok(Granted(naming.refs))
}

/// Takes in what one store's fields name.
struct Naming<'a> {
    store: &'a StoreName,
    refs: CredentialRefs,
}

impl Naming<'_> {
    fn vault(&mut self, vault: &VaultProvider) -> Result<(), Fault> {
        if let Some(authority) = &vault.ca_provider {
            self.authority("provider.vault.caProvider", authority)?;
        }
        self.vault_auth(&vault.auth)
    }

    fn aws(&mut self, aws: &AwsProvider) -> Result<(), Fault> {
        if let Some(authority) = &aws.ca_provider {
            self.authority("provider.aws.caProvider", authority)?;
        }
        match &aws.auth {
            Some(AwsAuth { secret_ref: Some(key), jwt: None }) => self.access_key("provider.aws.auth.secretRef", key),
            Some(AwsAuth { secret_ref: None, jwt: Some(jwt) }) => {
                self.account("provider.aws.auth.jwt.serviceAccountRef", &jwt.service_account_ref, "sts.amazonaws.com")
            }
            _ => Ok(()),
        }
    }

    fn access_key(&mut self, field: &str, key: &AwsAccessKey) -> Result<(), Fault> {
        let at = |name: &str| format!("{field}.{name}");
        self.secret(Role::AccessKeyId, &at("accessKeyIDSecretRef"), &key.access_key_id_secret_ref, "access-key-id")?;
        self.secret(Role::SecretAccessKey, &at("secretAccessKeySecretRef"), &key.secret_access_key_secret_ref, "secret-access-key")?;
        match &key.session_token_secret_ref {
            Some(token) => self.secret(Role::SessionToken, &at("sessionTokenSecretRef"), token, "session-token"),
            None => Ok(()),
        }
    }

    fn kubernetes(&mut self, spec: &KubernetesProvider) -> Result<(), Fault> {
        let at = |field: &str| format!("provider.kubernetes.{field}");
        if let Some(authority) = spec.server.as_ref().and_then(|server| server.ca_provider.as_ref()) {
            self.authority(&at("server.caProvider"), authority)?;
        }
        match (&spec.auth, &spec.auth_ref) {
            (None, Some(kubeconfig)) if spec.server.is_none() => self.secret(Role::Kubeconfig, &at("authRef"), kubeconfig, "kubeconfig"),
            (Some(KubernetesAuth { service_account: Some(account), token: None, cert: None }), None) => {
                let is_elsewhere = spec.server.as_ref().is_some_and(|server| server.url.is_some());
                self.kubernetes_account(&at("auth.serviceAccount"), account, is_elsewhere)
            }
            (Some(KubernetesAuth { service_account: None, token: Some(token), cert: None }), None) => {
                self.secret(Role::Token, &at("auth.token.bearerToken"), &token.bearer_token, "token")
            }
            (Some(KubernetesAuth { service_account: None, token: None, cert: Some(cert) }), None) => {
                self.secret(Role::ClientCertificate, &at("auth.cert.clientCert"), &cert.client_cert, "tls.crt")?;
                self.secret(Role::ClientKey, &at("auth.cert.clientKey"), &cert.client_key, "tls.key")
            }
            _ => Err(Fault::invalid(
                Reason::InvalidSpec,
                "provider.kubernetes needs exactly one of auth.serviceAccount, auth.token, auth.cert, and authRef without server: set one",
            )),
        }
    }

    fn file(&mut self, spec: &FileProvider) -> Result<(), Fault> {
        let Some(decryption) = &spec.decryption else { return Ok(()) };
        let field = "provider.file.decryption.ageIdentitySecretRef";
        self.secret(Role::AgeIdentity, field, &decryption.age_identity_secret_ref, "age.agekey")
    }

    /// A token for this cluster's API server goes to no other server: for another an audience has to be named.
    fn kubernetes_account(&mut self, field: &str, named: &KubernetesAccount, is_elsewhere: bool) -> Result<(), Fault> {
        let namespace = self.namespace(field, named.namespace.as_deref())?;
        let audiences = named.audiences.clone().unwrap_or_default();
        if is_elsewhere && audiences.is_empty() {
            let detail = format!("{field}.audiences is needed with server.url: name the audience that the other cluster takes tokens for");
            return Err(Fault::invalid(Reason::InvalidSpec, detail));
        }
        if is_elsewhere && audiences.iter().any(|audience| is_api_server(audience)) {
            let detail =
                format!("{field}.audiences names this cluster's API server, and server.url another server: name the one it is for");
            return Err(Fault::not_allowed(detail));
        }
        let (name, is_for_this_cluster) = (named.name.clone(), !is_elsewhere);
        self.refs.account = Some(TokenAccount { namespace, name, audiences, is_for_this_cluster });
        Ok(())
    }

    fn vault_auth(&mut self, auth: &VaultAuth) -> Result<(), Fault> {
        let at = |field: &str| format!("provider.vault.auth.{field}");
        match auth {
            VaultAuth { token_secret_ref: Some(token), .. } => self.secret(Role::Token, &at("tokenSecretRef"), token, "token"),
            VaultAuth { app_role: Some(role), .. } => {
                if let Some(id) = &role.role_ref {
                    self.secret(Role::AppRoleId, &at("appRole.roleRef"), id, "roleId")?;
                }
                self.secret(Role::SecretId, &at("appRole.secretRef"), &role.secret_ref, "secretId")
            }
            VaultAuth { kubernetes: Some(login), .. } => {
                let account = login.service_account_ref.as_ref();
                self.jwt(&at("kubernetes"), login.secret_ref.as_ref(), account, "serviceAccountRef")
            }
            VaultAuth { jwt: Some(login), .. } => {
                let account = login.kubernetes_service_account_token.as_ref().map(|token| &token.service_account_ref);
                self.jwt(&at("jwt"), login.secret_ref.as_ref(), account, "kubernetesServiceAccountToken.serviceAccountRef")
            }
            VaultAuth { user_pass: Some(login), .. } => {
                self.secret(Role::Password, &at("userPass.secretRef"), &login.secret_ref, "password")
            }
            VaultAuth { ldap: Some(login), .. } => self.secret(Role::Password, &at("ldap.secretRef"), &login.secret_ref, "password"),
            VaultAuth { cert: Some(login), .. } => {
                self.secret(Role::ClientCertificate, &at("cert.clientCert"), &login.client_cert, "tls.crt")?;
                self.secret(Role::ClientKey, &at("cert.secretRef"), &login.secret_ref, "tls.key")
            }
            VaultAuth { gcp: Some(login), .. } => {
                let (field, key) = (at("gcp.secretRef.secretAccessKeySecretRef"), &login.secret_ref.secret_access_key_secret_ref);
                self.secret(Role::GoogleKey, &field, key, "key.json")
            }
            VaultAuth { iam: Some(login), .. } => self.access_key(&at("iam.secretRef"), &login.secret_ref),
            VaultAuth { .. } => {
                Err(Fault::invalid(Reason::InvalidSpec, "provider.vault.auth names no way to log in: set one of its members"))
            }
        }
    }

    /// A JWT of a Secret or of a ServiceAccount.
    fn jwt(
        &mut self,
        field: &str,
        secret: Option<&SecretKeyRef>,
        account: Option<&ServiceAccountRef>,
        account_field: &str,
    ) -> Result<(), Fault> {
        match (secret, account) {
            (Some(secret), None) => self.secret(Role::Jwt, &format!("{field}.secretRef"), secret, "token"),
            (None, Some(account)) => self.account(&format!("{field}.{account_field}"), account, "vault"),
            _ => Err(Fault::invalid(Reason::InvalidSpec, format!("{field} needs exactly one of secretRef and {account_field}: set one"))),
        }
    }

    fn secret(&mut self, role: Role, field: &str, named: &SecretKeyRef, default_key: &str) -> Result<(), Fault> {
        let namespace = self.namespace(field, named.namespace.as_deref())?;
        let holder = Holder { kind: HolderKind::Secret, namespace, name: named.name.clone() };
        let key = named.key.clone().unwrap_or_else(|| default_key.to_owned());
        self.refs.keys.insert(role, CredentialKey { holder, key });
        Ok(())
    }

    fn authority(&mut self, field: &str, named: &CaProvider) -> Result<(), Fault> {
        let namespace = self.namespace(field, named.namespace.as_deref())?;
        let kind = match named.r#type {
            CaProviderType::Secret => HolderKind::Secret,
            CaProviderType::ConfigMap => HolderKind::ConfigMap,
        };
        let key = named.key.clone().unwrap_or_else(|| "ca.crt".to_owned());
        self.refs.keys.insert(Role::Authority, CredentialKey { holder: Holder { kind, namespace, name: named.name.clone() }, key });
        Ok(())
    }

    fn account(&mut self, field: &str, named: &ServiceAccountRef, audience: &str) -> Result<(), Fault> {
        let namespace = self.namespace(field, named.namespace.as_deref())?;
        let audiences = named.audiences.clone().filter(|audiences| !audiences.is_empty()).unwrap_or_else(|| vec![audience.to_owned()]);
        if audiences.iter().any(|audience| is_api_server(audience)) {
            return Err(Fault::not_allowed(format!(
                "{field}.audiences names the API server: whoever got such a token could act as the ServiceAccount; name the server that it is for"
            )));
        }
        self.refs.account = Some(TokenAccount { namespace, name: named.name.clone(), audiences, is_for_this_cluster: false });
        Ok(())
    }

    /// The one place that says in which namespace a store's reference leads.
    fn namespace(&self, field: &str, named: Option<&str>) -> Result<String, Fault> {
        match (self.store, named) {
            (StoreName::Namespaced { namespace, .. }, None) => Ok(namespace.clone()),
            (StoreName::Namespaced { namespace, .. }, Some(other)) if namespace == other => Ok(namespace.clone()),
            (StoreName::Namespaced { .. }, Some(_)) => {
                Err(Fault::not_allowed(format!("{field}.namespace is another namespace than the SecretStore's: remove it")))
            }
            (StoreName::Cluster { .. }, Some(namespace)) => Ok(namespace.to_owned()),
            (StoreName::Cluster { .. }, None) => {
                Err(Fault::invalid(Reason::InvalidSpec, format!("{field}.namespace is needed in a ClusterSecretStore: add it")))
            }
        }
    }
}

/// The names that API servers go by unless they are told otherwise. The cluster's own are known only when a token is requested, and
/// refused there.
fn is_api_server(audience: &str) -> bool {
    let host = audience.split_once("://").map_or(audience, |(_, rest)| rest);
    let host = host.split(['/', ':']).next().unwrap_or_default();
    host == "kubernetes" || host == "kubernetes.default" || host.starts_with("kubernetes.default.svc")
}
