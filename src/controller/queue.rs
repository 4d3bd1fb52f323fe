//! Which object is reconciled next: each once at a time, in the order of asking, again later where its last reconcile said so.
//!
//! kube's own controller would hold several copies of every name that waits and go through all reconciles that are under way whenever one of
//! them can go on. Must not be here: what a reconcile does.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::mpsc::UnboundedReceiver, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::name::ObjectKey;

/// When an object is reconciled again although nobody asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action(Option<Duration>);

impl Action {
    /// After this time.
    #[must_use]
    pub const fn requeue(after: Duration) -> Self {
        Self(Some(after))
    }

    /// Never.
    #[must_use]
    pub const fn await_change() -> Self {
        Self(None)
    }
}

/// Reconciles whatever is asked for, at most `concurrency` objects at a time, until `shutdown`; then waits for those under way.
pub async fn run<R>(
    mut asked: UnboundedReceiver<ObjectKey>,
    concurrency: usize,
    shutdown: CancellationToken,
    reconcile: impl Fn(Arc<ObjectKey>) -> R,
) where
    R: Future<Output = Action> + Send + 'static,
{
    let (mut queue, mut running) = (Queue::default(), JoinSet::new());
    loop {
        while running.len() < concurrency
            && let Some(object) = queue.next(Instant::now())
        {
            let reconcile = reconcile(Arc::clone(&object));
            running.spawn(async move { (object, reconcile.await) });
        }
        let alarm = queue.alarm().filter(|_| running.len() < concurrency);
        tokio::select! {
            () = shutdown.cancelled() => break,
            object = asked.recv() => match object {
                Some(object) => queue.ask(object),
                None => break,
            },
            // What panics is caught where it is known whose panic it is: nothing else ends without an answer.
            Some(Ok((object, action))) = running.join_next() => queue.ended(&object, action, Instant::now()),
            () = until(alarm), if alarm.is_some() => {}
        }
    }
    while running.join_next().await.is_some() {}
}

async fn until(alarm: Option<Instant>) {
    if let Some(alarm) = alarm {
        tokio::time::sleep_until(alarm).await;
    }
}

/// How an object stands that is not forgotten.
#[derive(Debug, PartialEq, Eq)]
enum State {
    Ready,
    Running { is_asked: bool },
    Later(Instant),
}

#[derive(Debug, Default)]
struct Queue {
    states: HashMap<Arc<ObjectKey>, State>,
    ready: VecDeque<Arc<ObjectKey>>,
    later: BTreeSet<(Instant, Arc<ObjectKey>)>,
}

impl Queue {
    /// Somebody wants a reconcile that begins from now on.
    fn ask(&mut self, object: ObjectKey) {
        match self.states.get_mut(&object) {
            Some(State::Ready) => {}
            Some(State::Running { is_asked }) => *is_asked = true,
            Some(State::Later(at)) => {
                let at = *at;
                self.bring_forward(at, Arc::new(object));
            }
            None => self.make_ready(Arc::new(object)),
        }
    }

    /// Who goes now; it is running from here on.
    fn next(&mut self, now: Instant) -> Option<Arc<ObjectKey>> {
        while let Some((at, object)) = self.later.first().filter(|(at, _)| *at <= now).cloned() {
            self.bring_forward(at, object);
        }
        let object = self.ready.pop_front()?;
        self.states.insert(Arc::clone(&object), State::Running { is_asked: false });
        Some(object)
    }

    /// A reconcile has ended. Who was asked for meanwhile goes again, and says anew when to come back.
    fn ended(&mut self, object: &Arc<ObjectKey>, Action(again): Action, now: Instant) {
        let is_asked = matches!(self.states.remove(object), Some(State::Running { is_asked: true }));
        if is_asked {
            self.make_ready(Arc::clone(object));
        } else if let Some(at) = again.and_then(|again| now.checked_add(again)) {
            self.states.insert(Arc::clone(object), State::Later(at));
            self.later.insert((at, Arc::clone(object)));
        }
    }

    /// When the next one comes back by itself.
    fn alarm(&self) -> Option<Instant> {
        self.later.first().map(|(at, _)| *at)
    }

    fn bring_forward(&mut self, at: Instant, object: Arc<ObjectKey>) {
        self.later.remove(&(at, Arc::clone(&object)));
        self.make_ready(object);
    }

    fn make_ready(&mut self, object: Arc<ObjectKey>) {
        self.states.insert(Arc::clone(&object), State::Ready);
        self.ready.push_back(object);
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use tokio::time::Instant;

    use super::{Action, Queue};
    use crate::name::{ObjectKey, ObjectKind};

    fn object(name: &str) -> ObjectKey {
        ObjectKey::new(ObjectKind::ExternalSecret, "ns", name)
    }

    fn names(queue: &mut Queue, now: Instant) -> Vec<String> {
        std::iter::from_fn(|| queue.next(now)).map(|object| object.name.clone()).collect()
    }

    #[test]
    fn who_was_asked_for_goes_once_and_in_that_order() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for name in ["b", "a", "b", "c"] {
            queue.ask(object(name));
        }
        assert_eq!(names(&mut queue, now), ["b", "a", "c"]);
    }

    #[test]
    fn who_is_asked_for_while_it_runs_goes_again_when_it_has_ended_and_not_before() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.ask(object("a"));
        let running = queue.next(now).unwrap();
        queue.ask(object("a"));
        queue.ask(object("a"));
        assert_eq!(queue.next(now), None);
        queue.ended(&running, Action::requeue(Duration::from_secs(9)), now);
        assert_eq!(queue.next(now).as_deref(), Some(&object("a")));
        queue.ended(&running, Action::await_change(), now);
        assert_eq!((queue.next(now), queue.alarm()), (None, None), "the rerun said that it need not come back");
    }

    #[test]
    fn who_comes_back_later_does_so_in_time_or_when_asked_for() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let at = |seconds| now + Duration::from_secs(seconds);
        for (name, seconds) in [("a", 5), ("b", 3), ("c", 60)] {
            queue.ask(object(name));
            let running = queue.next(now).unwrap();
            queue.ended(&running, Action::requeue(Duration::from_secs(seconds)), now);
        }
        assert_eq!((queue.next(at(2)), queue.alarm()), (None, Some(at(3))));
        assert_eq!(names(&mut queue, at(5)), ["b", "a"]);
        queue.ask(object("c"));
        assert_eq!((names(&mut queue, at(5)), queue.alarm()), (vec!["c".to_owned()], None));
    }

    #[test]
    fn nothing_is_kept_of_who_need_not_come_back() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for (name, action) in [("a", Action::await_change()), ("b", Action::requeue(Duration::MAX))] {
            queue.ask(object(name));
            let running = queue.next(now).unwrap();
            queue.ended(&running, action, now);
            queue.ended(&Arc::new(object("never seen")), Action::await_change(), now);
        }
        assert!(queue.states.is_empty() && queue.ready.is_empty() && queue.later.is_empty());
    }
}
