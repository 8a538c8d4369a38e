//! What the definitions of all verbs say, by [`Verb`].

use crate::{
    definition::{ReplyShape, VerbDefinition},
    parameter::{Param, Parameters},
    verb::{Role, Verb},
    verbs::for_each_verb,
};

/// One verb, without its types.
#[derive(Debug)]
struct Row {
    role: Role,
    summary: &'static str,
    about: &'static str,
    parameters: &'static [Param],
    shape: ReplyShape,
}

const fn row_of<V: VerbDefinition>() -> Row {
    Row {
        role: V::ROLE,
        summary: V::SUMMARY,
        about: V::ABOUT,
        parameters: <V::Request as Parameters>::PARAMETERS,
        shape: V::SHAPE,
    }
}

macro_rules! rows {
    ($($(#[$doc:meta])* $verb:ident = $module:ident;)+) => {
        impl Verb {
            const fn row(self) -> Row {
                match self {
                    $(Self::$verb => row_of::<super::$module::$verb>(),)+
                }
            }
        }

        // Each file defines the verb under whose name it is registered.
        $(const _: () = assert!(matches!(<super::$module::$verb as VerbDefinition>::VERB, Verb::$verb));)+
    };
}
for_each_verb!(rows);

impl Verb {
    /// Returns who may ask.
    pub const fn role(self) -> Role {
        self.row().role
    }

    /// Returns what it does, in one line.
    pub const fn summary(self) -> &'static str {
        self.row().summary
    }

    /// Returns what it does, in one line of the command line's help.
    pub const fn about(self) -> &'static str {
        self.row().about
    }

    /// Returns its parameters. Any other is an error.
    pub const fn parameters(self) -> &'static [Param] {
        self.row().parameters
    }

    /// Returns the kind of its reply.
    pub const fn shape(self) -> ReplyShape {
        self.row().shape
    }
}
