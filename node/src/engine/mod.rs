//! The hands: carries out what policy decides, on the library's files and the store's objects.

pub mod adopt;
pub mod download;
pub mod driver;
pub mod events;
pub mod fetch;
pub mod holdings;
pub mod jobs;
pub mod multipart;
pub mod reconcile;
pub mod removal;
pub mod request;
pub mod transfer;
