//! Files that the real SOPS and age encrypted (`sealed/README.md`): what is read out of them, and that nothing is once they were altered.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc, time::Duration};

use proptest::{prelude::*, sample::Index};
use serde_json::Value;
use tempfile::TempDir;

use super::memory;
use crate::{
    access::Role,
    backend::{
        Backend, Credentials, Settings,
        file::{
            self,
            tree::{Identities, Unseal},
        },
    },
    crd::v1alpha1::{FileDecryption, FileFormat, FileProvider, SecretKeyRef},
    fault::{Class, Fault, Reason},
    item::Reading,
    name::{ProviderKind, RemoteKey, RemoteRef, StoreName},
    secret::SecretValue,
};

fn fixture(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/backend/file/tests/sealed");
    fs::read(folder.join(name)).unwrap()
}

fn identities(name: &str) -> Identities {
    Identities::parse(&SecretValue::new(fixture(name))).unwrap()
}

/// What a file of that name and these bytes holds.
fn open(key: &str, bytes: &[u8]) -> Result<Vec<u8>, Fault> {
    let opened = identities("ours.agekey").unseal(key, &SecretValue::new(bytes.to_vec()));
    opened.map(|value| value.expose().to_vec()).map_err(Fault::from)
}

fn text(key: &str, name: &str) -> String {
    String::from_utf8(open(key, &fixture(name)).unwrap()).unwrap()
}

fn json(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap()
}

#[test]
fn documents_are_read_as_sops_reads_them() {
    for (name, plain) in [
        ("values.yaml", "values.json"),
        ("values.json", "json"),
        ("small.yaml", "small.json"),
        ("two.yaml", "small.json"),
        ("encrypted-regex.yaml", "secret.json"),
        ("unencrypted-regex.yaml", "secret.json"),
        ("mac-only.yaml", "secret.json"),
        ("encrypted-suffix.yaml", "suffix.json"),
    ] {
        let read = open(&format!("app/{name}"), &fixture(&format!("sealed.{name}"))).unwrap();
        assert_eq!(json(&read), json(&fixture(&format!("plain.{plain}"))), "{name}");
    }
}

#[test]
fn members_keep_their_order_and_numbers_their_text() {
    let expected = "{\n  \"alpha\": \"first\",\n  \"beta\": [\n    \"second\",\n    \"third\"\n  ],\n  \"gamma\": 7\n}";
    assert_eq!(text("small.yaml", "sealed.small.yaml"), expected);
    let read = text("values.yaml", "sealed.values.yaml");
    for part in ["\"long\": 9007199254740993", "\"looks\": \"1.10\"", "\"whole\": 12345678901234567", "\"off\": false", "\"empty\": \"\""] {
        assert!(read.contains(part), "{part}");
    }
}

#[test]
fn env_ini_and_other_files_are_what_they_were() {
    let env = String::from_utf8(fixture("plain.env")).unwrap();
    let without_comment = env.split_once('\n').unwrap().1;
    for key in ["app.env", ".env", ".env.production"] {
        assert_eq!(text(key, "sealed.app.env"), without_comment, "{key}");
    }
    let ini = "[database]\nuser = app\npassword = pass=word\n[other]\nempty = \nopen_unencrypted = seen\n";
    assert_eq!(text("app.ini", "sealed.app.ini"), ini);
    let bytes: Vec<u8> = (0..=255).collect();
    for key in ["all.bytes", "keystore", "config.toml"] {
        assert_eq!(open(key, &fixture("sealed.all.bytes")).unwrap(), bytes, "{key}");
    }
    for name in ["sealed.note.age", "sealed.note.asc"] {
        assert_eq!(text("any/name.yaml", name), "an age file\nof two lines\n", "{name}");
    }
}

#[test]
fn what_is_for_others_or_cannot_be_opened_says_what_to_do() {
    let passphrase = b"age-encryption.org/v1\n-> scrypt bBjlhJVYZeE4aqUdmtRHfw 15\nZV/AhotwSGqaPCU43cepl4WYUouAa17a3xpu4G2yi5k\n--- fgMiVLJHMlg9fW7CVG/hPS5EAU4Zeg19LyCP7SoH5nA\n0123456789abcdef0123456789abcdef0";
    let without_age = String::from_utf8(fixture("sealed.small.yaml")).unwrap().replace("    age:\n", "    pgp:\n");
    for (key, bytes, class, reason, remedy) in [
        ("a.yaml", fixture("sealed.theirs.yaml"), Class::Denied, Reason::AccessDenied, "sops updatekeys"),
        ("a.age", fixture("sealed.theirs.age"), Class::Denied, Reason::AccessDenied, "age -r"),
        ("a.age", passphrase.to_vec(), Class::Denied, Reason::AccessDenied, "passphrase"),
        ("a.yaml", without_age.into_bytes(), Class::Denied, Reason::AccessDenied, "no recipient of age"),
        ("a.yaml", fixture("sealed.groups.yaml"), Class::Invalid, Reason::InvalidData, "key groups"),
        ("a.yaml", b"password: plain".to_vec(), Class::Invalid, Reason::InvalidData, "not encrypted"),
        ("a.yaml", Vec::new(), Class::Invalid, Reason::InvalidData, "not encrypted"),
    ] {
        let fault = open(key, &bytes).unwrap_err();
        assert_eq!((fault.class, fault.reason), (class, reason), "{fault}");
        assert!(fault.detail.contains(remedy) && fault.detail.contains(key), "{fault}");
    }
}

/// Altered in one byte, a file holds what it held (what was hit protects nothing: a blank, the recipient's name) or is refused; cut off, it
/// is refused.
fn unchanged_or_refused(key: &str, altered: &[u8], plain: &[u8]) -> bool {
    match open(key, altered) {
        Ok(read) => {
            assert_eq!(read, plain, "{key} was read with another value");
            false
        }
        Err(fault) => {
            assert!(matches!(fault.reason, Reason::InvalidData | Reason::AccessDenied), "{fault}");
            true
        }
    }
}

#[test]
fn no_flipped_byte_gives_another_value() {
    for (key, name, stride, percent_unnoticed) in [
        ("small.yaml", "sealed.small.yaml", 7, 20),
        ("small.env", "sealed.small.env", 7, 20),
        ("small.ini", "sealed.small.ini", 7, 20),
        ("note", "sealed.note.age", 1, 0),
        ("note", "sealed.note.asc", 3, 2),
    ] {
        let sealed = fixture(name);
        let plain = open(key, &sealed).unwrap();
        let (mut unnoticed, places) = (0, sealed.len() / stride);
        for at in (0..sealed.len()).step_by(stride) {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            unnoticed += usize::from(!unchanged_or_refused(key, &altered, &plain));
        }
        assert!(unnoticed * 100 <= percent_unnoticed * places, "{name}: {unnoticed} of {places} bytes protect nothing");
    }
}

#[test]
fn a_file_that_was_cut_off_is_refused() {
    for (key, name) in [
        ("small.yaml", "sealed.small.yaml"),
        ("values.json", "sealed.values.json"),
        ("small.env", "sealed.small.env"),
        ("note", "sealed.note.age"),
    ] {
        let sealed = fixture(name);
        let plain = open(key, &sealed).unwrap();
        let mut refused = 0;
        for length in (0..sealed.len()).step_by(17) {
            refused += usize::from(unchanged_or_refused(key, &sealed[..length], &plain));
        }
        // At the end stand line breaks, and the version of SOPS, which nothing depends on.
        assert!(refused * 17 + 100 > sealed.len(), "{name}: {refused}");
    }
}

#[test]
fn values_that_were_moved_taken_away_or_added_are_refused() {
    let sealed = String::from_utf8(fixture("sealed.small.yaml")).unwrap();
    let lines: Vec<&str> = sealed.lines().collect();
    let value = |line: usize| lines[line].split_once("ENC").unwrap().1;
    let without =
        |start: &str| lines.iter().filter(|line| !line.trim_start().starts_with(start)).fold(String::new(), |all, line| all + line + "\n");
    let swapped = |one: usize, other: usize| {
        let mut lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        lines[one] = lines[one].replace(value(one), value(other));
        lines[other] = lines[other].replace(value(other), value(one));
        lines.join("\n")
    };
    assert!(open("a.yaml", swapped(0, 0).as_bytes()).is_ok(), "what the cases alter is whole");
    for (what, altered) in [
        ("values of two names", swapped(0, 4)),
        ("elements of a list", swapped(2, 3)),
        ("no MAC", without("mac:")),
        ("no date", without("lastmodified:")),
        ("no rule, so the usual one", without("unencrypted_suffix:").replace("alpha:", "alpha_unencrypted:")),
        ("a value less", without("alpha:")),
        ("an element less", sealed.replacen(lines[2], "", 1)),
        ("a name that is another", sealed.replace("alpha:", "alphA:")),
        ("a value that is plain", sealed.replace(&format!("ENC{}", value(0)), "plain")),
        ("a value that is none", sealed.replace(&format!("ENC{}", value(0)), "null")),
        ("a value that is empty", sealed.replace(&format!("ENC{}", value(0)), "\"\"")),
        ("a plain value more", sealed.replace("sops:\n", "more_unencrypted: x\nsops:\n")),
        ("a name twice", sealed.replace("gamma:", &format!("alpha: ENC{}\ngamma:", value(0)))),
        ("nothing encrypted", sealed.replace("_unencrypted", "a")),
        ("a MAC over the encrypted alone", sealed.replace("    version:", "    mac_only_encrypted: true\n    version:")),
        ("the MAC of another file", {
            let other = String::from_utf8(fixture("sealed.two.yaml")).unwrap();
            let mac = |text: &str| text.lines().find(|line| line.trim_start().starts_with("mac:")).unwrap().to_owned();
            sealed.replace(&mac(&sealed), &mac(&other))
        }),
        ("nothing that SOPS wrote", sealed.split_once("sops:").unwrap().0.to_owned()),
        ("what SOPS wrote twice", format!("{sealed}sops: {{}}\n")),
        ("two rules", sealed.replace("    version:", "    encrypted_suffix: x\n    version:")),
        ("two documents", format!("{sealed}---\na: 1\n")),
    ] {
        assert_ne!(altered, sealed, "{what}");
        let fault = open("a.yaml", altered.as_bytes()).expect_err(what);
        assert_eq!((fault.class, fault.reason), (Class::Invalid, Reason::InvalidData), "{what}: {fault}");
    }
}

/// The limits of SOPS, not of this reader: `sops decrypt` takes these files too.
#[test]
fn what_sops_does_not_protect_is_known() {
    let sealed = String::from_utf8(fixture("sealed.small.yaml")).unwrap();
    let typed = open("a.yaml", sealed.replace("type:int", "type:str").as_bytes()).unwrap();
    assert_eq!(json(&typed)["gamma"], "7", "the type of a value; its text is protected");
    let named = open("a.yaml", format!("nothing: null\nempty: \"\"\n{sealed}").as_bytes()).unwrap();
    assert_eq!(json(&named)["gamma"], 7, "names of what is empty");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_is_done_to_the_bytes_no_other_value_is_read(
        edits in prop::collection::vec((any::<Index>(), any::<u8>(), 0..3_u8), 1..6),
    ) {
        for (key, name) in [("small.yaml", "sealed.small.yaml"), ("note", "sealed.note.asc")] {
            let sealed = fixture(name);
            let plain = open(key, &sealed).unwrap();
            let mut altered = sealed;
            for (at, byte, kind) in &edits {
                let at = at.index(altered.len());
                match kind {
                    0 => altered[at] = *byte,
                    1 => altered.insert(at, *byte),
                    _ => drop(altered.remove(at)),
                }
            }
            unchanged_or_refused(key, &altered, &plain);
        }
    }
}

#[test]
fn a_key_file_holds_identities_and_nothing_else_and_no_message_shows_one() {
    let ours = String::from_utf8(fixture("ours.agekey")).unwrap();
    let identity = ours.lines().find(|line| line.starts_with("AGE")).unwrap();
    let several = format!("{ours}\n\n# theirs\r\n{}\r\n", String::from_utf8(fixture("theirs.agekey")).unwrap());
    let parse = |text: &str| Identities::parse(&SecretValue::from(text.to_owned()));
    assert!(parse(&several).unwrap().unseal("a.yaml", &SecretValue::new(fixture("sealed.theirs.yaml"))).is_ok());
    for (text, expected) in [
        (String::new(), "no identity"),
        ("# only a comment\n".to_owned(), "no identity"),
        (format!("{ours}{}", &identity[..70]), "line 4"),
        (identity.replace("KEY-1", "KEY-PQ-1"), "line 1"),
        (format!("{identity}\n").repeat(65), "more than 64"),
        ("\u{0}\u{ff}".to_owned(), "line 1"),
    ] {
        let error = parse(&text).err().unwrap().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
        assert!(!error.contains(&identity[16..30]), "{error}");
    }
}

/// A root with a tree of sealed and plain files, as a store opens it.
struct Safe {
    folder: TempDir,
}

impl Safe {
    fn new() -> Self {
        let safe = Self { folder: memory() };
        fs::create_dir_all(safe.folder.path().join("root/tree")).unwrap();
        safe.put("sealed.yaml", &fixture("sealed.small.yaml"));
        safe.put("note.age", &fixture("sealed.note.age"));
        safe.put("plain.yaml", b"a: 1");
        safe
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        let (draft, path) = (self.folder.path().join("draft"), self.folder.path().join("root/tree").join(name));
        fs::write(&draft, bytes).unwrap();
        fs::rename(draft, path).unwrap();
    }

    fn open(&self, format: Option<FileFormat>, identity: Option<&str>) -> Result<Arc<dyn Backend>, Fault> {
        let settings = Settings {
            file_root: Some(self.folder.path().join("root")),
            file_master_key: Some(self.folder.path().join("key")),
            file_tree_root: Some(self.folder.path().join("root")),
            call_timeout: Duration::from_secs(60),
            ..Settings::default()
        };
        let age_identity_secret_ref = SecretKeyRef { name: "age".to_owned(), key: None, namespace: None };
        let decryption = identity.map(|_| FileDecryption { age_identity_secret_ref });
        let secrets: BTreeMap<_, _> = identity.into_iter().map(|text| (Role::AgeIdentity, SecretValue::from(text.to_owned()))).collect();
        let spec = FileProvider { path: "tree".to_owned(), format, decryption };
        file::open(&StoreName::Cluster { name: "safe".to_owned() }, &spec, &Credentials { secrets, tokens: None }, &settings)
    }
}

async fn word(backend: &Arc<dyn Backend>, name: &str) -> String {
    let key = RemoteKey::parse(ProviderKind::File, name).unwrap();
    match backend.fetch(&[RemoteRef { key, version: None, is_metadata: false }]).await.remove(0) {
        Reading::Found(found) => {
            let text = String::from_utf8(found.value.expose().to_vec()).unwrap();
            if found.is_secret { text } else { format!("no secret: {text}") }
        }
        Reading::Absent(fault) => format!("absent {}", fault.reason),
        Reading::Unknown(fault) => format!("unknown {}", fault.reason),
    }
}

#[tokio::test]
async fn a_store_reads_sealed_files_with_an_identity_and_plain_ones_without() {
    let safe = Safe::new();
    let ours = String::from_utf8(fixture("ours.agekey")).unwrap();
    let sealed = safe.open(Some(FileFormat::Tree), Some(&ours)).unwrap();
    assert_eq!(json(word(&sealed, "sealed.yaml").await.as_bytes())["gamma"], 7);
    assert_eq!(word(&sealed, "note.age").await, "an age file\nof two lines\n");
    assert_eq!(word(&sealed, "plain.yaml").await, "unknown InvalidData");
    assert_eq!(word(&sealed, "never.yaml").await, "absent NotFound");
    safe.put(".sops.yaml", b"creation_rules: []");
    let names = sealed.lister().unwrap().list(None).await.unwrap();
    assert_eq!(names.iter().map(ToString::to_string).collect::<Vec<_>>(), ["note.age", "plain.yaml", "sealed.yaml"]);
    safe.put("sealed.yaml", &fixture("sealed.theirs.yaml"));
    assert_eq!(word(&sealed, "sealed.yaml").await, "unknown AccessDenied");

    let plain = safe.open(Some(FileFormat::Tree), None).unwrap();
    assert_eq!(word(&plain, "plain.yaml").await, "no secret: a: 1");
    for name in ["sealed.yaml", "note.age"] {
        assert_eq!(word(&plain, name).await, "unknown InvalidData", "{name}: what is encrypted is nobody's value");
    }
}

#[test]
fn a_store_whose_identity_cannot_be_used_says_so_before_anything_is_read() {
    let safe = Safe::new();
    let fault = safe.open(Some(FileFormat::Tree), Some("AGE-SECRET-KEY-1WRONG")).err().unwrap();
    assert_eq!((fault.class, fault.reason), (Class::Unavailable, Reason::StoreNotReady));
    assert!(fault.detail.contains("ageIdentitySecretRef") && fault.detail.contains("line 1") && !fault.detail.contains("WRONG"), "{fault}");
    for format in [None, Some(FileFormat::Sealed)] {
        assert_eq!(safe.open(format, Some("x")).err().unwrap().reason, Reason::InvalidSpec);
    }
}
