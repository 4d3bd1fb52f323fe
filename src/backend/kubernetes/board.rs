//! What the watches of a store show at this moment: names with their versions and labels, never values. And what has changed since
//! somebody asked. Without a clock and without I/O.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::stream::{BoxStream, StreamExt, unfold};
use tokio::sync::Notify;

use super::{answer::Mark, place::Resource};
use crate::item::Hint;

/// See the module. Shared by the watches, which write, and the looks, which read.
#[derive(Debug, Default)]
pub(super) struct Board {
    state: Mutex<State>,
    changed: Notify,
    /// A kind was listed for the first time, or could not be.
    begun: Notify,
}

#[derive(Debug, Default)]
struct State {
    shown: HashMap<Resource, Shown>,
    /// What was tried to list at least once.
    tried: HashSet<Resource>,
    news: Option<Hint>,
}

#[derive(Debug, Default)]
struct Shown {
    /// A list was complete and the watch goes on since then. Otherwise the objects prove nothing.
    is_current: bool,
    objects: BTreeMap<String, Mark>,
}

impl Board {
    /// A complete list: from now on the objects are these. After a gap exactly what differs is news; the first time anything may be.
    pub fn list(&self, resource: Resource, objects: BTreeMap<String, Mark>) {
        let mut state = self.state();
        let (is_first, changed) = match state.shown.get(&resource) {
            None => (true, BTreeSet::new()),
            Some(before) => (false, differences(&before.objects, &objects)),
        };
        state.shown.insert(resource, Shown { is_current: true, objects });
        self.begin(&mut state, resource);
        if is_first {
            self.tell(state, Hint::All);
        } else {
            self.tell_names(state, resource, &changed);
        }
    }

    /// An event of the watch.
    pub fn seen(&self, resource: Resource, name: String, mark: Mark) {
        let mut state = self.state();
        let shown = state.shown.entry(resource).or_default();
        if shown.objects.get(&name) != Some(&mark) {
            shown.objects.insert(name.clone(), mark);
            self.tell_names(state, resource, &[name].into());
        }
    }

    /// An event of the watch.
    pub fn gone(&self, resource: Resource, name: String) {
        let mut state = self.state();
        if state.shown.entry(resource).or_default().objects.remove(&name).is_some() {
            self.tell_names(state, resource, &[name].into());
        }
    }

    /// The watch broke: what it showed proves nothing until a list is complete again. `is_refused` says that it will not be soon, and
    /// that what could be read may be refused, too.
    pub fn lose(&self, resource: Resource, is_refused: bool) {
        let mut state = self.state();
        let was_current = state.shown.get_mut(&resource).is_some_and(|shown| std::mem::replace(&mut shown.is_current, false));
        self.begin(&mut state, resource);
        if was_current && is_refused {
            self.tell(state, Hint::All);
        }
    }

    /// Resolves when the first list of that kind is there, or failed: until then nobody knows whether it proves anything.
    pub async fn begun(&self, resource: Resource) {
        loop {
            let begun = self.begun.notified();
            if self.state().tried.contains(&resource) {
                return;
            }
            begun.await;
        }
    }

    /// The version that is current, as far as a watch proves it.
    pub fn version(&self, resource: Resource, name: &str) -> Option<String> {
        let state = self.state();
        let shown = state.shown.get(&resource).filter(|shown| shown.is_current)?;
        shown.objects.get(name).map(|mark| mark.version.clone())
    }

    /// All objects, as far as a watch proves that these are all.
    pub fn objects(&self, resource: Resource) -> Option<BTreeMap<String, Mark>> {
        self.state().shown.get(&resource).filter(|shown| shown.is_current).map(|shown| shown.objects.clone())
    }

    /// What changes from now on, or has since the last listener went away; news that come together are told together.
    pub fn hints(self: &Arc<Self>) -> BoxStream<'static, Hint> {
        unfold(Arc::clone(self), |board| async {
            loop {
                let news = board.state().news.take();
                match news {
                    Some(hint) => return Some((hint, board)),
                    None => board.changed.notified().await,
                }
            }
        })
        .boxed()
    }

    fn begin(&self, state: &mut State, resource: Resource) {
        if state.tried.insert(resource) {
            self.begun.notify_waiters();
        }
    }

    fn tell_names(&self, state: MutexGuard<'_, State>, resource: Resource, names: &BTreeSet<String>) {
        let keys: BTreeSet<_> = names.iter().filter_map(|name| resource.key(name)).collect();
        if !keys.is_empty() {
            self.tell(state, Hint::Keys(keys));
        }
    }

    fn tell(&self, mut state: MutexGuard<'_, State>, hint: Hint) {
        state.news = Some(match (state.news.take(), hint) {
            (Some(Hint::Keys(mut told)), Hint::Keys(keys)) => {
                told.extend(keys);
                Hint::Keys(told)
            }
            (None, hint) => hint,
            (Some(Hint::All), _) | (Some(Hint::Keys(_)), Hint::All) => Hint::All,
        });
        drop(state);
        self.changed.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn differences(before: &BTreeMap<String, Mark>, now: &BTreeMap<String, Mark>) -> BTreeSet<String> {
    let changed = now.iter().filter(|(name, mark)| before.get(*name) != Some(*mark)).map(|(name, _)| name);
    let gone = before.keys().filter(|name| !now.contains_key(*name));
    changed.chain(gone).cloned().collect()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use futures::{FutureExt, StreamExt};

    use super::{Board, Mark, Resource};
    use crate::{
        item::Hint,
        name::{ProviderKind, RemoteKey},
    };

    fn mark(version: &str) -> Mark {
        Mark { version: version.to_owned(), labels: BTreeMap::new() }
    }

    fn objects(all: &[(&str, &str)]) -> BTreeMap<String, Mark> {
        all.iter().map(|(name, version)| ((*name).to_owned(), mark(version))).collect()
    }

    fn keys(names: &[&str]) -> Hint {
        Hint::Keys(names.iter().map(|name| RemoteKey::parse(ProviderKind::Kubernetes, name).unwrap()).collect())
    }

    fn news(board: &Arc<Board>) -> Option<Hint> {
        board.hints().next().now_or_never().flatten()
    }

    #[test]
    fn only_a_complete_list_whose_watch_goes_on_proves_anything() {
        let board = Arc::new(Board::default());
        board.seen(Resource::Secret, "a".to_owned(), mark("1"));
        assert_eq!((board.version(Resource::Secret, "a"), board.objects(Resource::Secret)), (None, None), "no list yet");
        board.list(Resource::Secret, objects(&[("a", "2")]));
        assert_eq!(board.version(Resource::Secret, "a").as_deref(), Some("2"));
        assert_eq!(board.version(Resource::Secret, "b"), None);
        assert_eq!(board.version(Resource::ConfigMap, "a"), None, "another kind");
        board.lose(Resource::Secret, false);
        assert_eq!((board.version(Resource::Secret, "a"), board.objects(Resource::Secret)), (None, None), "the watch broke");
        board.list(Resource::Secret, objects(&[("a", "2")]));
        assert_eq!(board.version(Resource::Secret, "a").as_deref(), Some("2"));
    }

    #[test]
    fn what_changes_is_told_by_name_and_what_comes_together_is_told_together() {
        let board = Arc::new(Board::default());
        assert_eq!(news(&board), None);
        board.list(Resource::Secret, objects(&[("a", "1"), ("b", "1")]));
        assert_eq!(news(&board), Some(Hint::All), "what was read before the first list may have changed");
        board.seen(Resource::Secret, "a".to_owned(), mark("1"));
        assert_eq!(news(&board), None, "no change");
        board.seen(Resource::Secret, "a".to_owned(), mark("2"));
        board.gone(Resource::Secret, "b".to_owned());
        board.gone(Resource::Secret, "never-there".to_owned());
        assert_eq!(news(&board), Some(keys(&["a", "b"])));
        board.lose(Resource::Secret, false);
        assert_eq!(news(&board), None);
        board.list(Resource::Secret, objects(&[("a", "2"), ("c", "1")]));
        assert_eq!(news(&board), Some(keys(&["c"])), "after a gap exactly what differs");
        board.list(Resource::ConfigMap, BTreeMap::new());
        assert_eq!(news(&board), Some(Hint::All));
        board.seen(Resource::ConfigMap, "x".to_owned(), mark("1"));
        assert_eq!(news(&board), Some(keys(&["configmap/x"])));
        board.lose(Resource::Secret, true);
        assert_eq!(news(&board), Some(Hint::All), "what could be read may be refused now");
        board.lose(Resource::Secret, true);
        assert_eq!(news(&board), None);
    }

    #[tokio::test]
    async fn who_waits_for_the_first_list_goes_on_when_it_is_there_and_when_it_failed() {
        for outcome in [|board: &Board| board.list(Resource::Secret, BTreeMap::new()), |board: &Board| board.lose(Resource::Secret, false)]
        {
            let board = Board::default();
            let mut waiting = [Box::pin(board.begun(Resource::Secret)), Box::pin(board.begun(Resource::Secret))];
            let mut other = Box::pin(board.begun(Resource::ConfigMap));
            assert!(waiting.iter_mut().all(|one| one.now_or_never().is_none()));
            assert!((&mut other).now_or_never().is_none());
            outcome(&board);
            assert!(waiting.iter_mut().all(|one| one.now_or_never().is_some()));
            assert!(board.begun(Resource::Secret).now_or_never().is_some(), "nor does anybody wait later");
            assert!(other.now_or_never().is_none(), "another kind");
        }
    }

    #[tokio::test]
    async fn a_listener_that_waits_is_woken() {
        let board = Arc::new(Board::default());
        let mut hints = board.hints();
        let (hint, ()) = tokio::join!(hints.next(), async { board.seen(Resource::Secret, "a".to_owned(), mark("1")) });
        assert_eq!(hint, Some(keys(&["a"])));
    }
}
