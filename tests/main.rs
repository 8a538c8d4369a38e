//! The end-to-end tests: real files, real servers, real sessions. One binary, because linking is slow.
#![expect(clippy::disallowed_methods, reason = "tests make and break files on purpose")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that can't go on has failed")]
#![expect(clippy::print_stderr, reason = "a failed test shows the node's log")]

mod bus;
mod cli;
mod crash;
mod house;
mod launch;
mod library;
mod local_store;
mod main_job;
mod manifests;
mod readme;
mod reconcile;
mod s3_faults;
mod s3_node;
mod s3_store;
mod service;
mod support;
mod sync;
mod terminal;
