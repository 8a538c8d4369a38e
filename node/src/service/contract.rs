//! What makes the node one of Bubbaloop's: its dataflow manifest, and commands that are answered in-band.

use bubbaloop_storage_schemas::{
    Role, Verb,
    error::{ErrorCode, Refusal, nearest},
    event::Fact,
    keys::{self, Space},
    parameter::Param,
    params::Params,
};
use serde_json::{Map, Value, json};

use super::{Answer, Service};

/// The node's name in the fleet.
const INSTANCE: &str = "storage";

impl Service {
    /// Returns the dataflow manifest, version 2: what the node takes in and tells.
    pub fn node_manifest(&self) -> Value {
        let started_at_ns = self.facts.started_at_ns();
        let flow = |topic: String, ever_fired: bool| json!({"topic": topic, "ever_fired": ever_fired, "still_live": true, "declared_at_ns": started_at_ns});
        let outputs: Vec<_> = Fact::KINDS
            .iter()
            .map(|kind| flow(format!("storage/events/{}", kind.name), self.facts.has_told(kind.name)))
            .collect();
        json!({
            "schema_version": 2,
            "instance_name": INSTANCE,
            "name": INSTANCE,
            "machine_id": self.identity.machine_id,
            "role": "sink",
            "node_kind": "rust",
            "version": env!("CARGO_PKG_VERSION"),
            "description": env!("CARGO_PKG_DESCRIPTION"),
            "started_at_ns": started_at_ns,
            "inputs": [flow("*/chunk_finalized".into(), self.sync.has_heard())],
            "outputs": outputs,
            "commands": commands(self.setup.commands_act),
        })
    }

    /// Answers a command in-band as `{result, error}`. `request` is `{command, params: {}}` or flat; none lists the
    /// commands. Viewer verbs are run; those that act only where the settings allow it, and those that remove never.
    ///
    /// It may read the disk, and for a verb that takes long answers with the job's state now.
    pub fn command(&self, request: Option<Map<String, Value>>) -> Value {
        match self.run_command(request) {
            Ok(result) => json!({"result": result, "error": null}),
            Err(refusal) => {
                let hint = refusal.hint.as_deref().map(|hint| format!("; {hint}")).unwrap_or_default();
                json!({"result": null, "error": format!("{}: {}{hint}", refusal.code, refusal.message)})
            }
        }
    }

    fn run_command(&self, request: Option<Map<String, Value>>) -> Result<Value, Refusal> {
        let acts = self.setup.commands_act;
        let Some(mut fields) = request else { return Ok(json!({"commands": commands(acts)})) };
        let wrong = |message: &str| Refusal::new(ErrorCode::InvalidParams, message);
        let Some(Value::String(name)) = fields.remove("command") else {
            return Err(wrong("a command needs the field command").hint("send nothing for the list"));
        };
        let params = match fields.remove("params") {
            Some(Value::Object(params)) => params,
            Some(Value::Null) | None => fields,
            Some(_) => return Err(wrong("params is no object")),
        };
        let Ok(verb) = name.parse::<Verb>() else {
            let near = nearest(&name, Verb::ALL.iter().map(|verb| verb.name()));
            let hint = near.map_or("send nothing for the list".into(), |near| format!("did you mean {near}?"));
            return Err(Refusal::new(ErrorCode::NotFound, "there is no such command").hint(hint));
        };
        if verb.role() == Role::Admin || (verb.role() == Role::Operator && !acts) {
            let key = keys::verb(Space::Global, &self.identity.machine_id, verb);
            return Err(
                Refusal::new(ErrorCode::Denied, format!("{verb} is no command here")).hint(format!("ask {key}"))
            );
        }
        let mut given = Params::default();
        given.overlay(params);
        Ok(match self.ask(verb, Space::Global, &given)? {
            Answer::Now(reply) => reply
                .to_json()
                .map_err(|error| Refusal::new(ErrorCode::Internal, format!("the reply can't be encoded: {error}")))?,
            Answer::Later(pending) => json!(pending.reply_now()),
        })
    }
}

/// The commands with their parameters, as Bubbaloop lists them.
fn commands(act: bool) -> Vec<Value> {
    let parameter = |param: &Param| json!({"name": param.name, "kind": param.kind, "description": param.description()});
    let is_meant = |verb: &&Verb| verb.role() == Role::Viewer || (act && verb.role() == Role::Operator);
    let command = |verb: &Verb| {
        let parameters: Vec<_> = verb.parameters().iter().map(parameter).collect();
        json!({"name": verb, "description": verb.summary(), "parameters": parameters})
    };
    Verb::ALL.iter().filter(is_meant).map(command).collect()
}
