//! Runs the corpora of the fuzz targets, and seeded mutations of them, as plain tests.
//!
//! `BUBBALOOP_TEST_MUTATIONS` and `BUBBALOOP_TEST_SEED` set the number of mutations and the seed. `tests/fuzz` is a
//! separate crate for `cargo fuzz` with the same targets.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use fastrand::Rng;

use crate::crash::number;

#[path = "fuzz/decoders.rs"]
mod decoders;

/// Text that decoders often handle wrongly.
const TOKENS: [&str; 22] = [
    "null",
    "true",
    "-1",
    "0",
    "1e400",
    "1.5",
    "18446744073709551616",
    "9007199254740993",
    "\"\"",
    "{}",
    "[]",
    "[[[[",
    "}}",
    ",",
    "\\u0000",
    "\u{feff}",
    "../",
    "\n",
    ";",
    "=",
    "*",
    "é",
];

/// Largest size of all corpora together: they are in the repository.
const BYTES_MAX: u64 = 100 * 1024;

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// Changes bytes in one to four places.
fn mutated(random: &mut Rng, bytes: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..random.usize(1..5) {
        let (from, to) = (random.usize(0..=bytes.len()), random.usize(0..=bytes.len()));
        let (from, to) = (from.min(to), from.max(to).min(from.min(to) + 40));
        match random.u32(0..8) {
            0 => bytes.truncate(to),
            1 => drop(bytes.drain(from..to)),
            2 => {
                let piece = bytes[from..to].to_vec();
                bytes.splice(to..to, piece);
            }
            3 if !other.is_empty() => {
                let begin = random.usize(0..other.len());
                let end = (begin + random.usize(1..60)).min(other.len());
                bytes.splice(from..to, other[begin..end].iter().copied());
            }
            4 | 5 => {
                let token = TOKENS[random.usize(0..TOKENS.len())];
                bytes.splice(from..to.min(from + random.usize(0..3)), token.bytes());
            }
            _ if from < bytes.len() => bytes[from] ^= 1 << random.u32(0..8),
            _ => bytes.push(random.u8(..)),
        }
    }
    bytes
}

#[test]
fn no_decoder_panics_and_accepted_values_survive_a_round_trip() {
    let (mutations, seed) = (number("BUBBALOOP_TEST_MUTATIONS", 150), number("BUBBALOOP_TEST_SEED", 1));
    let mut random = Rng::with_seed(seed);
    for (name, target) in decoders::TARGETS {
        let corpus = corpus(name);
        assert!(corpus.len() > 2, "{name} has a corpus");
        let run = |bytes: &[u8], what: &str| {
            let shown = String::from_utf8_lossy(bytes).into_owned();
            assert!(catch_unwind(AssertUnwindSafe(|| target(bytes))).is_ok(), "{name}, {what}: {shown:?}");
        };
        for (path, bytes) in &corpus {
            let file = path.display().to_string();
            run(bytes, &file);
            for number in 0..mutations {
                let other = &corpus[random.usize(0..corpus.len())].1;
                run(&mutated(&mut random, bytes, other), &format!("{file}, change {number} of seed {seed}"));
            }
        }
    }
}

#[test]
fn the_corpora_are_small_and_each_decoder_is_a_cargo_fuzz_target() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz");
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    let mut total = 0;
    for (name, _) in decoders::TARGETS {
        total += corpus(name).iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is no binary of tests/fuzz");
        let target = fs::read_to_string(fuzz.join(format!("targets/{name}.rs"))).unwrap();
        assert!(target.contains(&format!("decoders::{name}(")), "{name}");
    }
    assert!(total <= BYTES_MAX, "the corpora have {total} bytes");
}
