//! The stages of a reconcile: resolve → access → due → fetch → plan → apply → report. Each takes one typed value and returns the
//! next; none calls an earlier one.

pub mod apply;
pub mod fetch;
#[cfg(test)]
mod leaves;
pub mod plan;
pub mod report;
pub mod resolve;
#[cfg(test)]
mod scene;
mod token;
