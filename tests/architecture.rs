//! The architecture, held by a test instead of by memory: who may import whom, where the Kubernetes API is spoken, where a
//! value is exposed, what the pure layers may not do.
//!
//! `layers` is the map and the lists, the only file to edit when a folder or an allowed edge is added. `parse` turns the
//! sources into modules with everything they mention, `resolve` follows a mention through aliases, globs and re-exports to
//! what it stands for, `rules` judges. `planted` proves with planted violations that each rule bites.
//! `documents` holds README, ARCHITECTURE and the others to what is there.

mod documents;
mod layers;
mod parse;
mod planted;
mod resolve;
mod rules;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use parse::{Crate, Source};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below `folder`, named relative to the repository.
fn sources_below(folder: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).expect("the folder is readable") {
            let path = entry.expect("the folder is readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push(Source::new(&relative(&path), &fs::read_to_string(&path).expect("the file is UTF-8")));
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).expect("the file is below the repository").to_string_lossy().replace('\\', "/")
}

/// The crate, parsed once for all tests.
fn parsed() -> &'static Crate {
    static PARSED: LazyLock<Crate> = LazyLock::new(|| Crate::parse(&sources_below("src")));
    &PARSED
}

/// Fails with one line per finding: place, rule, what was found, remedy.
fn assert_none(findings: &[rules::Finding]) {
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "\n{} finding(s)\n{}\n", lines.len(), lines.join("\n"));
}

#[test]
fn the_sources_keep_the_architecture() {
    assert_none(&rules::check(parsed()));
}

#[test]
fn no_folder_or_file_is_called_like_a_drawer() {
    let mut findings = Vec::new();
    for folder in ["src", "tests", "e2e"] {
        findings.extend(rules::check_file_names(&sources_below(folder)));
    }
    assert_none(&findings);
}

#[test]
fn the_lists_name_only_what_is_there() {
    assert_none(&rules::check_lists(parsed()));
}

#[test]
fn every_file_says_what_it_owns() {
    for folder in ["src", "tests", "e2e"] {
        assert_none(&rules::check_headers(&sources_below(folder)));
    }
}

/// A checker that finds no files would be content with anything.
#[test]
fn the_checker_sees_the_sources_and_what_they_mention() {
    let parsed = parsed();
    let files: BTreeSet<&str> = parsed.modules.values().map(|module| module.file.as_str()).collect();
    for expected in layers::MUST_BE_SEEN {
        assert!(files.contains(expected), "{expected} was not seen; seen: {files:?}");
    }
    let mentions: usize = parsed.modules.values().map(|module| module.mentions.len()).sum();
    assert!(mentions >= files.len(), "{mentions} mentions in {} files: the parser walks past the code", files.len());
}
