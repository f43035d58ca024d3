//! Imports point downwards: what the crates do not see to, this reads in the source.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each module of the library, and which of the others it may import. Whatever stands further up may not be.
const MAY_IMPORT: [(&str, &[&str]); 11] = [
    ("cli", &["client", "handlers", "shutdown", "spawn", "worker", "master", "run"]),
    ("client", &["decide", "run", "shutdown", "spawn", "spill", "steps"]),
    ("master", &["decide", "run", "shutdown", "spill", "steps"]),
    ("worker", &["decide", "handlers", "run", "shutdown", "spawn", "spill", "steps"]),
    ("handlers", &["spawn"]),
    ("steps", &["run", "spill"]),
    ("run", &["shutdown"]),
    ("spill", &["spawn"]),
    ("decide", &[]),
    ("shutdown", &[]),
    ("spawn", &[]),
];

/// What decides may not wait, ask the time, or draw: it is told.
const IMPURE: [&str; 7] =
    ["tokio", "coordination", "Instant::now", "SystemTime::now", "rand::rng", "async fn", ".await"];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The files of a module, with what stands in them apart from comments.
fn files(module: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut left = vec![source().join(module), source().join(format!("{module}.rs"))];
    while let Some(path) = left.pop() {
        if let Ok(entries) = fs::read_dir(&path) {
            left.extend(entries.map(|entry| entry.expect("it can be read").path()));
        } else if let Ok(text) = fs::read_to_string(&path) {
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            found.push((path, code.collect::<Vec<_>>().join("\n")));
        }
    }
    assert!(!found.is_empty(), "there is no module {module}");
    found
}

/// What is named behind `crate::`: one module, or some in braces.
fn names(rest: &str) -> Vec<&str> {
    let name = |text: &str| text.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(text.len());
    match rest.strip_prefix('{') {
        None => vec![&rest[..name(rest)]],
        Some(group) => {
            let group = group.split('}').next().unwrap_or_default();
            group.split(',').map(str::trim).map(|each| &each[..name(each)]).collect()
        }
    }
}

#[test]
fn every_module_of_the_library_has_its_place() {
    let library = fs::read_to_string(source().join("lib.rs")).expect("it can be read");
    let declared = library.lines().filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod "));
    let declared: BTreeSet<&str> = declared.map(|name| name.trim_end_matches(';')).collect();
    assert_eq!(declared, MAY_IMPORT.iter().map(|(module, _)| *module).collect());
}

#[test]
fn imports_point_downwards() {
    for (module, may) in MAY_IMPORT {
        for (path, code) in files(module) {
            for rest in code.split("crate::").skip(1) {
                for imported in names(rest) {
                    let known = MAY_IMPORT.iter().any(|(other, _)| *other == imported);
                    let allowed = imported == module || may.contains(&imported);
                    assert!(!known || allowed, "{} imports {imported}", path.display());
                }
            }
        }
    }
    for (place, (module, may)) in MAY_IMPORT.iter().enumerate() {
        let up = may.iter().find(|other| MAY_IMPORT[..place].iter().any(|(above, _)| above == *other));
        assert_eq!(up, None, "{module} may not import what stands above it");
    }
}

#[test]
fn decisions_are_pure() {
    for (path, code) in files("decide") {
        let found = IMPURE.iter().find(|impure| code.contains(**impure));
        assert_eq!(found, None, "{}", path.display());
    }
}

#[test]
fn only_the_store_knows_the_client_crate() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let crates =
        fs::read_dir(root.join("crates")).expect("it can be read").map(|entry| entry.expect("it can be").path());
    let mut left: Vec<PathBuf> = crates.chain([root.to_owned()]).map(|each| each.join("src")).collect();
    let mut knowing = BTreeSet::new();
    while let Some(path) = left.pop() {
        if let Ok(entries) = fs::read_dir(&path) {
            left.extend(entries.map(|entry| entry.expect("it can be read").path()));
        } else if fs::read_to_string(&path).is_ok_and(|text| text.contains("use zookeeper_client")) {
            knowing.insert(path.parent().expect("a folder").to_owned());
        }
    }
    assert_eq!(knowing, BTreeSet::from([root.join("crates/coordination/src/zookeeper")]));
}
