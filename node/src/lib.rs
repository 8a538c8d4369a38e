//! The storage node: gets finished recording chunks from a robot's disk to the object store, and
//! answers for it on the Zenoh bus. `ARCHITECTURE.md` beside this crate tells how the rooms fit.

pub mod bus;
pub mod cli;
pub mod clock;
pub mod config;
pub mod content;
pub mod durable;
pub mod engine;
pub mod library;
pub mod mark;
pub mod policy;
pub mod secret;
pub mod serve;
pub mod service;
pub mod store;
