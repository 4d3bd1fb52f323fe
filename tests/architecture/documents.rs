//! The documents are true to the tree: what they name exists, and the map names every folder.

use std::collections::BTreeSet;
use std::fs;

use super::root;

const DOCUMENTS: &[&str] = &["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"];
/// A name in backticks that begins so is a path of this repository.
const FOLDERS: &[&str] = &["src/", "tests/", "e2e/", "config/", "crds/", "ci/", ".ci/", "docs/", "charts/", "benches/", "fuzz/"];

fn read(document: &str) -> String {
    fs::read_to_string(root().join(document)).unwrap_or_else(|error| panic!("{document}: {error}"))
}

/// The texts between single backticks, code blocks aside.
fn quoted(text: &str) -> Vec<String> {
    let mut is_block = false;
    let prose = text.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        is_block ^= is_fence;
        !is_block && !is_fence
    });
    prose.flat_map(|line| line.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

/// `src/engine/` of `src/engine/`, nothing of `src/**/*.rs`.
fn path_in(quote: &str) -> Option<&str> {
    let is_path = FOLDERS.iter().any(|folder| quote.starts_with(folder)) && !quote.contains(['*', '<', '{', ' ']);
    is_path.then_some(quote)
}

/// The targets of `make` that a text names, in prose and in code blocks.
fn targets_in(text: &str) -> BTreeSet<String> {
    let starts = text.match_indices("make ").filter(|(at, _)| *at == 0 || text[..*at].ends_with(['`', '\n']));
    let words =
        starts.map(|(at, found)| text[at + found.len()..].chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect::<String>());
    words.filter(|word| !word.is_empty()).collect()
}

#[test]
fn every_path_that_a_document_names_is_there() {
    let mut seen = 0;
    for document in DOCUMENTS {
        for quote in quoted(&read(document)) {
            let Some(path) = path_in(&quote) else { continue };
            assert!(root().join(path).exists(), "{document} names `{path}`, which is not there: correct the document");
            seen += 1;
        }
    }
    assert!(seen > 20, "only {seen} paths were seen: the test reads past the documents");
}

#[test]
fn every_make_target_that_a_document_names_is_there() {
    let makefile = read("Makefile");
    let named: BTreeSet<String> = DOCUMENTS.iter().flat_map(|document| targets_in(&read(document))).collect();
    assert!(named.contains("try") && named.contains("test"), "the two commands of a newcomer are not named: {named:?}");
    for target in named {
        let is_there = makefile.lines().any(|line| line.starts_with(&format!("{target}:")));
        assert!(is_there, "`make {target}` is no target of the Makefile");
    }
}

#[test]
fn the_map_names_every_folder_of_the_sources() {
    let map = read("ARCHITECTURE.md");
    let units = super::parsed().modules.values().filter(|module| module.path.len() == 2 && !module.is_test);
    for module in units {
        let name = &module.path[1];
        let is_named = [format!("`src/{name}/`"), format!("`src/{name}.rs`")].iter().any(|path| map.contains(path));
        assert!(is_named, "ARCHITECTURE.md does not say what `{}` is for", module.file);
    }
}

#[test]
fn a_planted_lie_is_seen() {
    let text = "See `src/no_such/` and `src/**/*.rs`, `make lies`.\n```sh\nmake others\n`src/block`\n```\nDo not make this.";
    assert_eq!(quoted(text).iter().filter_map(|quote| path_in(quote)).collect::<Vec<_>>(), ["src/no_such/"]);
    assert_eq!(targets_in(text).into_iter().collect::<Vec<_>>(), ["lies", "others"]);
}
