//! One view of the kinds that become a target: what every stage asks of an object, whichever kind it is.

use std::sync::Arc;

use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{Resource, core::ObjectMeta};

use super::{CreationPolicy, DeletionPolicy, Entry, ExternalParameter, ExternalSecret, RefreshPolicy, SyncStatus};
use crate::{
    fault::Fault,
    name::{ObjectKey, ObjectKind, TargetKind},
};

/// An object that becomes a target. Cheap to clone.
#[derive(Clone, Debug)]
pub enum SyncObject {
    Secret(Arc<ExternalSecret>),
    Parameter(Arc<ExternalParameter>),
}

impl From<Arc<ExternalSecret>> for SyncObject {
    fn from(object: Arc<ExternalSecret>) -> Self {
        Self::Secret(object)
    }
}

impl From<Arc<ExternalParameter>> for SyncObject {
    fn from(object: Arc<ExternalParameter>) -> Self {
        Self::Parameter(object)
    }
}

impl SyncObject {
    #[must_use]
    pub fn kind(&self) -> ObjectKind {
        match self {
            Self::Secret(_) => ObjectKind::ExternalSecret,
            Self::Parameter(_) => ObjectKind::ExternalParameter,
        }
    }

    #[must_use]
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Secret(object) => &object.metadata,
            Self::Parameter(object) => &object.metadata,
        }
    }

    #[must_use]
    pub fn key(&self) -> ObjectKey {
        let metadata = self.metadata();
        ObjectKey::new(self.kind(), metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
    }

    /// The annotation of that name.
    #[must_use]
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.metadata().annotations.as_ref()?.get(name).map(String::as_str)
    }

    /// How events name it.
    #[must_use]
    pub fn reference(&self) -> ObjectReference {
        match self {
            Self::Secret(object) => object.object_ref(&()),
            Self::Parameter(object) => object.object_ref(&()),
        }
    }

    /// The status as the cache shows it; the empty one before the first.
    #[must_use]
    pub fn status(&self) -> SyncStatus {
        match self {
            Self::Secret(object) => object.status.clone(),
            Self::Parameter(object) => object.status.clone(),
        }
        .unwrap_or_default()
    }

    /// The conditions of that status.
    #[must_use]
    pub fn conditions(&self) -> &[Condition] {
        match self {
            Self::Secret(object) => &object.status,
            Self::Parameter(object) => &object.status,
        }
        .as_ref()
        .map_or(&[], |status| &status.conditions)
    }

    /// All entries, `data` first.
    ///
    /// # Errors
    /// `InvalidSpec` for what the schema refuses too.
    pub fn entries(&self) -> Result<Vec<Entry<'_>>, Fault> {
        match self {
            Self::Secret(object) => object.spec.entries(),
            Self::Parameter(object) => object.spec.entries(),
        }
    }

    #[must_use]
    pub fn refresh_policy(&self) -> RefreshPolicy {
        match self {
            Self::Secret(object) => object.spec.refresh_policy,
            Self::Parameter(object) => object.spec.refresh_policy,
        }
        .unwrap_or(RefreshPolicy::Periodic)
    }

    /// As the manifest spells it.
    #[must_use]
    pub fn refresh_interval(&self) -> Option<&str> {
        match self {
            Self::Secret(object) => object.spec.refresh_interval.as_deref(),
            Self::Parameter(object) => object.spec.refresh_interval.as_deref(),
        }
    }

    #[must_use]
    pub fn is_suspended(&self) -> bool {
        match self {
            Self::Secret(object) => object.spec.suspend,
            Self::Parameter(object) => object.spec.suspend,
        }
        .unwrap_or_default()
    }

    #[must_use]
    pub fn target_kind(&self) -> TargetKind {
        self.kind().target()
    }

    /// Name of the target; the object's own without one.
    #[must_use]
    pub fn target_name(&self) -> String {
        let named = match self {
            Self::Secret(object) => object.spec.target.as_ref().and_then(|target| target.name.clone()),
            Self::Parameter(object) => object.spec.target.as_ref().and_then(|target| target.name.clone()),
        };
        named.or_else(|| self.metadata().name.clone()).unwrap_or_default()
    }

    #[must_use]
    pub fn creation_policy(&self) -> CreationPolicy {
        match self {
            Self::Secret(object) => object.spec.target.as_ref().and_then(|target| target.creation_policy),
            Self::Parameter(object) => object.spec.target.as_ref().and_then(|target| target.creation_policy),
        }
        .unwrap_or_default()
    }

    #[must_use]
    pub fn deletion_policy(&self) -> DeletionPolicy {
        match self {
            Self::Secret(object) => object.spec.target.as_ref().and_then(|target| target.deletion_policy),
            Self::Parameter(object) => object.spec.target.as_ref().and_then(|target| target.deletion_policy),
        }
        .unwrap_or_default()
    }
}
