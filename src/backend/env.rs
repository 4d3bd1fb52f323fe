//! Provider `env`: variables of the operator's own environment.

use std::sync::Arc;

use crate::{
    backend::{Backend, Settings},
    crd::v1alpha1::EnvProvider,
    fault::Fault,
    name::StoreName,
};

pub fn open(_store: &StoreName, _spec: &EnvProvider, _settings: &Settings) -> Result<Arc<dyn Backend>, Fault> {
    Err(Fault::unavailable("not built yet"))
}
