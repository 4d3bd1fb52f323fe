//! What the API server refuses by itself, as `kubectl` shows it. Each file of `admission/` is one mistake; its first line has the
//! words that must name place and remedy.

use std::{collections::BTreeMap, fs, path::Path};

use crate::harness::plane::Lent;

#[tokio::test(flavor = "multi_thread")]
async fn every_mistake_is_refused_with_its_place_and_remedy() {
    let plane = Lent::next().await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/cases/admission");
    let expected: BTreeMap<String, String> = fs::read_dir(&folder).unwrap().map(|file| expectation(&file.unwrap().path())).collect();
    assert!(expected.len() >= 30, "only {} mistakes were found", expected.len());

    // One call for all: the order of files is the order of names, and each is answered by itself.
    let refusals = plane.try_kubectl(&["create", "--dry-run=server", "-f", &folder.to_string_lossy()], "").unwrap_err();
    let refusals = by_name(&refusals);
    for (name, words) in &expected {
        let refusal =
            refusals.iter().find(|refusal| refusal.contains(&format!("\"{name}\"")) || refusal.contains(&format!("/{name}.yaml\"")));
        let refusal = refusal.unwrap_or_else(|| panic!("{name} was accepted"));
        assert!(refusal.contains(words), "{name} was refused with other words than {words:?}: {refusal}");
    }
    assert_eq!(refusals.len(), expected.len(), "{refusals:#?}");
}

/// The name and the first line of a file.
fn expectation(file: &Path) -> (String, String) {
    let name = file.file_stem().unwrap().to_string_lossy().into_owned();
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(&format!("\n  name: {name}\n")), "{name}.yaml must hold an object of that name");
    let words = text.lines().next().and_then(|line| line.strip_prefix("# expect: "));
    (name, words.expect("the first line says what to expect").to_owned())
}

/// What kubectl said, one text per object: a refusal begins a line, and its further lines are bullets.
fn by_name(said: &str) -> Vec<String> {
    let mut refusals: Vec<String> = Vec::new();
    for line in said.lines() {
        match refusals.last_mut() {
            Some(last) if line.starts_with("* ") => last.push_str(line),
            _ => refusals.push(line.to_owned()),
        }
    }
    refusals
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_nobody_looked_at_yet_says_so() {
    let plane = Lent::next().await;
    let object = "apiVersion: keyferry.dev/v1alpha1\nkind: ExternalSecret\nmetadata: {name: untouched}\nspec: {secretStoreRef: {name: none}, data: [{secretKey: a, remoteRef: {key: a}}]}\n";
    let created = plane.kubectl(&["create", "--dry-run=server", "-o", "jsonpath={.status}", "-f", "-"], object);
    assert_eq!(created, r#"{"observedGeneration":-1}"#);
}
