//! AWS in the tests: what speaks to a server of it as its administrator does.

pub mod admin;
pub mod signature;
