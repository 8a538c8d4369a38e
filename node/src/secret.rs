//! Secrets: wiped from memory when they are dropped, never shown.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A secret text. `Debug` and `Display` show that there is one and nothing of it.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a secret over; the caller's own copies are the caller's to wipe.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// Returns the secret for the one place that needs it. Never log or format what this returns.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Tells whether another secret is the same; how long that takes tells nothing of where they differ.
    pub fn is(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_shown() {
        let secret = Secret::new("hunter2".into());
        let shown = format!("{secret} {secret:?} {secret:#?} {:?}", Some(&secret));
        assert!(!shown.contains("hunter2"), "{shown}");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn a_secret_is_the_same_as_one_of_the_same_text_only() {
        let secret = |text: &str| Secret::new(text.into());
        assert!(secret("hunter2").is(&secret("hunter2")));
        for other in ["hunter3", "hunter", "hunter22", ""] {
            assert!(!secret("hunter2").is(&secret(other)), "{other}");
        }
    }
}
