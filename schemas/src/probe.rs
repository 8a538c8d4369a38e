//! The capabilities of a store, as its probe found them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a store was found to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Probe {
    /// It refuses bytes that do not have the digest that they were sent with.
    pub enforces_sha256: bool,
    /// It tells an object's digest, and has found that itself.
    pub tells_sha256: bool,
    /// Its ETag of an object is the MD5 of the object's bytes.
    pub etag_is_md5: bool,
    /// It refuses to overwrite when asked to create only.
    pub honours_create_only: bool,
    /// It refuses to replace another version than the named one.
    pub honours_if_match: bool,
    /// Its clock minus ours, to within a second; null where it told no time.
    pub clock_offset_ms: Option<i64>,
    /// What the node's key may do there.
    pub rights: Rights,
}

/// What a key may do in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rights {
    /// Store an object.
    pub put: bool,
    /// Read an object.
    pub get: bool,
    /// Look at an object.
    pub head: bool,
    /// List objects.
    pub list: bool,
    /// Remove an object.
    pub delete: bool,
}

impl Rights {
    /// All of them.
    pub const ALL: Self = Self { put: true, get: true, head: true, list: true, delete: true };
}
