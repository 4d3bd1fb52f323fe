//! Provider `kubernetes` of a store: which API server, which namespace, under which credential. Field names are those of ESO.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CaProvider, SecretKeyRef};

/// Secrets and ConfigMaps of one namespace of this or another cluster.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.auth) != has(self.authRef)").message("needs exactly one of auth and authRef"))]
#[x_kube(validation = Rule::new("!has(self.authRef) || !has(self.server)").message("authRef names the server itself: remove server"))]
pub struct KubernetesProvider {
    /// The API server. Without it, and without its `url`, that of the cluster in which the operator works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<KubernetesServer>,
    /// The namespace that is read. Default `default`, in a SecretStore too: the credential decides what may be read there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub remote_namespace: Option<String>,
    /// Who reads. Never the operator itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<KubernetesAuth>,
    /// A kubeconfig that stands in a Secret (key `kubeconfig` by default): its current context says server, authority and credential,
    /// all of them as data. One that names a file, a program, a proxy or another user is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_ref: Option<SecretKeyRef>,
}

/// An API server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.caBundle) || !has(self.caProvider)").message("caBundle and caProvider exclude each other"))]
pub struct KubernetesServer {
    /// Address of another cluster, such as `https://api.example.com:6443`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 9, max = 2048), regex(pattern = r"^https://[^/?#@\s]+/?$"))]
    pub url: Option<String>,
    /// PEM certificates that sign the server's, base64-encoded. Without it and `caProvider` those that the operator itself trusts: for
    /// this cluster its own, else the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 262_144))]
    pub ca_bundle: Option<String>,
    /// Where such certificates stand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_provider: Option<CaProvider>,
}

/// Who reads: exactly one of its members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.serviceAccount), has(self.token), has(self.cert)].exists_one(p, p)").message("needs exactly one of serviceAccount, token, cert"))]
pub struct KubernetesAuth {
    /// A ServiceAccount of this cluster that allows it; its tokens live for ten minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<KubernetesAccount>,
    /// A token that stands in a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<KubernetesToken>,
    /// A client certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert: Option<KubernetesCert>,
}

/// A ServiceAccount that is annotated `keyferry.dev/allow-token: "true"`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubernetesAccount {
    /// Name of the ServiceAccount.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Namespace of the ServiceAccount: needed in a ClusterSecretStore; in a SecretStore it is always the store's own, and another is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// Who the token is for. Without it, this cluster's API server; needed with `server.url`, and must not name this cluster's then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 512)))]
    pub audiences: Option<Vec<String>>,
}

/// A token that stands in a Secret.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubernetesToken {
    /// The Secret and its key, `token` by default.
    pub bearer_token: SecretKeyRef,
}

/// A client certificate.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubernetesCert {
    /// PEM certificates; key `tls.crt` by default.
    pub client_cert: SecretKeyRef,
    /// Their PEM key; key `tls.key` by default.
    pub client_key: SecretKeyRef,
}
