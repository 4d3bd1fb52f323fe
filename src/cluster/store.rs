//! What is written about stores: their status, and events beside them.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Resource,
    api::{Patch, PatchParams},
    core::PartialObjectMeta,
};
use serde_json::{Value, json};

use super::{Cluster, ClusterError, EventText, METADATA_ONLY};
use crate::{
    crd::v1alpha1::{ClusterSecretStore, SecretStore, StoreStatus},
    metrics::Write,
    name::StoreName,
};

/// Where events about what has no namespace stand: the API server takes them nowhere else.
const NAMESPACE_OF_CLUSTER_EVENTS: &str = "default";

impl Cluster {
    /// Writes a store's status as one merge patch guarded by the resource version that it was computed from; the new resource version.
    ///
    /// # Errors
    /// `Changed` (409) means drop it: the store is another one by now.
    pub async fn patch_store_status(
        &self,
        store: &StoreName,
        resource_version: &str,
        status: &StoreStatus,
    ) -> Result<Option<String>, ClusterError> {
        let path = match store {
            StoreName::Namespaced { namespace, .. } => SecretStore::url_path(&(), Some(namespace)),
            StoreName::Cluster { .. } => ClusterSecretStore::url_path(&(), None),
        };
        let params = PatchParams { field_manager: Some("keyferry".to_owned()), ..PatchParams::default() };
        let request = kube::core::Request::new(path)
            .patch_subresource("status", store.name(), &params, &Patch::Merge(&status_patch(resource_version, status)))
            .map_err(|_| ClusterError::Invalid(0))?;
        let (mut parts, body) = request.into_parts();
        parts.headers.insert(http::header::ACCEPT, http::HeaderValue::from_static(METADATA_ONLY));
        let request = http::Request::from_parts(parts, body);
        let written: PartialObjectMeta = self.write(Write::StoreStatus, self.client.request(request)).await?;
        Ok(written.metadata.resource_version)
    }

    /// Publishes an event about a store. One create; repetitions are the caller's to avoid.
    ///
    /// # Errors
    /// See [`ClusterError`]; an event that cannot be written is not worth a retry.
    pub async fn publish_of_store(&self, store: &StoreName, uid: &str, event: &EventText) -> Result<(), ClusterError> {
        let namespace = match store {
            StoreName::Namespaced { namespace, .. } => Some(namespace.clone()),
            StoreName::Cluster { .. } => None,
        };
        let regarding = ObjectReference {
            api_version: Some(SecretStore::api_version(&()).into_owned()),
            kind: Some(store.kind().to_owned()),
            name: Some(store.name().to_owned()),
            namespace: namespace.clone(),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        };
        let beside = namespace.as_deref().unwrap_or(NAMESPACE_OF_CLUSTER_EVENTS);
        self.create_event(beside, store.name(), regarding, event).await
    }
}

/// A merge patch replaces what it names only: fields that went away are named with null.
fn status_patch(resource_version: &str, status: &StoreStatus) -> Value {
    let mut fields = serde_json::to_value(status).unwrap_or_default();
    if let Some(fields) = fields.as_object_mut() {
        for name in ["provider", "capabilities", "inputs"] {
            fields.entry(name).or_insert(Value::Null);
        }
    }
    json!({"metadata": {"resourceVersion": resource_version}, "status": fields})
}

#[cfg(test)]
mod tests {
    use super::{StoreStatus, json, status_patch};

    #[test]
    fn a_field_that_went_away_is_taken_away() {
        let status = StoreStatus { observed_generation: Some(2), provider: Some("vault".to_owned()), ..StoreStatus::default() };
        let expected = json!({
            "metadata": {"resourceVersion": "7"},
            "status": {"observedGeneration": 2, "provider": "vault", "capabilities": null, "inputs": null},
        });
        assert_eq!(status_patch("7", &status), expected);
    }
}
