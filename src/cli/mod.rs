//! The commands beside `keyferry run`: one file each.

pub mod store;
