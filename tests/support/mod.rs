//! What the tests share.

pub mod conformance;
pub mod node;
pub mod python;
pub mod robot;
