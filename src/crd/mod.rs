//! The custom resources: types only.

pub mod condition;
pub mod manifest;
pub mod v1alpha1;
