//! What a query asks of this node, told from its key alone. Pure.
//!
//! A wild query reaches a node in both of its spaces and must be answered, and act, once: the short space
//! is silent where the global one answers.

use bubbaloop_storage_schemas::{
    MachineId, Role, Verb,
    error::{ErrorCode, Refusal, nearest},
    keys::{self, Space},
};
use zenoh_keyexpr::keyexpr;

/// What is done with a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing: another space or nobody answers.
    Silent,
    /// The verb is run.
    Run(Verb),
    /// The help is given, on the key of this verb, and nothing is started: the query meets several verbs.
    Help(Verb),
    /// The node's dataflow manifest is given.
    Manifest,
    /// A command of the node contract is answered in-band.
    Command,
    /// It is refused.
    Refuse {
        /// The verb that it meets, if it meets one.
        verb: Option<Verb>,
        /// Why.
        refusal: Refusal,
    },
}

/// The verb keys of one node in both spaces.
#[derive(Debug, Clone)]
pub struct Dispatch {
    machine: MachineId,
    keys: Vec<(Verb, String, String)>,
}

impl Dispatch {
    /// Builds the keys of a machine.
    pub fn new(machine: &MachineId) -> Self {
        let key = |space, verb| keys::verb(space, machine, verb);
        let keys = Verb::ALL.map(|verb| (verb, key(Space::Short, verb), key(Space::Global, verb)));
        Self { machine: machine.clone(), keys: keys.into() }
    }

    /// Decides what is done with a query that reached the queryable of `space`.
    pub fn decide(&self, space: Space, query: &keyexpr) -> Decision {
        let meets = |key: &str| keyexpr::new(key).is_ok_and(|key| query.intersects(key));
        let own = |(_, short, global): &(Verb, String, String)| match space {
            Space::Short => meets(short),
            Space::Global => meets(global),
        };
        let members: Vec<_> = self.keys.iter().filter(|keys| own(keys)).collect();
        if space == Space::Short && members.iter().any(|(_, _, global)| meets(global)) {
            return Decision::Silent;
        }
        match members.as_slice() {
            [] => self.contract(space, query).unwrap_or_else(|| self.none(space, query)),
            [(verb, ..)] => one(*verb, query),
            // A reply's key must meet the query, and the help's own may not.
            [(first, ..), ..] => {
                let has_help = members.iter().any(|(verb, ..)| *verb == Verb::Help);
                Decision::Help(if has_help { Verb::Help } else { *first })
            }
        }
    }

    /// Decides on the keys of the node contract, which answer for themselves.
    fn contract(&self, space: Space, query: &keyexpr) -> Option<Decision> {
        let meets = |name| {
            let key = keys::contract(&self.machine, name);
            space == Space::Global && keyexpr::new(&key).is_ok_and(|key| query.intersects(key))
        };
        if meets("manifest") {
            return Some(Decision::Manifest);
        }
        if meets("command") {
            // A command may act, so it is to be named; a wild one is somebody's look around.
            let is_named = query.as_str().ends_with("/command");
            return Some(if is_named { Decision::Command } else { Decision::Silent });
        }
        meets("health").then_some(Decision::Silent)
    }

    fn none(&self, space: Space, query: &keyexpr) -> Decision {
        if is_wild(query) {
            return Decision::Silent;
        }
        let asked = query.as_str().rsplit('/').next().unwrap_or_default();
        let names = Verb::ALL.iter().map(|verb| verb.name());
        let hint = match nearest(asked, names) {
            Some(name) => format!("did you mean {}/{name}?", keys::root(space, &self.machine)),
            None => format!("ask {} for the verbs", keys::verb(space, &self.machine, Verb::Help)),
        };
        let refusal = Refusal::new(ErrorCode::NotFound, "there is no such verb").hint(hint);
        Decision::Refuse { verb: None, refusal }
    }
}

fn is_wild(query: &keyexpr) -> bool {
    query.as_str().contains('*')
}

/// A verb that acts is run only where it is named; one that removes only where the machine is named too.
fn one(verb: Verb, query: &keyexpr) -> Decision {
    let is_named = query.as_str().rsplit('/').next() == Some(verb.name());
    let may_run = match verb.role() {
        Role::Viewer => true,
        Role::Operator => is_named,
        Role::Admin => is_named && !is_wild(query),
    };
    if may_run {
        return Decision::Run(verb);
    }
    let refusal = match verb.role() {
        Role::Viewer | Role::Operator => {
            let message = format!("{verb} acts, and was met by a pattern only");
            Refusal::new(ErrorCode::InvalidParams, message).hint(format!("name it: a key that ends in /{verb}"))
        }
        Role::Admin => {
            let message = format!("{verb} was met by a pattern, and is for one machine that is named");
            Refusal::new(ErrorCode::InvalidParams, message).hint("ask a key without a * in it")
        }
    };
    Decision::Refuse { verb: Some(verb), refusal }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(space: Space, query: &str) -> Decision {
        Dispatch::new(&"robot_1".parse().unwrap()).decide(space, keyexpr::new(query).unwrap())
    }

    #[test]
    fn a_verb_that_is_named_is_run_in_the_space_that_was_asked() {
        for query in ["bubbaloop/robot_1/storage/list", "bubbaloop/*/storage/list"] {
            assert_eq!(decide(Space::Short, query), Decision::Run(Verb::List), "{query}");
        }
        for query in ["bubbaloop/global/robot_1/storage/upload", "bubbaloop/*/*/storage/upload"] {
            assert_eq!(decide(Space::Global, query), Decision::Run(Verb::Upload), "{query}");
        }
    }

    #[test]
    fn a_query_that_meets_both_spaces_is_answered_once() {
        for (query, global) in [
            ("bubbaloop/**/storage/list", Decision::Run(Verb::List)),
            ("bubbaloop/**/upload", Decision::Run(Verb::Upload)),
            ("bubbaloop/**", Decision::Help(Verb::Help)),
            ("**", Decision::Help(Verb::Help)),
        ] {
            assert_eq!(decide(Space::Short, query), Decision::Silent, "{query}");
            assert_eq!(decide(Space::Global, query), global, "{query}");
        }
    }

    #[test]
    fn several_verbs_are_answered_with_help_and_start_nothing() {
        for (query, key) in [
            ("bubbaloop/robot_1/storage/**", Verb::Help),
            ("bubbaloop/*/storage/*", Verb::Help),
            ("bubbaloop/robot_1/storage/$*s$*", Verb::List),
        ] {
            assert_eq!(decide(Space::Short, query), Decision::Help(key), "{query}");
        }
    }

    #[test]
    fn a_pattern_may_look_and_may_not_act() {
        assert_eq!(decide(Space::Short, "bubbaloop/robot_1/storage/l$*"), Decision::Run(Verb::List));
        let Decision::Refuse { refusal, .. } = decide(Space::Short, "bubbaloop/robot_1/storage/upl$*") else {
            panic!("a pattern acted")
        };
        assert_eq!(refusal.code, ErrorCode::InvalidParams);
    }

    #[test]
    fn what_removes_is_run_only_on_one_machine_that_is_named() {
        for (space, query) in [
            (Space::Short, "bubbaloop/*/storage/rm"),
            (Space::Short, "bubbaloop/robot_$*/storage/rm"),
            (Space::Short, "bubbaloop/robot_1/storage/rm$*"),
            (Space::Global, "bubbaloop/**/rm"),
            (Space::Global, "bubbaloop/global/*/storage/rm"),
        ] {
            let Decision::Refuse { refusal, verb } = decide(space, query) else { panic!("{query} was run") };
            assert_eq!((refusal.code, verb), (ErrorCode::InvalidParams, Some(Verb::Rm)), "{query}");
        }
        assert_eq!(decide(Space::Short, "bubbaloop/robot_1/storage/rm"), Decision::Run(Verb::Rm));
    }

    #[test]
    fn a_key_that_is_no_verb_is_answered_with_the_nearest() {
        for (query, part) in [
            ("bubbaloop/robot_1/storage/lst", "storage/list"),
            ("bubbaloop/robot_1/storage", "storage/help"),
            ("bubbaloop/robot_1/storage/list/x", "storage/help"),
        ] {
            let Decision::Refuse { refusal, .. } = decide(Space::Short, query) else { panic!("{query}") };
            assert_eq!(refusal.code, ErrorCode::NotFound);
            assert!(refusal.hint.as_deref().unwrap_or_default().contains(part), "{query}: {refusal:?}");
        }
    }

    #[test]
    fn a_wild_query_for_something_else_gets_silence() {
        for query in ["bubbaloop/**/health", "bubbaloop/**/schema", "bubbaloop/robot_1/storage/events/**"] {
            for space in Space::ALL {
                assert_eq!(decide(space, query), Decision::Silent, "{query}");
            }
        }
    }

    #[test]
    fn the_keys_of_the_node_contract_answer_for_themselves_in_the_global_form() {
        for query in ["bubbaloop/**/manifest", "bubbaloop/global/robot_1/storage/manifest"] {
            assert_eq!(decide(Space::Global, query), Decision::Manifest, "{query}");
        }
        assert_eq!(decide(Space::Short, "bubbaloop/**/manifest"), Decision::Silent);
        assert_eq!(decide(Space::Global, "bubbaloop/global/robot_1/storage/command"), Decision::Command);
        assert_eq!(decide(Space::Global, "bubbaloop/global/robot_1/storage/comm$*"), Decision::Silent);
        assert!(matches!(decide(Space::Short, "bubbaloop/robot_1/storage/manifest"), Decision::Refuse { .. }));
    }
}
