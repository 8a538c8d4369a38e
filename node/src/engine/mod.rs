//! The hands: carries out what policy decides, on the library's files and the store's objects.

pub mod sync;
pub mod transfer;
