//! `keyferry.dev/v1alpha1`: the kinds of this build, with only the fields that work.

mod aws;
mod entry;
mod external_parameter;
mod external_secret;
mod kubernetes;
mod object;
mod schema;
mod store;
mod vault;

pub use aws::*;
pub use entry::{Entry, Place, Reference};
pub use external_parameter::*;
pub use external_secret::*;
pub use kubernetes::*;
pub use object::SyncObject;
pub use store::*;
pub use vault::*;

/// API group of all kinds.
pub const GROUP: &str = "keyferry.dev";
/// Label on every Owner and Orphan target.
pub const MANAGED_LABEL: &str = "keyferry.dev/managed";
/// Annotation that asks for a look now; the handled token is echoed in status.
pub const REFRESH_ANNOTATION: &str = "keyferry.dev/refresh";
/// Annotation on a store that lifts the brake on deletions by absence.
pub const CONFIRM_ABSENCE_ANNOTATION: &str = "keyferry.dev/confirm-absence";
/// Annotation by which a ServiceAccount consents to tokens being requested for it: `"true"`.
pub const ALLOW_TOKEN_ANNOTATION: &str = "keyferry.dev/allow-token";
