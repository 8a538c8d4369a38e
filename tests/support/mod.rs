//! What the tests share.

pub mod conformance;
pub mod http;
pub mod node;
pub mod python;
pub mod robot;
pub mod servers;
pub mod terminal;
