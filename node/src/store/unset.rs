//! A missing store is a null object.
//!
//! No store is configured, or the configured one can't be used. Every request fails with the same block, so that the rest
//! of the node needs no second code path.

use std::ops::Range;

use async_trait::async_trait;
use bubbaloop_storage_schemas::{keys::ObjectKey, reply::Probe};

use super::port::{Body, ObjectBody, ObjectMeta, ObjectStore, Page, PutMode, StoreError, StoreErrorKind, Stored};
use crate::policy::queue::Block;

/// The null object. It holds the block that every request fails with.
#[derive(Debug, Clone)]
pub struct UnsetStore(pub Block);

impl UnsetStore {
    fn refused<T>(&self) -> Result<T, StoreError> {
        let message = format!("there is no store: {}", self.0.hint);
        Err(StoreError::new(StoreErrorKind::Blocked(self.0.clone()), message))
    }
}

#[async_trait]
impl ObjectStore for UnsetStore {
    async fn put(&self, _: &ObjectKey, _: &Body, _: PutMode) -> Result<Stored, StoreError> {
        self.refused()
    }

    async fn get(&self, _: &ObjectKey, _: Option<Range<u64>>) -> Result<Option<ObjectBody>, StoreError> {
        self.refused()
    }

    async fn head(&self, _: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError> {
        self.refused()
    }

    async fn list(&self, _: &str, _: Option<&str>, _: usize) -> Result<Page, StoreError> {
        self.refused()
    }

    async fn list_folders(&self, _: &str) -> Result<Vec<String>, StoreError> {
        self.refused()
    }

    async fn delete(&self, _: &ObjectKey) -> Result<(), StoreError> {
        self.refused()
    }

    async fn probe(&self) -> Result<Probe, StoreError> {
        self.refused()
    }
}
