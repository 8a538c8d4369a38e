//! The Zenoh edge. What is here so far decides what a query asks for; sessions come next.

pub mod dispatch;
