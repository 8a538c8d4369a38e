//! What one object is: looked at, or with `deep` fetched and hashed. An error is told as what it is, never as "absent".

use std::sync::Arc;

use bubbaloop_storage_schemas::{
    ChunkName, Digest,
    keys::ObjectKey,
    reply::{Probe, Proof},
};
use sha2::{Digest as _, Sha256};

use crate::{
    policy::reconcile::Remote,
    store::{ObjectMeta, ObjectStore, StoreError, StoreErrorKind},
};

/// A chunk's object and what is known of it.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// Its chunk.
    pub name: ChunkName,
    /// Its key.
    pub key: ObjectKey,
    /// What its bytes are to hash to; where that is not known, what fits the name is taken.
    pub digest: Option<Digest>,
    /// What its size is to be.
    pub size_bytes: u64,
    /// How the journal proves it, and in which version.
    pub proven: Option<(Proof, Box<str>)>,
}

impl Target {
    fn is_right(&self, found: Digest) -> bool {
        self.digest.map_or_else(|| self.name.fits(&found), |wanted| wanted == found)
    }

    /// Tells what an object is by what the store says of it. A digest that the store did not find itself is none.
    pub(super) fn judge(&self, meta: ObjectMeta, probe: Option<Probe>) -> Remote {
        let ObjectMeta { etag, digest, size_bytes, .. } = meta;
        let told = digest.filter(|_| probe.is_some_and(|probe| probe.enforces_sha256));
        match (told, &self.proven) {
            (Some(found), _) if self.is_right(found) => Remote::Same { proof: Proof::Enforced, etag },
            (Some(_), _) => Remote::Other,
            // The store tells no version, and nothing against the mark.
            (None, Some((proof, proven))) if etag.is_empty() && size_bytes == self.size_bytes => {
                Remote::Same { proof: *proof, etag: proven.to_string() }
            }
            (None, Some((proof, proven))) if **proven == *etag && !etag.is_empty() => {
                Remote::Same { proof: *proof, etag }
            }
            (None, Some(_) | None) => Remote::Claimed,
        }
    }
}

/// Looks at an object.
pub(super) async fn look(store: &dyn ObjectStore, probe: Option<Probe>, target: &Target) -> Result<Remote, StoreError> {
    let meta = store.head(&target.key).await?;
    Ok(meta.map_or(Remote::Absent, |meta| target.judge(meta, probe)))
}

/// Fetches an object and hashes it. A key that may not read is told what a look tells.
pub(super) async fn fetch(
    store: &dyn ObjectStore,
    probe: Option<Probe>,
    target: &Target,
) -> Result<Remote, StoreError> {
    match hashed(store, &target.key).await {
        Ok(Some((found, etag))) if target.is_right(found) => Ok(Remote::Same { proof: Proof::ReadBack, etag }),
        Ok(Some(_)) => Ok(Remote::Other),
        Ok(None) => Ok(Remote::Absent),
        Err(error) if matches!(error.kind, StoreErrorKind::Corrupt) => Ok(Remote::Other),
        Err(error) if error.is_denied() => look(store, probe, target).await,
        Err(error) => Err(error),
    }
}

async fn hashed(store: &dyn ObjectStore, key: &ObjectKey) -> Result<Option<(Digest, String)>, StoreError> {
    let Some(mut object) = store.get(key, None).await? else { return Ok(None) };
    let mut hasher = Sha256::new();
    while let Some(block) = object.next_block().await? {
        hasher.update(&block);
    }
    Ok(Some((Digest::from_bytes(hasher.finalize().into()), object.meta.etag.clone())))
}

/// Looks at one object for the evidence, in a task of its own.
pub(super) async fn at(
    store: Arc<dyn ObjectStore>,
    probe: Option<Probe>,
    target: Target,
    is_deep: bool,
) -> (ChunkName, Result<Remote, StoreError>) {
    let found = if is_deep { fetch(&*store, probe, &target).await } else { look(&*store, probe, &target).await };
    (target.name, found)
}
