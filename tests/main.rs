//! The end-to-end tests: real files, real servers, real sessions. They are one binary because linking is slow.
#![expect(clippy::disallowed_methods, reason = "tests make and break files on purpose")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that can't go on has failed")]
#![expect(clippy::print_stderr, reason = "a failed test shows the node's log")]

mod adopt;
mod away;
mod browser;
mod bus;
mod cli;
mod crash;
mod docs;
mod download;
mod evict;
mod faults;
mod full_disk;
mod fuzz;
mod house;
mod kit;
mod launch;
mod library;
mod local_store;
mod lost;
mod main_job;
mod manifests;
mod manners;
mod multipart;
mod older_versions;
mod readme;
mod real_files;
mod reconcile;
mod rest;
mod restore;
mod rm;
mod s3_faults;
mod s3_node;
mod s3_store;
mod service;
mod simulation;
mod slow_link;
mod steps;
mod support;
mod sync;
mod terminal;
