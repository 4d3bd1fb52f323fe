//! The block of provider `vault`, with the field names of External Secrets where they mean the same.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AwsAccessKey, CaProvider, SecretKeyRef, ServiceAccountRef};

/// Vault or OpenBao.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.caBundle) || !has(self.caProvider)").message("caBundle and caProvider exclude each other"))]
#[x_kube(validation = Rule::new("!has(self.engine) || self.engine != 'Logical' || !has(self.version)").message("version is for engine KV only"))]
#[x_kube(validation = Rule::new("!has(self.revokeOnDelete) || (has(self.engine) && self.engine == 'Logical')").message("revokeOnDelete is for engine Logical only"))]
pub struct VaultProvider {
    /// Address, such as `https://vault.example.com:8200`.
    #[schemars(length(min = 8, max = 2048), regex(pattern = r"^https?://[^/?#@\s]+/?$"))]
    pub server: String,
    /// Mount path of the engine. Default `secret` for engine `KV`; for engine `Logical` what all keys begin with, nothing without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub path: Option<String>,
    /// `KV` (the default) reads the key/value engine at `path`. `Logical` reads any path as it is, such as `database/creds/app`: what the
    /// server leases is read once and its lease renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<VaultEngine>,
    /// Version of the key/value engine. Default `v2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<VaultKvVersion>,
    /// With engine `Logical`: whether a lease is revoked at once when no object uses its path any more. Default false: it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoke_on_delete: Option<bool>,
    /// Namespace of OpenBao or Vault Enterprise, such as `team/a`: login and reads happen there. The root namespace without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub namespace: Option<String>,
    /// PEM certificates that sign the server's, base64-encoded; the system's own without it and without `caProvider`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 262_144))]
    pub ca_bundle: Option<String>,
    /// Where PEM certificates that sign the server's stand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_provider: Option<CaProvider>,
    /// How to log in: exactly one way.
    pub auth: VaultAuth,
}

/// What is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum VaultEngine {
    #[default]
    #[serde(rename = "KV")]
    Kv,
    Logical,
}

/// Version of the key/value engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum VaultKvVersion {
    V1,
    #[default]
    V2,
}

/// How to log in to Vault: exactly one of its members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.tokenSecretRef), has(self.appRole), has(self.kubernetes), has(self.jwt), has(self.userPass), has(self.ldap), has(self.cert), has(self.gcp), has(self.iam)].exists_one(p, p)").message("needs exactly one of tokenSecretRef, appRole, kubernetes, jwt, userPass, ldap, cert, gcp, iam"))]
pub struct VaultAuth {
    /// A token that stands in a Secret; key `token` by default. It is read again when the Secret changes, and never renewed here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_secret_ref: Option<SecretKeyRef>,
    /// An AppRole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_role: Option<VaultAppRole>,
    /// A ServiceAccount, which the server has reviewed by its Kubernetes cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<VaultKubernetes>,
    /// A JWT, of a Secret or of a ServiceAccount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<VaultJwt>,
    /// User name and password of the server's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_pass: Option<VaultUserPass>,
    /// User name and password of a directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ldap: Option<VaultLdap>,
    /// A TLS client certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert: Option<VaultCert>,
    /// A Google service account, by a role of type `iam`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gcp: Option<VaultGcp>,
    /// An identity of AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iam: Option<VaultIam>,
}

/// Login by AppRole.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.roleId) != has(self.roleRef)").message("needs exactly one of roleId and roleRef"))]
pub struct VaultAppRole {
    /// Where the method is mounted. Default `approle`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub path: Option<String>,
    /// The role's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub role_id: Option<String>,
    /// A Secret with the role's id; key `roleId` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_ref: Option<SecretKeyRef>,
    /// A Secret with the secret id; key `secretId` by default.
    pub secret_ref: SecretKeyRef,
}

/// Login by a ServiceAccount's token that the server has reviewed by its cluster.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.serviceAccountRef) != has(self.secretRef)").message("needs exactly one of serviceAccountRef and secretRef"))]
pub struct VaultKubernetes {
    /// Where the method is mounted. Default `kubernetes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub mount_path: Option<String>,
    /// The server's role; it must have one of the token's audiences as its `audience`.
    #[schemars(length(min = 1, max = 512))]
    pub role: String,
    /// The ServiceAccount; a token for it is requested at each login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_ref: Option<ServiceAccountRef>,
    /// A Secret with a token; key `token` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretKeyRef>,
}

/// Login by a JWT.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.kubernetesServiceAccountToken) != has(self.secretRef)").message("needs exactly one of kubernetesServiceAccountToken and secretRef"))]
pub struct VaultJwt {
    /// Where the method is mounted. Default `jwt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub path: Option<String>,
    /// The server's role; its default role without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub role: Option<String>,
    /// A Secret with the JWT; key `token` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretKeyRef>,
    /// A ServiceAccount whose token is the JWT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes_service_account_token: Option<VaultServiceAccountToken>,
}

/// A ServiceAccount's token as JWT.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VaultServiceAccountToken {
    /// The ServiceAccount; a token for it is requested at each login.
    pub service_account_ref: ServiceAccountRef,
}

/// Login by user name and password.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VaultUserPass {
    /// Where the method is mounted. Default `userpass`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub path: Option<String>,
    /// The user's name.
    #[schemars(length(min = 1, max = 512))]
    pub username: String,
    /// A Secret with the password; key `password` by default.
    pub secret_ref: SecretKeyRef,
}

/// Login by a directory's user name and password.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VaultLdap {
    /// Where the method is mounted. Default `ldap`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub path: Option<String>,
    /// The user's name.
    #[schemars(length(min = 1, max = 512))]
    pub username: String,
    /// A Secret with the password; key `password` by default.
    pub secret_ref: SecretKeyRef,
}

/// Login by a TLS client certificate.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VaultCert {
    /// Where the method is mounted. Default `cert`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub path: Option<String>,
    /// The server's role; every role that the certificate fits without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub vault_role: Option<String>,
    /// A Secret with the certificate and what it is signed by, as PEM; key `tls.crt` by default.
    pub client_cert: SecretKeyRef,
    /// A Secret with the certificate's private key as PEM; key `tls.key` by default.
    pub secret_ref: SecretKeyRef,
}

/// Login as a Google service account: a JWT for the role, signed with the account's key for ten minutes, at each login.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VaultGcp {
    /// Where the method is mounted. Default `gcp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub path: Option<String>,
    /// The server's role, of type `iam`.
    #[schemars(length(min = 1, max = 512))]
    pub role: String,
    /// Where the account's key stands.
    pub secret_ref: VaultGcpKey,
}

/// The key of a Google service account.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VaultGcpKey {
    /// A Secret with the JSON file that Google gives out for the key; key `key.json` by default.
    pub secret_access_key_secret_ref: SecretKeyRef,
}

/// Login as an identity of AWS: a call to STS that says who made it, signed with its access key at each login, which the server makes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct VaultIam {
    /// Where the method is mounted. Default `aws`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub path: Option<String>,
    /// Region whose STS the call is for, one that the server's `sts_region` allows. Default `us-east-1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 64), regex(pattern = r"^[a-z]{2,}(-[a-z0-9]+)+$"))]
    pub region: Option<String>,
    /// The server's role, of type `iam`.
    #[schemars(length(min = 1, max = 512))]
    pub vault_role: String,
    /// What the server's `iam_server_id_header_value` says: then nobody else can use what logs in here.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "vaultAwsIamServerID")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^[!-~]+$"))]
    pub vault_aws_iam_server_id: Option<String>,
    /// The access key.
    pub secret_ref: AwsAccessKey,
}
