//! Shared parts of the tests.

pub(crate) mod browser;
pub(crate) mod conformance;
pub(crate) mod http;
pub(crate) mod node;
pub(crate) mod pages;
pub(crate) mod proxy;
pub(crate) mod python;
pub(crate) mod robot;
pub(crate) mod router;
pub(crate) mod servers;
pub(crate) mod sim;
pub(crate) mod steps;
pub(crate) mod terminal;
pub(crate) mod tools;
