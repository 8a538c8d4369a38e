//! What the tests share.

pub mod browser;
pub mod conformance;
pub mod http;
pub mod node;
pub mod proxy;
pub mod python;
pub mod robot;
pub mod router;
pub mod servers;
pub mod sim;
pub mod steps;
pub mod terminal;
pub mod tools;
