//! Provider `aws` of a store, with the field names of External Secrets where they mean the same.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CaProvider, SecretKeyRef, ServiceAccountRef};

/// AWS Secrets Manager or Parameter Store.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.caBundle) || !has(self.caProvider)").message("caBundle and caProvider exclude each other"))]
#[x_kube(validation = Rule::new("has(self.role) || (!has(self.externalID) && !has(self.sessionTags))").message("externalID and sessionTags are for role: name it"))]
#[x_kube(validation = Rule::new("has(self.sessionTags) || !has(self.transitiveTagKeys)").message("transitiveTagKeys are keys of sessionTags: name them"))]
#[x_kube(validation = Rule::new("has(self.role) || has(self.additionalRoles) || (has(self.auth) && has(self.auth.jwt)) || !has(self.stsEndpoint)").message("stsEndpoint is where a role is assumed: name one"))]
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
    /// ARN of the role that reads, assumed by whoever `auth` logs in. The session is shared by all stores of the same identity and renewed
    /// before it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 20, max = 2048), regex(pattern = r"^arn:[a-z0-9-]+:iam::[0-9]{12}:role/[!-~]+$"))]
    pub role: Option<String>,
    /// ARNs of roles that are assumed before `role`, in this order, each by the one before: 1 to 8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 8),
        inner(length(min = 20, max = 2048), regex(pattern = r"^arn:[a-z0-9-]+:iam::[0-9]{12}:role/[!-~]+$"))
    )]
    pub additional_roles: Option<Vec<String>>,
    /// What the trust policy of `role` wants to hear (`sts:ExternalId`).
    #[serde(default, rename = "externalID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 1224), regex(pattern = r"^[\w+=,.@:/-]+$"))]
    pub external_id: Option<String>,
    /// Tags of the session of `role`: 1 to 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 50))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["key".to_string()]))]
    pub session_tags: Option<Vec<AwsSessionTag>>,
    /// Keys of `sessionTags` that stay with roles which are assumed from that session: 1 to 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 50), inner(length(min = 1, max = 128)))]
    pub transitive_tag_keys: Option<Vec<String>>,
    /// Another address of the Security Token Service than that of the region, such as `https://sts.example.com`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 2048), regex(pattern = r"^https?://[^/?#@\s]+/?$"))]
    pub sts_endpoint: Option<String>,
}

/// A tag of a session.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct AwsSessionTag {
    /// Name of the tag.
    #[schemars(length(min = 1, max = 128))]
    pub key: String,
    /// What it says; may be empty.
    #[schemars(length(max = 256))]
    pub value: String,
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
#[x_kube(validation = Rule::new("has(self.secretRef) != has(self.jwt)").message("needs exactly one of secretRef and jwt"))]
pub struct AwsAuth {
    /// An access key that stands in a Secret. It is read again when the Secret changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<AwsAccessKey>,
    /// The token of a ServiceAccount, for the role that its annotation `eks.amazonaws.com/role-arn` names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<AwsJwt>,
}

/// A ServiceAccount whose token is exchanged for a session (web identity).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AwsJwt {
    /// The account. It needs the annotation `keyferry.dev/allow-token: "true"`.
    pub service_account_ref: ServiceAccountRef,
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
