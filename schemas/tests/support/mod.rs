//! Files that are generated from the types and checked in.

use std::{collections::BTreeMap, env, fs, path::Path};

/// Compares a folder of this package with the generated files. `BLESS=1` writes them.
pub(crate) fn assert_checked_in(folder: &str, files: &BTreeMap<String, Vec<u8>>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let found: BTreeMap<String, Vec<u8>> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    if env::var("BLESS").is_ok_and(|bless| bless == "1") {
        found.keys().filter(|name| !files.contains_key(*name)).for_each(|name| {
            fs::remove_file(folder.join(name)).unwrap();
        });
        files.iter().for_each(|(name, content)| fs::write(folder.join(name), content).unwrap());
        return;
    }
    let names = found.keys().chain(files.keys().filter(|name| !found.contains_key(*name)));
    let drifted: Vec<_> = names.filter(|name| found.get(*name) != files.get(*name)).collect();
    assert!(
        drifted.is_empty(),
        "{drifted:?} in {} differ from the types. Where that is meant, and older readers and files still do, run \
         `BLESS=1 cargo test -p bubbaloop-storage-schemas` and look at the difference before it is committed.",
        folder.display()
    );
}

/// Formats a value as it is checked in: indented, with a final newline.
pub(crate) fn pretty<T: serde::Serialize>(value: &T) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).unwrap();
    text.push(b'\n');
    text
}
