//! How many reconciles wait for one store at a time. A store that hangs holds up its own objects: the others need somebody to work on
//! them, and there are only so many workers.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use super::objects::Trigger;
use crate::{
    governor::{Priority, Queue},
    name::ObjectKey,
};

/// The rooms of all stores, by their UIDs. Cheap to clone.
#[derive(Clone)]
pub struct Rooms {
    trigger: Trigger,
    rooms: Arc<Mutex<HashMap<String, Room>>>,
}

#[derive(Default)]
struct Room {
    inside: usize,
    waiting: Queue<ObjectKey>,
}

/// While it lives, its object waits for these stores.
pub struct Inside {
    rooms: Rooms,
    stores: BTreeSet<String>,
}

impl Rooms {
    pub fn new(trigger: Trigger) -> Self {
        Self { trigger, rooms: Arc::default() }
    }

    /// Lets the object in, if there is room at each of these stores. Else it is triggered when somebody leaves; it may find the room taken
    /// again, so it has to come back by itself now and then.
    pub fn enter(&self, stores: &BTreeSet<String>, most: usize, object: &ObjectKey, priority: Priority) -> Option<Inside> {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(full) = stores.iter().find(|store| rooms.get(*store).is_some_and(|room| room.inside >= most)) {
            rooms.entry(full.clone()).or_default().waiting.push(object.clone(), priority);
            return None;
        }
        for store in stores {
            rooms.entry(store.clone()).or_default().inside += 1;
        }
        Some(Inside { rooms: self.clone(), stores: stores.clone() })
    }

    fn leave(&self, store: &str) {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(room) = rooms.get_mut(store) else { return };
        room.inside = room.inside.saturating_sub(1);
        let next = room.waiting.take(1, |_| Some(())).pop();
        if room.inside == 0 && room.waiting.is_empty() {
            rooms.remove(store);
        }
        if let Some(object) = next {
            self.trigger.send(&object);
        }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        for store in &self.stores {
            self.rooms.leave(store);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Rooms;
    use crate::{
        controller::objects::Trigger,
        governor::Priority,
        name::{ObjectKey, ObjectKind},
    };

    fn stores(uids: &[&str]) -> BTreeSet<String> {
        uids.iter().map(|uid| (*uid).to_owned()).collect()
    }

    #[test]
    fn a_store_that_hangs_takes_its_own_places_only_and_who_waits_is_called_in_order() {
        let (trigger, triggers) = Trigger::new();
        let (rooms, mut triggered) = (Rooms::new(trigger), triggers.secrets);
        let (hung, lively) = (stores(&["hung"]), stores(&["lively"]));
        let enter = |stores: &BTreeSet<String>, name: &str, priority| {
            rooms.enter(stores, 2, &ObjectKey::new(ObjectKind::ExternalSecret, "ns", name), priority)
        };
        let inside = [enter(&hung, "a", Priority::Fresh), enter(&hung, "b", Priority::Fresh)];
        assert!(inside.iter().all(Option::is_some));
        for (name, priority) in [("c", Priority::Changed), ("d", Priority::Fresh), ("c", Priority::Changed)] {
            assert!(enter(&hung, name, priority).is_none(), "{name}");
        }
        assert!(enter(&stores(&["hung", "lively"]), "both", Priority::Changed).is_none());
        drop([enter(&lively, "e", Priority::Changed).unwrap(), enter(&lively, "f", Priority::Changed).unwrap()]);
        assert!(triggered.try_recv().is_err(), "nobody waited there");
        drop(inside);
        let mut called = || triggered.try_recv().map(|object| object.name).ok();
        assert_eq!((called(), called(), called()), (Some("d".to_owned()), Some("c".to_owned()), None));
        drop(enter(&hung, "d", Priority::Fresh));
        assert_eq!((called(), called()), (Some("both".to_owned()), None));
        assert!(rooms.rooms.lock().unwrap().is_empty(), "nothing is left of empty rooms");
    }
}
