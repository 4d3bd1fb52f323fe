//! The suite against a real API server and real backends.

fn main() {}
