//! Provider `fake`: values in the manifest.

use std::sync::Arc;

use crate::{backend::Backend, crd::v1alpha1::FakeProvider, fault::Fault};

pub fn open(_spec: &FakeProvider) -> Result<Arc<dyn Backend>, Fault> {
    Err(Fault::unavailable("not built yet"))
}
