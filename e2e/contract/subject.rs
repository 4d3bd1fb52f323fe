//! One store of one system, and what a row may do to it from outside.

use std::sync::Arc;

use async_trait::async_trait;
use keyferry::{
    backend::Backend,
    fault::Fault,
    item::{Fetched, Reading},
    name::{ProviderKind, RemoteKey, RemoteRef},
};

use super::wire::Hint;

/// Stands in every value that a row writes, and may stand in no message.
pub const CANARY: &str = "canary-4711";

/// What a row writes; each system stores it in its own way.
#[derive(Clone, Debug)]
pub enum Payload {
    Empty,
    Text(String),
    Binary,
    Sized(usize),
}

impl Payload {
    pub fn text(text: &str) -> Self {
        Self::Text(format!("{CANARY} {text}"))
    }

    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Empty => Vec::new(),
            Self::Text(text) => text.clone().into_bytes(),
            Self::Binary => (0..=u8::MAX).rev().collect(),
            Self::Sized(length) => CANARY.bytes().cycle().take(*length).collect(),
        }
    }
}

/// What was written, as a read must give it.
pub struct Written {
    pub bytes: Vec<u8>,
    /// How this version is pinned, where there are versions.
    pub version: Option<String>,
    /// What a read of the current version says which one that is.
    pub told: Option<String>,
}

/// What can be wrong between the store and its reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    Slow,
    Hang,
    HangInTls,
    /// A byte at a time, and never the last.
    Dripping,
    Reset,
    Close,
    /// The end of the answer is missing: by its promised length, by its last chunk,
    Truncated,
    TruncatedChunks,
    /// or by nothing but what it says.
    TruncatedUnnoticed,
    Malformed,
    /// More behind the answer's end.
    TwoAnswers,
    Deep,
    Null,
    /// Valid, and not what the system answers.
    OtherShape,
    NoBody,
    NoContent,
    /// HTML where the answer should be, as something in between would send it: with 200,
    Page,
    /// with 404.
    MissingPage,
    /// The system's own answer under another content type.
    Relabelled,
    Oversized,
    Endless,
    /// A list that promises more in each of its parts.
    EndlessList,
    /// Little on the wire, hundreds of MiB once unpacked.
    Bomb,
    NestedBomb,
    LargeHeaders,
    ManyHeaders,
    Throttled(Hint),
    Failing(u16),
    Redirect(u16),
    Sealed,
    Denied,
    Expired,
    NoCredential,
    OtherAuthority,
    NoParent,
    OtherEngine,
    /// Only the last folder of a list.
    OnePart,
}

/// One store. A method that a system lacks is reached by no row that is not exempt for it.
#[async_trait]
pub trait Subject: Send {
    fn keys(&self) -> ProviderKind;

    /// How the system spells what the rows call so.
    fn spell(&self, key: &str) -> String {
        key.to_owned()
    }

    /// As the operator opens it.
    fn open(&self) -> Result<Arc<dyn Backend>, Fault>;

    async fn write(&mut self, key: &str, payload: &Payload) -> Written;

    /// The same under many keys.
    async fn write_all(&mut self, keys: &[String], payload: &Payload) {
        for key in keys {
            self.write(key, payload).await;
        }
    }

    /// Writes something below no root of this store, where a key that climbs would lead.
    async fn write_outside(&mut self) {}

    async fn remove(&mut self, key: &str) {
        unreachable!("removing {key}")
    }

    async fn soft_delete(&mut self, key: &str) {
        unreachable!("deleting {key}")
    }

    async fn undelete(&mut self, key: &str, version: &str) {
        unreachable!("undeleting {key} {version}")
    }

    async fn enable(&mut self, key: &str, enabled: bool) {
        unreachable!("enabling {key} {enabled}")
    }

    async fn expire(&mut self, key: &str) {
        unreachable!("expiring {key}")
    }

    async fn destroy(&mut self, key: &str, version: &str) {
        unreachable!("destroying {key} {version}")
    }

    async fn damage(&mut self, damage: Damage) {
        unreachable!("{damage:?}")
    }

    /// Takes the damage away, and says whether that is possible.
    async fn mend(&mut self) -> bool {
        false
    }

    /// Connections and calls so far.
    fn traffic(&self) -> (u64, usize) {
        unreachable!("no network")
    }

    /// What else may stand in no message: tokens.
    fn secrets(&self) -> Vec<String> {
        Vec::new()
    }
}

/// One store that is open, and what its messages may not show.
pub struct Open {
    pub backend: Arc<dyn Backend>,
    keys: ProviderKind,
    has_folders: bool,
    /// What every key begins with.
    root: &'static str,
    hidden: Vec<String>,
}

impl Open {
    pub fn of(subject: &dyn Subject) -> Self {
        let mut hidden = subject.secrets();
        hidden.push(CANARY.to_owned());
        let spelled = subject.spell("a/b");
        let root = if spelled.starts_with('/') { "/" } else { "" };
        Self { backend: subject.open().unwrap(), keys: subject.keys(), has_folders: spelled.ends_with("a/b"), root, hidden }
    }

    pub fn key(&self, text: &str) -> RemoteKey {
        RemoteKey::parse(self.keys, &self.spelled(text)).unwrap()
    }

    /// As messages and lists show it.
    pub fn spelled(&self, text: &str) -> String {
        if self.has_folders { format!("{}{text}", self.root) } else { text.replace('/', ".") }
    }

    /// One reading per reference, in calls of at most the backend's batch.
    pub async fn fetch(&self, refs: &[RemoteRef]) -> Vec<Reading> {
        let mut readings = Vec::new();
        for batch in refs.chunks(self.backend.batch_size()) {
            let answer = self.backend.fetch(batch).await;
            assert_eq!(answer.len(), batch.len());
            readings.extend(answer);
        }
        for reading in &readings {
            self.check(&format!("{reading:?}"));
            if let Reading::Absent(fault) | Reading::Unknown(fault) = reading {
                self.check(&fault.to_string());
                assert!(fault.detail.len() <= 512, "a message of {} bytes", fault.detail.len());
            }
        }
        readings
    }

    pub async fn read(&self, key: &str, version: Option<&str>) -> Reading {
        self.fetch(&[RemoteRef { key: self.key(key), version: version.map(str::to_owned), is_metadata: false }]).await.remove(0)
    }

    pub async fn found(&self, key: &str, version: Option<&str>) -> Fetched {
        match self.read(key, version).await {
            Reading::Found(fetched) => fetched,
            other => panic!("{key} {version:?} was not found: {other:?}"),
        }
    }

    pub async fn absent(&self, key: &str, version: Option<&str>) -> Fault {
        match self.read(key, version).await {
            Reading::Absent(fault) => fault,
            other => panic!("{key} {version:?} is not absent: {other:?}"),
        }
    }

    pub async fn unknown(&self, key: &str, version: Option<&str>) -> Fault {
        match self.read(key, version).await {
            Reading::Unknown(fault) => fault,
            other => panic!("{key} {version:?} is not unknown: {other:?}"),
        }
    }

    /// Names in order.
    pub async fn list(&self, path: Option<&str>) -> Result<Vec<String>, Fault> {
        let path = path.map(|path| self.spelled(path));
        let listed = self.backend.lister().expect("a lister").list(path.as_deref()).await;
        self.check(&format!("{listed:?}"));
        let told = |name: &RemoteKey| {
            let text = name.as_str().strip_prefix(self.root).expect("a key of this system");
            if self.has_folders { text.to_owned() } else { text.replace('.', "/") }
        };
        let mut names: Vec<String> = listed?.iter().map(told).collect();
        names.sort();
        Ok(names)
    }

    fn check(&self, shown: &str) {
        assert!(self.hidden.iter().all(|secret| !shown.contains(secret)), "a message shows a secret");
    }
}
