//! Looks that are held for woken objects, so that all of them share what was read once. Bounded; beyond that objects read anew.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{
    governor::Look,
    item::{Item, Reading, Sighting},
    name::ObjectKey,
};

/// Bytes of values that are held at most.
const MOST_BYTES: usize = 16 << 20;
/// Looks that are held at most.
const MOST_LOOKS: usize = 20_000;

#[derive(Default)]
pub struct Holds {
    by_object: HashMap<ObjectKey, HashMap<Item, Arc<Held>>>,
    used: Arc<Used>,
}

#[derive(Default)]
struct Used {
    bytes: AtomicUsize,
    looks: AtomicUsize,
}

/// A look that counts against the bounds as long as it lives. It is held for its values, which others find in the session's table.
struct Held {
    _look: Look,
    bytes: usize,
    used: Arc<Used>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.used.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.used.looks.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Holds {
    /// Holds the look until each of the objects is released. A newer look at the same item replaces an older one.
    pub fn hold(&mut self, look: &Look, objects: Vec<ObjectKey>) {
        let bytes = size(&look.sighting);
        if objects.is_empty() || self.bytes() + bytes > MOST_BYTES || self.looks() >= MOST_LOOKS {
            return;
        }
        self.used.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.used.looks.fetch_add(1, Ordering::Relaxed);
        let held = Arc::new(Held { _look: look.clone(), bytes, used: Arc::clone(&self.used) });
        for object in objects {
            self.by_object.entry(object).or_default().insert(look.item.clone(), Arc::clone(&held));
        }
    }

    pub fn release(&mut self, object: &ObjectKey) {
        self.by_object.remove(object);
    }

    pub fn looks(&self) -> usize {
        self.used.looks.load(Ordering::Relaxed)
    }

    fn bytes(&self) -> usize {
        self.used.bytes.load(Ordering::Relaxed)
    }
}

fn size(sighting: &Sighting) -> usize {
    match sighting {
        Sighting::Value(Reading::Found(fetched)) => fetched.value.len(),
        Sighting::Found(Ok(found)) => found.values.values().map(|fetched| fetched.value.len()).sum(),
        Sighting::Value(Reading::Absent(_) | Reading::Unknown(_)) | Sighting::Found(Err(_)) => 0,
    }
}
