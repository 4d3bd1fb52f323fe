//! What one process remembers of each object between reconciles. All of it may be lost: a restart decides from the cluster alone.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

use crate::{
    cluster::is_newer,
    crd::v1alpha1::{SyncObject, SyncStatus},
    engine::plan::Repairs,
    name::ObjectKey,
};

/// What was handled last, and what its outcome rests on: while all of it stands, there is nothing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handled {
    pub generation: i64,
    pub inputs: String,
    pub token: Option<String>,
    /// Stores without a session, by reason.
    pub unconnected: String,
}

/// Why the target could not be written: it is judged again when this changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// UID and resource version of what stands there.
    pub by: Option<(String, String)>,
    pub rival: Option<String>,
    /// From then on it is tried again although nothing changed.
    pub until: Option<Timestamp>,
}

impl Blocked {
    /// Whether it still stands, with what is there now.
    #[must_use]
    pub fn holds(&self, by: Option<&(String, String)>, rival: Option<&str>, now: Timestamp) -> bool {
        self.by.as_ref() == by && self.rival.as_deref() == rival && self.until.is_none_or(|until| now < until)
    }
}

/// A status that was written.
#[derive(Clone, Debug)]
pub struct Written {
    /// The object's resource version since.
    pub version: String,
    pub status: SyncStatus,
}

/// One object's memory.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    pub uid: String,
    pub handled: Option<Handled>,
    pub blocked: Option<Box<Blocked>>,
    /// Until the cache has it too.
    pub written: Option<Box<Written>>,
    /// The newest resource version that the watch has shown, and when.
    pub seen: Option<(Box<str>, Instant)>,
    /// Somebody wants a look that saw everything from this moment on.
    pub wake: Option<Instant>,
    /// Failures of the API server in a row.
    pub failures: u32,
    pub repairs: Repairs,
    pub recreated: Option<Timestamp>,
    /// There was no room at its store: it comes back.
    pub is_parked: bool,
}

impl Memory {
    /// The status as last known and the resource version to patch it at: the cache may lag behind our own write.
    #[must_use]
    pub fn status_of(&self, object: &SyncObject) -> (SyncStatus, String) {
        let version = object.metadata().resource_version.clone().unwrap_or_default();
        match &self.written {
            Some(written) if is_newer(&written.version, &version) => (written.status.clone(), written.version.clone()),
            _ => (object.status(), version),
        }
    }

    /// Somebody wants a look from that moment on.
    pub fn ask(&mut self, not_before: Instant) {
        self.wake = Some(self.wake.map_or(not_before, |known| known.max(not_before)));
    }

    /// Takes the status that was written, if the cache does not have it already.
    pub fn wrote(&mut self, written: Written) {
        let is_shown = self.seen.as_ref().is_some_and(|(seen, _)| !is_newer(&written.version, seen));
        self.written = (!is_shown).then(|| Box::new(written));
    }

    /// Since when the object is known as it is at this version; a version that the watch's handler has not come to yet is known since
    /// never.
    #[must_use]
    pub fn known_since(&self, version: &str) -> Option<Instant> {
        self.seen.as_ref().filter(|(seen, _)| **seen == *version).map(|(_, at)| *at)
    }

    /// The cache has the object at this version now.
    fn show(&mut self, version: &str, now: Instant) {
        self.written.take_if(|written| !is_newer(&written.version, version));
        self.seen = Some((version.into(), now));
    }

    /// The pause after another failure: doubles from `first` to `longest`.
    pub fn fail(&mut self, first: Duration, longest: Duration) -> Duration {
        let pause = first.saturating_mul(2_u32.saturating_pow(self.failures.min(16))).min(longest);
        self.failures = self.failures.saturating_add(1);
        pause
    }
}

/// All memories. Cheap to clone.
#[derive(Clone, Default)]
pub struct Memories(Arc<Mutex<HashMap<ObjectKey, Box<Memory>>>>);

impl Memories {
    /// Works on one memory; an object that was deleted and made again starts with an empty one.
    pub fn with<T>(&self, object: &ObjectKey, uid: &str, work: impl FnOnce(&mut Memory) -> T) -> T {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let memory = map.entry(object.clone()).or_default();
        if memory.uid != uid {
            let wake = memory.wake;
            **memory = Memory { uid: uid.to_owned(), wake, ..Memory::default() };
        }
        work(memory)
    }

    /// The cache shows the object at this version: what was kept because the cache lagged behind is kept no longer.
    pub fn shown(&self, object: &SyncObject) {
        let (metadata, now) = (object.metadata(), Instant::now());
        let (uid, version) = (metadata.uid.as_deref().unwrap_or_default(), metadata.resource_version.as_deref().unwrap_or_default());
        self.with(&object.key(), uid, |memory| memory.show(version, now));
    }

    /// Notes that somebody wants a look; an object that is gone stays forgotten.
    pub fn wake(&self, object: &ObjectKey, not_before: Instant) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(memory) = map.get_mut(object) {
            memory.ask(not_before);
        }
    }

    /// Forgets an object that is gone.
    pub fn remove(&self, object: &ObjectKey) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(object);
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{Memories, Memory, Written};
    use crate::{
        crd::v1alpha1::{SyncObject, SyncStatus},
        name::{ObjectKey, ObjectKind},
    };

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut memory = Memory::default();
        let pauses: Vec<u64> = (0..6).map(|_| memory.fail(Duration::from_secs(1), Duration::from_secs(10)).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 10, 10]);
    }

    #[test]
    fn a_cache_that_lags_behind_our_own_status_is_not_believed() {
        let object = |version: &str| {
            let manifest = serde_json::json!({
                "metadata": {"name": "a", "resourceVersion": version}, "spec": {}, "status": {"inputs": version},
            });
            SyncObject::Secret(std::sync::Arc::new(serde_json::from_value(manifest).unwrap()))
        };
        let status = SyncStatus { inputs: Some("ours".to_owned()), ..Default::default() };
        let mut memory = Memory::default();
        memory.wrote(Written { version: "100".to_owned(), status });
        for (version, expected) in [("99", ("ours", "100")), ("100", ("100", "100")), ("101", ("101", "101"))] {
            let (status, at) = memory.status_of(&object(version));
            assert_eq!((status.inputs.as_deref(), at.as_str()), (Some(expected.0), expected.1), "{version}");
        }
    }

    #[test]
    fn a_status_is_kept_until_the_watch_has_shown_it_whichever_comes_first() {
        let written = |version: &str| Written { version: version.to_owned(), status: SyncStatus::default() };
        let mut memory = Memory::default();
        memory.wrote(written("100"));
        let now = Instant::now();
        memory.show("99", now);
        assert!(memory.written.is_some());
        memory.show("100", now);
        assert!(memory.written.is_none());
        memory.wrote(written("100"));
        assert!(memory.written.is_none(), "the watch was faster than the answer");
        memory.wrote(written("101"));
        assert!(memory.written.is_some());
        memory.show("105", now);
        assert!(memory.written.is_none());
        assert_eq!((memory.known_since("105"), memory.known_since("106")), (Some(now), None));
    }

    #[test]
    fn another_object_of_the_name_starts_anew() {
        let (memories, key) = (Memories::default(), ObjectKey::new(ObjectKind::ExternalSecret, "ns", "a"));
        memories.with(&key, "one", |memory| memory.failures = 3);
        assert_eq!(memories.with(&key, "one", |memory| memory.failures), 3);
        assert_eq!(memories.with(&key, "two", |memory| memory.failures), 0);
        memories.remove(&key);
        assert!(memories.is_empty());
    }
}
