//! The names of the verbs and the roles of those who ask.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::verbs::for_each_verb;

/// Who may ask. Zenoh's access rules match keys, and each verb has its own key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Starts and stops work.
    Operator,
    /// Removes and configures.
    Admin,
}

macro_rules! names {
    ($($(#[$doc:meta])* $verb:ident = $name:ident;)+) => {
        /// What can be asked of a node.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum Verb {
            $($(#[$doc])* $verb,)+
        }

        impl Verb {
            /// All verbs, in the order of the help.
            pub const ALL: [Self; [$(stringify!($verb)),+].len()] = [$(Self::$verb),+];

            /// Returns the last part of the verb's key.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$verb => stringify!($name),)+
                }
            }
        }
    };
}
for_each_verb!(names);

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Verb {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|verb| verb.name() == text).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_verb_ends_in_a_word_that_fleet_wide_wildcards_match() {
        for verb in Verb::ALL {
            assert!(!["health", "manifest", "schema", "command", "raw"].contains(&verb.name()));
            assert_eq!(verb.name().parse(), Ok(verb));
            assert_eq!(serde_json::to_value(verb).unwrap(), verb.name());
        }
    }
}
