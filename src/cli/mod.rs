//! The commands beside `keyferry run`: one file each.

pub mod crds;
pub mod store;
