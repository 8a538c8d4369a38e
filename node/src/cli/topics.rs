//! What flows in the fleet, as the nodes' own manifests tell it.

use std::{collections::BTreeMap, path::Path};

use serde_json::{Value, json};

use super::{
    args::{Asked, Global},
    ask::dial,
    output::{Exit, failed, note, result},
    screen::{Grid, Screen, plain},
};

/// A node's topics: by name, taken in or given out, and whether something flows.
type Topics = BTreeMap<(String, Direction), bool>;

/// Machines, their nodes with their roles, and the topics of each.
type Fleet = BTreeMap<String, BTreeMap<String, (String, Topics)>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Direction {
    In,
    Out,
}

impl Direction {
    const fn name(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }
}

/// Asks the fleet for its manifests and shows them.
pub(super) async fn run(home: &Path, global: &Global, grep: Option<&str>) -> Exit {
    let client = match dial(home, global).await {
        Ok(client) => client,
        Err(unreached) => return unreached.told(),
    };
    let manifests = match client.manifests(global.timeout).await {
        Ok(manifests) => manifests,
        Err(error) => return failed(&error.to_string(), None),
    };
    if manifests.is_empty() {
        failed(
            "no node told a manifest",
            Some("are nodes running on this bus? an access rule that denies looks the same"),
        );
        return Exit::NoAnswer;
    }
    let mut fleet = Fleet::new();
    for manifest in manifests {
        let taken = manifest.map_err(|key| format!("the manifest at {} can't be read", plain(&key)));
        if let Err(reason) = taken.and_then(|manifest| take(&mut fleet, &manifest)) {
            note(format_args!("warning: {reason}; it is passed over"));
        }
    }
    if let Some(Asked::One(machine)) = &global.machine {
        fleet.retain(|id, _| id == machine.as_str());
    }
    if let Some(text) = grep {
        narrow(&mut fleet, text);
    }
    match global.json {
        true => result(format_args!("{:#}", as_json(&fleet))),
        false => result(format_args!("{}", as_text(Screen::of_stdout(), &fleet))),
    }
    Exit::Done
}

/// Takes one node's manifest in.
fn take(fleet: &mut Fleet, manifest: &Value) -> Result<(), String> {
    let text = |name: &str| manifest[name].as_str().filter(|text| !text.is_empty()).map(plain);
    let (Some(machine), Some(instance)) = (text("machine_id"), text("instance_name")) else {
        return Err("a manifest names no machine_id or no instance_name".into());
    };
    let role = text("role").unwrap_or_else(|| "unknown".into());
    let (_, topics) = fleet.entry(machine).or_default().entry(instance).or_insert((role, Topics::new()));
    for (list, direction) in [("inputs", Direction::In), ("outputs", Direction::Out)] {
        for flow in manifest[list].as_array().into_iter().flatten() {
            let Some(topic) = flow["topic"].as_str() else { continue };
            let is_live = flow["still_live"] == true && flow["ever_fired"] == true;
            *topics.entry((plain(topic), direction)).or_default() |= is_live;
        }
    }
    Ok(())
}

/// Keeps topics that contain a text, whatever its case, and the nodes that have some.
fn narrow(fleet: &mut Fleet, text: &str) {
    let text = text.to_lowercase();
    for instances in fleet.values_mut() {
        for (_, topics) in instances.values_mut() {
            topics.retain(|(topic, _), _| topic.to_lowercase().contains(&text));
        }
        instances.retain(|_, (_, topics)| !topics.is_empty());
    }
    fleet.retain(|_, instances| !instances.is_empty());
}

const fn state(is_live: bool) -> &'static str {
    if is_live { "live" } else { "idle" }
}

fn as_json(fleet: &Fleet) -> Value {
    let topic = |((topic, direction), is_live): (&(String, Direction), &bool)| json!({"topic": topic, "direction": direction.name(), "state": state(*is_live)});
    let instance = |(name, (role, topics)): (&String, &(String, Topics))| json!({"instance_name": name, "role": role, "topics": topics.iter().map(topic).collect::<Vec<_>>()});
    let machine = |(id, instances): (&String, &BTreeMap<_, _>)| json!({"machine_id": id, "instances": instances.iter().map(instance).collect::<Vec<_>>()});
    json!({"machines": fleet.iter().map(machine).collect::<Vec<_>>()})
}

fn as_text(screen: Screen, fleet: &Fleet) -> String {
    let mut table = Grid::new(&[("machine", 1), ("node", 0), ("role", 3), ("topic", 0), ("flow", 2), ("state", 0)]);
    for (machine, instances) in fleet {
        for (name, (role, topics)) in instances {
            let head = [machine, name, role].map(String::clone).to_vec();
            if topics.is_empty() {
                table.row([head.clone(), vec!["no topics".into()]].concat());
            }
            for ((topic, direction), is_live) in topics {
                let tail = vec![topic.clone(), direction.name().into(), state(*is_live).into()];
                table.row([head.clone(), tail].concat());
            }
        }
    }
    if table.is_empty() { "no topics".into() } else { table.show(screen) }
}

#[cfg(test)]
mod tests {
    use super::{super::screen::tests::*, *};

    fn fleet() -> Fleet {
        let flow = |topic: &str, ever_fired: bool, still_live: bool| json!({"topic": topic, "ever_fired": ever_fired, "still_live": still_live});
        let mut fleet = Fleet::new();
        let camera = json!({
            "machine_id": "m1", "instance_name": "camera_front", "role": "source",
            "outputs": [flow("camera_front/compressed", true, true), flow("camera_front/raw", false, true), 7],
        });
        let storage = json!({
            "machine_id": "m2", "instance_name": "storage", "inputs": [flow("*/chunk_finalized", true, false)],
        });
        for manifest in [&camera, &storage] {
            take(&mut fleet, manifest).unwrap();
        }
        fleet
    }

    #[test]
    fn manifests_are_grouped_and_only_what_flows_is_live() {
        let fleet = fleet();
        let json = as_json(&fleet);
        let node = &json["machines"][0]["instances"][0];
        assert_eq!((&node["instance_name"], &node["role"]), (&json!("camera_front"), &json!("source")));
        let states: Vec<_> = node["topics"].as_array().unwrap().iter().map(|topic| topic["state"].clone()).collect();
        assert_eq!(states, ["live", "idle"]);
        assert_eq!(json["machines"][1]["instances"][0]["topics"][0]["state"], "idle", "it was live once");
        for columns in [Some(40), Some(80), None] {
            fits(&as_text(screen(columns), &fleet), columns);
        }
        assert!(as_text(screen(None), &fleet).lines().any(|line| line.contains("compressed") && line.contains("live")));
    }

    #[test]
    fn a_text_narrows_and_what_is_no_manifest_is_refused() {
        let mut fleet = fleet();
        narrow(&mut fleet, "COMPRESSED");
        assert_eq!(as_json(&fleet)["machines"].as_array().unwrap().len(), 1);
        narrow(&mut fleet, "nothing");
        assert_eq!(as_text(screen(None), &fleet), "no topics");
        for manifest in
            [json!([]), json!("x"), json!({"machine_id": "m"}), json!({"machine_id": 1, "instance_name": ""})]
        {
            take(&mut fleet, &manifest).unwrap_err();
        }
    }
}
