//! Provider `file`: the encrypted store.

use std::sync::Arc;

use crate::{
    backend::{Backend, Settings},
    crd::v1alpha1::FileProvider,
    fault::Fault,
    name::StoreName,
};

pub fn open(_store: &StoreName, _spec: &FileProvider, _settings: &Settings) -> Result<Arc<dyn Backend>, Fault> {
    Err(Fault::unavailable("not built yet"))
}
