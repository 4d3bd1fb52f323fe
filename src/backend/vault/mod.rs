//! Provider `vault`: Vault and OpenBao.

use std::sync::Arc;

use crate::{
    backend::{Backend, Settings},
    crd::v1alpha1::VaultProvider,
    fault::Fault,
    name::StoreName,
};

pub fn open(
    _store: &StoreName,
    _spec: &VaultProvider,
    _credential: Option<crate::secret::SecretValue>,
    _settings: &Settings,
) -> Result<Arc<dyn Backend>, Fault> {
    Err(Fault::unavailable("not built yet"))
}
