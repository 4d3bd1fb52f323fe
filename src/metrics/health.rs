//! Whether the process lives and whether it is ready: background tasks beat, gates open and close.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// What `/healthz` and `/readyz` are answered from. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    tasks: BTreeMap<u64, Task>,
    /// Tasks so far.
    begun: u64,
    gates: Vec<(&'static str, bool)>,
}

#[derive(Debug)]
struct Task {
    name: &'static str,
    limit: Duration,
    last: Instant,
}

/// The pulse of one background task. Who drops it has ended and is not missed: a failed task ends the process by other means.
#[derive(Debug)]
pub struct Beat {
    health: Health,
    number: u64,
}

/// Something without which the process is not ready.
#[derive(Debug)]
pub struct Gate {
    health: Health,
    index: usize,
}

impl Health {
    /// A background task that has to beat at least every `limit`.
    #[must_use]
    pub fn task(&self, name: &'static str, limit: Duration) -> Beat {
        let number = self.with(|state| {
            state.begun += 1;
            state.tasks.insert(state.begun, Task { name, limit, last: Instant::now() });
            state.begun
        });
        Beat { health: self.clone(), number }
    }

    /// Something without which the process is not ready, closed at first.
    #[must_use]
    pub fn gate(&self, name: &'static str) -> Gate {
        let index = self.with(|state| {
            state.gates.push((name, false));
            state.gates.len() - 1
        });
        Gate { health: self.clone(), index }
    }

    /// The tasks that have not beaten for longer than they may, each name once; none means that the process lives.
    #[must_use]
    pub fn silent(&self, now: Instant) -> Vec<&'static str> {
        let is_silent = |task: &&Task| now.saturating_duration_since(task.last) > task.limit;
        let names: BTreeSet<_> = self.with(|state| state.tasks.values().filter(is_silent).map(|task| task.name).collect());
        names.into_iter().collect()
    }

    /// The gates that are closed; none means that the process is ready.
    #[must_use]
    pub fn closed(&self) -> Vec<&'static str> {
        self.with(|state| state.gates.iter().filter(|(_, open)| !open).map(|(name, _)| *name).collect())
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        // The state is whole after every line above, so a panic elsewhere does not spoil it.
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Beat {
    /// The task lives.
    pub fn now(&self) {
        self.health.with(|state| {
            if let Some(task) = state.tasks.get_mut(&self.number) {
                task.last = Instant::now();
            }
        });
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        self.health.with(|state| state.tasks.remove(&self.number));
    }
}

impl Gate {
    /// It is there.
    pub fn open(&self) {
        self.set(true);
    }

    /// It is not there any more.
    pub fn close(&self) {
        self.set(false);
    }

    fn set(&self, open: bool) {
        self.health.with(|state| state.gates[self.index].1 = open);
    }
}

#[cfg(test)]
mod tests {
    use super::Health;
    use std::time::{Duration, Instant};

    #[test]
    fn a_task_that_falls_silent_is_named() {
        let health = Health::default();
        let quick = health.task("quick", Duration::from_secs(10));
        let _slow = health.task("slow", Duration::from_secs(1000));
        assert!(health.silent(Instant::now()).is_empty());
        let later = Instant::now() + Duration::from_secs(60);
        assert_eq!(health.silent(later), ["quick"]);
        quick.now();
        assert!(health.silent(Instant::now() + Duration::from_secs(5)).is_empty());
    }

    #[test]
    fn of_several_tasks_of_one_name_each_must_beat_and_one_that_ended_is_not_missed() {
        let health = Health::default();
        let tasks: Vec<_> = (0..3).map(|_| health.task("poller", Duration::from_secs(10))).collect();
        let later = Instant::now() + Duration::from_secs(60);
        tasks[0].now();
        assert_eq!(health.silent(later), ["poller"]);
        drop(tasks);
        assert!(health.silent(later).is_empty());
    }

    #[test]
    fn ready_means_that_every_gate_is_open() {
        let health = Health::default();
        let caches = health.gate("caches");
        let stores = health.gate("stores");
        stores.open();
        assert_eq!(health.closed(), ["caches"]);
        caches.open();
        assert!(health.closed().is_empty());
        stores.close();
        assert_eq!(health.closed(), ["stores"]);
    }
}
