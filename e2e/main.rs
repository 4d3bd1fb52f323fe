//! The suite against a real API server and real backends.

mod proxy;
