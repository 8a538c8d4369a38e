//! The settings of an instance as Bubbaloop's daemon hands them over: a YAML file behind `-c`.

use std::path::{Path, PathBuf};

use serde_yaml_ng::Value;

use crate::{config::edit::is_setting, content};

/// The node's name in the fleet, which no file changes.
const INSTANCE: &str = "storage";

/// Largest file that is read.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Reads the settings of a file as keys and values of `--set`, and warns of what in it is not used.
///
/// # Errors
/// It can't be read or is no map: with other settings than were meant the node does not start.
pub(super) fn read(path: &Path) -> Result<Vec<(String, String)>, String> {
    let path = unquoted(path);
    let wrong = |reason: String| format!("the settings {} can't be used: {reason}", path.display());
    let bytes = content::read(&path, FILE_BYTES_MAX).map_err(|error| wrong(error.to_string()))?;
    let Instance { settings, unused } = parse(&bytes).map_err(wrong)?;
    let keys: Vec<_> = settings.iter().map(|(key, _)| key.as_str()).collect();
    tracing::info!(file = %path.display(), settings = keys.join(" "), "settings of the instance count as --set");
    for key in unused {
        let key = key.as_str();
        tracing::warn!(file = %path.display(), key, "not used: there is no such setting");
    }
    Ok(settings)
}

/// Bubbaloop's supervisor without systemd leaves quotes around the path.
fn unquoted(path: &Path) -> PathBuf {
    let text = path.to_string_lossy();
    let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    inner.map_or_else(|| path.to_owned(), PathBuf::from)
}

/// What an instance's file says.
#[derive(Debug, PartialEq, Eq)]
struct Instance {
    settings: Vec<(String, String)>,
    unused: Vec<String>,
}

fn parse(bytes: &[u8]) -> Result<Instance, String> {
    let root: Value = serde_yaml_ng::from_slice(bytes).map_err(|error| error.to_string())?;
    let mut instance = Instance { settings: Vec::new(), unused: Vec::new() };
    let mut open = match root {
        Value::Null => return Ok(instance),
        Value::Mapping(_) => vec![(String::new(), root)],
        _ => return Err("it is no map of settings".into()),
    };
    while let Some((key, value)) = open.pop() {
        match written(&value) {
            _ if key == "name" && value == INSTANCE => {}
            Some(text) if is_setting(&key) => instance.settings.push((key, text)),
            Some(_) => instance.unused.push(key),
            None => {
                for (name, value) in value.as_mapping().into_iter().flatten() {
                    let name = written(name).unwrap_or_default();
                    open.push((if key.is_empty() { name } else { format!("{key}.{name}") }, value.clone()));
                }
            }
        }
    }
    instance.settings.sort();
    instance.unused.sort();
    Ok(instance)
}

/// Writes a value as `--set` takes it; `None` for a map.
fn written(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some(String::new()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(text.clone()),
        Value::Sequence(_) => Some(serde_json::to_string(value).unwrap_or_default()),
        Value::Tagged(tagged) => written(&tagged.value),
        Value::Mapping(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_taken_as_set_writes_them_and_the_rest_is_told() {
        let yaml = "name: storage\nconcurrency: 2\nauto_upload: false\nbucket: fleet\nrole: sink\n\
                    zenoh:\n  mode: client\n  connect: [\"tcp/127.0.0.1:7447\"]\n  modes: x\noutput_dir: /x\n";
        let Instance { settings, unused } = parse(yaml.as_bytes()).unwrap();
        let settings: Vec<_> = settings.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(
            settings,
            [
                ("auto_upload", "false"),
                ("bucket", "fleet"),
                ("concurrency", "2"),
                ("zenoh.connect", "[\"tcp/127.0.0.1:7447\"]"),
                ("zenoh.mode", "client")
            ]
        );
        assert_eq!(unused, ["output_dir", "role", "zenoh.modes"]);
        assert_eq!(parse(b"name: other").unwrap().unused, ["name"]);
        assert!(parse(b"").unwrap().settings.is_empty());
        assert!(parse(b"- a").is_err() && parse(b"a: [").is_err());
        assert_eq!(unquoted(Path::new("\"/a b/c.yaml\"")), Path::new("/a b/c.yaml"));
    }
}
