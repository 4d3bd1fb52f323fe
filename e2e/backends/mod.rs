//! The real servers behind the providers: installed, pinned and started by the suite, on loopback only; and what no server that can be
//! had does, as its vendor documents it.
//! Shares no code with `src/`, so that what it stores and reads judges the operator.

pub mod aws;
pub mod moto;
pub mod openbao;
pub mod vault_methods;
