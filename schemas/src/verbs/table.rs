//! What the definitions of all verbs say, by [`Verb`].

use std::{borrow::Cow, collections::BTreeMap};

use schemars::{JsonSchema, Schema, schema_for};

use crate::{
    definition::{ReplyShape, VerbDefinition},
    error::Refusal,
    parameter::{Param, Parameters},
    params::Params,
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

fn schema_of<T: JsonSchema>() -> (Cow<'static, str>, Schema) {
    (T::schema_name(), schema_for!(T))
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

        impl Verb {
            /// Reads a request of this verb and returns its parameters as this version sends them.
            ///
            /// # Errors
            /// The request is wrong.
            pub fn normalize(self, params: &Params) -> Result<Params, Refusal> {
                match self {
                    $(Self::$verb => super::$module::$verb::parse(params).map(|request| request.to_params()),)+
                }
            }
        }

        /// Returns the JSON Schema of each verb's reply, by the name of its type.
        pub fn reply_schemas() -> BTreeMap<Cow<'static, str>, Schema> {
            BTreeMap::from([$(schema_of::<<super::$module::$verb as VerbDefinition>::Reply>()),+])
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
