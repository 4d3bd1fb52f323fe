//! The real servers behind the providers: installed, pinned and started by the suite, on loopback only.
//! Shares no code with `src/`, so that what it stores and reads judges the operator.

pub mod aws;
pub mod moto;
pub mod openbao;
