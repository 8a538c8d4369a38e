//! The token that admin verbs need.

use crate::secret::Secret;

/// The admin token, or why there is none.
#[derive(Debug, Clone)]
pub enum AdminToken {
    /// It is this one.
    Set(Secret),
    /// There is none, for this reason: nobody may ask for what an admin may.
    Absent(String),
}

impl Default for AdminToken {
    fn default() -> Self {
        Self::Absent("none is set".into())
    }
}
