//! What the tests share.

pub mod conformance;
pub mod http;
pub mod robot;
pub mod servers;
