//! Provider `aws` of a store, with the field names of External Secrets where they mean the same.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CaProvider, SecretKeyRef};

/// AWS Secrets Manager or Parameter Store.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.caBundle) || !has(self.caProvider)").message("caBundle and caProvider exclude each other"))]
pub struct AwsProvider {
    /// What is read.
    pub service: AwsService,
    /// Region, such as `eu-central-1`, of any partition. A key that is an ARN is read in the region of the ARN.
    #[schemars(length(min = 3, max = 64), regex(pattern = r"^[a-z]{2,}(-[a-z0-9]+)+$"))]
    pub region: String,
    /// Another address of the service than that of the region, such as `https://secretsmanager.example.com`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 2048), regex(pattern = r"^https?://[^/?#@\s]+/?$"))]
    pub endpoint: Option<String>,
    /// PEM certificates that sign the servers', base64-encoded; the system's own without it and without `caProvider`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 262_144))]
    pub ca_bundle: Option<String>,
    /// Where PEM certificates that sign the servers' stand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_provider: Option<CaProvider>,
    /// How to log in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<AwsAuth>,
}

/// What of AWS is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum AwsService {
    SecretsManager,
    ParameterStore,
}

/// How to log in to AWS: exactly one of its members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.secretRef)").message("needs secretRef"))]
pub struct AwsAuth {
    /// An access key that stands in a Secret. It is read again when the Secret changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<AwsAccessKey>,
}

/// An access key in a Secret.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "the names of External Secrets")]
pub struct AwsAccessKey {
    /// The key's id; key `access-key-id` by default.
    #[serde(rename = "accessKeyIDSecretRef")]
    pub access_key_id_secret_ref: SecretKeyRef,
    /// The key itself; key `secret-access-key` by default.
    pub secret_access_key_secret_ref: SecretKeyRef,
    /// The token of a session that the key belongs to; key `session-token` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_token_secret_ref: Option<SecretKeyRef>,
}
