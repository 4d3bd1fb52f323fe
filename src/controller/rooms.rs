//! How many reconciles wait for one store at a time. A store that hangs holds up its own objects: the others need somebody to work on
//! them, and there are only so many workers.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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
    /// Who was called and has not come yet: a place is kept for each.
    called: BTreeSet<Arc<ObjectKey>>,
    waiting: Queue<Arc<ObjectKey>>,
}

impl Room {
    fn is_full(&self, most: usize, object: &ObjectKey) -> bool {
        let others = self.called.len() - usize::from(self.called.contains(object));
        self.inside + others >= most
    }

    /// A place has become free.
    fn call(&mut self, trigger: &Trigger) {
        if let Some(next) = self.waiting.take(1, |_| Some(())).pop() {
            trigger.send(&next);
            self.called.insert(next);
        }
    }

    fn is_deserted(&self) -> bool {
        self.inside == 0 && self.called.is_empty() && self.waiting.is_empty()
    }
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

    /// Lets the object in, if there is room at each of these stores. Else it is triggered when a place is free, which is kept for it until
    /// it [has gone by](Self::gone_by).
    pub fn enter(&self, stores: &BTreeSet<String>, most: usize, object: &Arc<ObjectKey>, priority: Priority) -> Option<Inside> {
        let mut rooms = self.rooms();
        if let Some(full) = stores.iter().find(|store| rooms.get(*store).is_some_and(|room| room.is_full(most, object))) {
            rooms.entry(full.clone()).or_default().waiting.push(Arc::clone(object), priority);
            return None;
        }
        for store in stores {
            let room = rooms.entry(store.clone()).or_default();
            room.inside += 1;
            room.called.remove(object);
        }
        Some(Inside { rooms: self.clone(), stores: stores.clone() })
    }

    /// The object's reconcile is over, or there is no such object any more: places that were kept for it are somebody else's.
    pub fn gone_by(&self, object: &ObjectKey) {
        self.rooms().retain(|_, room| {
            if room.called.remove(object) {
                room.call(&self.trigger);
            }
            !room.is_deserted()
        });
    }

    fn leave(&self, store: &str) {
        let mut rooms = self.rooms();
        let Some(room) = rooms.get_mut(store) else { return };
        room.inside = room.inside.saturating_sub(1);
        room.call(&self.trigger);
        if room.is_deserted() {
            rooms.remove(store);
        }
    }

    fn rooms(&self) -> MutexGuard<'_, HashMap<String, Room>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
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
    use std::{collections::BTreeSet, sync::Arc};

    use super::Rooms;
    use crate::{
        controller::objects::Trigger,
        governor::Priority,
        name::{ObjectKey, ObjectKind},
    };

    fn object(name: &str) -> Arc<ObjectKey> {
        Arc::new(ObjectKey::new(ObjectKind::ExternalSecret, "ns", name))
    }

    fn stores(uids: &[&str]) -> BTreeSet<String> {
        uids.iter().map(|uid| (*uid).to_owned()).collect()
    }

    #[test]
    fn a_store_that_hangs_takes_its_own_places_only_and_who_waits_is_called_in_order() {
        let (trigger, mut triggered) = Trigger::new();
        let rooms = Rooms::new(trigger);
        let (hung, lively) = (stores(&["hung"]), stores(&["lively"]));
        let enter = |stores: &BTreeSet<String>, name: &str, priority| rooms.enter(stores, 2, &object(name), priority);
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
        drop(enter(&hung, "d", Priority::Fresh).unwrap());
        assert_eq!((called(), called()), (Some("both".to_owned()), None));
        drop(enter(&hung, "c", Priority::Changed).unwrap());
        drop(enter(&stores(&["hung", "lively"]), "both", Priority::Changed).unwrap());
        assert!(rooms.rooms().is_empty(), "nothing is left of empty rooms");
    }

    #[test]
    fn a_place_is_kept_for_who_was_called_and_goes_on_to_the_next_when_it_is_not_taken() {
        let (trigger, mut triggered) = Trigger::new();
        let (rooms, hung) = (Rooms::new(trigger), stores(&["hung"]));
        let enter = |name: &str| rooms.enter(&hung, 1, &object(name), Priority::Fresh);
        let inside = enter("a").unwrap();
        for name in ["b", "c", "d"] {
            assert!(enter(name).is_none(), "{name}");
        }
        drop(inside);
        let mut called = || triggered.try_recv().map(|object| object.name).ok();
        assert_eq!(called().as_deref(), Some("b"));
        assert!(enter("newcomer").is_none(), "b was called before");
        rooms.gone_by(&object("b"));
        assert_eq!(called().as_deref(), Some("c"), "b was deleted, or needs nothing any more");
        rooms.gone_by(&object("nobody"));
        assert_eq!(called(), None);
        drop(enter("c").unwrap());
        rooms.gone_by(&object("c"));
        assert_eq!((called().as_deref(), called()), (Some("d"), None));
        for (gone, next) in [("d", Some("newcomer")), ("newcomer", None)] {
            rooms.gone_by(&object(gone));
            assert_eq!(called().as_deref(), next);
        }
        assert!(rooms.rooms().is_empty(), "nothing is left of empty rooms");
    }
}
