//! The end-to-end tests: real files, real servers, real sessions. One binary, because linking is slow.
#![expect(clippy::disallowed_methods, reason = "tests make and break files on purpose")]
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod house;
mod local_store;
mod s3_faults;
mod s3_store;
mod service;
mod support;
mod sync;
