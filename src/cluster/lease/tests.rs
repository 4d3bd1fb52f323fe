use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use tokio_util::sync::CancellationToken;

use super::{CAUGHT_UP_ANNOTATION, CallError, Elector, Held, Leases, Lost, Seen, Settings, read_mark, whole_seconds};
use crate::metrics::{Health, Metrics};

/// One Lease as the API server keeps it: guarded by its resourceVersion.
#[derive(Clone, Default)]
struct Server(Arc<State>);

#[derive(Default)]
struct State {
    lease: Mutex<Option<Lease>>,
    version: AtomicUsize,
    /// Writes that fail from now on.
    is_down: Mutex<bool>,
    /// Writes that are committed and whose answer is lost.
    losing_answers: Mutex<bool>,
    writes: AtomicUsize,
}

impl Server {
    fn lease(&self) -> Option<Lease> {
        self.0.lease.lock().unwrap().clone()
    }

    fn edit(&self, change: impl FnOnce(&mut Lease)) {
        let mut slot = self.0.lease.lock().unwrap();
        let mut lease = slot.take().unwrap_or_default();
        change(&mut lease);
        *slot = Some(self.stamp(lease));
    }

    fn delete(&self) {
        *self.0.lease.lock().unwrap() = None;
    }

    fn set_down(&self, down: bool) {
        *self.0.is_down.lock().unwrap() = down;
    }

    fn stamp(&self, mut lease: Lease) -> Lease {
        let version = self.0.version.fetch_add(1, Ordering::Relaxed) + 1;
        lease.metadata.resource_version = Some(version.to_string());
        lease.metadata.uid.get_or_insert_with(|| format!("uid-{version}"));
        lease
    }

    fn write(&self, lease: &Lease, guard: impl FnOnce(Option<&Lease>) -> bool) -> Result<Lease, CallError> {
        self.0.writes.fetch_add(1, Ordering::Relaxed);
        if *self.0.is_down.lock().unwrap() {
            return Err(CallError::Failed("connection refused".to_owned()));
        }
        let mut slot = self.0.lease.lock().unwrap();
        if !guard(slot.as_ref()) {
            return Err(CallError::Conflict);
        }
        let stored = self.stamp(lease.clone());
        *slot = Some(stored.clone());
        if std::mem::take(&mut *self.0.losing_answers.lock().unwrap()) { Err(CallError::Failed("reset".to_owned())) } else { Ok(stored) }
    }

    fn writes(&self) -> usize {
        self.0.writes.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Leases for Server {
    async fn get(&self) -> Result<Option<Lease>, CallError> {
        if *self.0.is_down.lock().unwrap() { Err(CallError::Failed("connection refused".to_owned())) } else { Ok(self.lease()) }
    }

    async fn create(&self, lease: &Lease) -> Result<Lease, CallError> {
        self.write(lease, |stored| stored.is_none())
    }

    async fn replace(&self, lease: &Lease) -> Result<Lease, CallError> {
        self.write(lease, |stored| stored.is_some_and(|stored| stored.metadata.resource_version == lease.metadata.resource_version))
    }
}

fn settings(identity: &str) -> Settings {
    Settings {
        namespace: "ns".to_owned(),
        name: "keyferry".to_owned(),
        identity: identity.to_owned(),
        duration: Duration::from_secs(3600),
        renew: Duration::from_secs(1800),
        retry: Duration::from_millis(2),
    }
}

fn elector(server: &Server, identity: &str) -> Elector {
    Elector::new(Box::new(server.clone()), settings(identity), Metrics::new(), &Health::default())
}

async fn held(server: &Server, identity: &str) -> Held {
    acquire(elector(server, identity)).await
}

async fn acquire(elector: Elector) -> Held {
    elector.acquire(&Health::default().gate("caches"), &CancellationToken::new()).await.expect("nobody stops it")
}

/// Keeps it until it is lost. One that is never lost fails, instead of going on for ever.
async fn until_lost(held: Held) -> Result<(), Lost> {
    let kept = held.keep(|| None, CancellationToken::new());
    tokio::time::timeout(Duration::from_secs(60), kept).await.expect("it should have been lost")
}

fn spec(server: &Server) -> LeaseSpec {
    server.lease().and_then(|lease| lease.spec).unwrap_or_default()
}

/// Waits, without a limit of its own, until something is so.
async fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        tokio::task::yield_now().await;
    }
}

fn mark(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_lease_that_is_missing_is_created_and_held() {
    let server = Server::default();
    let held = held(&server, "a").await;
    let spec = spec(&server);
    assert_eq!(spec.holder_identity.as_deref(), Some("a"));
    assert_eq!(spec.lease_duration_seconds, Some(3600));
    assert!(spec.renew_time.is_some() && spec.acquire_time.is_some());
    assert!(held.leadership().remaining() > Duration::from_secs(1700));
    assert!(held.leadership().remaining() <= Duration::from_secs(1800));
    assert_eq!(held.caught_up(), None);
}

#[tokio::test]
async fn a_standby_waits_while_the_lease_is_held_and_starts_at_once_when_it_is_released() {
    let server = Server::default();
    let leader = held(&server, "a").await;
    let drained = CancellationToken::new();
    let keeping = tokio::spawn(leader.keep(|| Some(mark("2026-01-02T03:04:05Z")), drained.clone()));

    let standby = elector(&server, "b");
    let health = Health::default();
    let ready = health.gate("caches");
    assert_eq!(health.closed(), ["caches"]);
    let waiting = tokio::spawn(async move { standby.acquire(&ready, &CancellationToken::new()).await });
    let before = server.writes();
    until(|| server.writes() >= before + 3).await;
    until(|| health.closed().is_empty()).await;
    assert!(!waiting.is_finished());

    drained.cancel();
    assert_eq!(keeping.await.unwrap(), Ok(()));
    let held = waiting.await.unwrap().expect("it leads");
    assert_eq!(spec(&server).holder_identity.as_deref(), Some("b"));
    assert_eq!(held.caught_up(), Some(mark("2026-01-02T03:04:05Z")));
    assert_eq!(health.closed(), ["caches"], "who begins to lead is ready when its caches are");
}

#[tokio::test]
async fn a_standby_that_is_stopped_never_takes_the_lease() {
    let server = Server::default();
    let _leader = held(&server, "a").await;
    let stop = CancellationToken::new();
    stop.cancel();
    assert!(elector(&server, "b").acquire(&Health::default().gate("caches"), &stop).await.is_none());
    assert_eq!(spec(&server).holder_identity.as_deref(), Some("a"));
}

#[tokio::test]
async fn the_same_identity_goes_on_at_once_and_its_elder_self_ends() {
    let server = Server::default();
    let elder = held(&server, "a").await;
    let old = elder.leadership();
    let younger = held(&server, "a").await;
    assert_eq!(until_lost(elder).await, Err(Lost::Taken("a".to_owned())));
    assert_eq!(old.remaining(), Duration::ZERO);
    assert!(!younger.leadership().remaining().is_zero());
}

#[tokio::test]
async fn who_was_replaced_ends_and_has_no_time_left() {
    let server = Server::default();
    let leader = held(&server, "a").await;
    let leadership = leader.leadership();
    server.edit(|lease| lease.spec.as_mut().unwrap().holder_identity = Some("b".to_owned()));
    assert_eq!(until_lost(leader).await, Err(Lost::Taken("b".to_owned())));
    assert_eq!(leadership.remaining(), Duration::ZERO);
    assert_eq!(spec(&server).holder_identity.as_deref(), Some("b"), "it is not released for somebody else");
}

#[tokio::test]
async fn a_lease_that_was_deleted_ends_leadership() {
    let server = Server::default();
    let leader = held(&server, "a").await;
    server.delete();
    assert_eq!(until_lost(leader).await, Err(Lost::Deleted));
    assert!(server.lease().is_none());
}

#[tokio::test]
async fn a_leader_that_cannot_renew_ends_when_its_time_is_up() {
    let server = Server::default();
    let mut short = settings("a");
    short.renew = Duration::from_millis(40);
    let elector = Elector::new(Box::new(server.clone()), short, Metrics::new(), &Health::default());
    let leader = acquire(elector).await;
    server.set_down(true);
    let ended = until_lost(leader).await;
    assert_eq!(ended, Err(Lost::Expired("connection refused".to_owned())));
}

#[tokio::test]
async fn a_renewal_whose_answer_was_lost_and_a_foreign_annotation_do_not_end_leadership() {
    let server = Server::default();
    let leader = held(&server, "a").await;
    let leadership = leader.leadership();
    let drained = CancellationToken::new();
    let keeping = tokio::spawn(leader.keep(|| None, drained.clone()));
    *server.0.losing_answers.lock().unwrap() = true;
    until(|| !*server.0.losing_answers.lock().unwrap()).await;
    server.edit(|lease| {
        lease.metadata.annotations.get_or_insert_default().insert("example.com/note".to_owned(), "kept".to_owned());
    });
    let before = server.writes();
    until(|| server.writes() >= before + 4).await;
    assert!(!leadership.remaining().is_zero());
    drained.cancel();
    assert_eq!(keeping.await.unwrap(), Ok(()));
    let annotations = server.lease().unwrap().metadata.annotations.unwrap();
    assert_eq!(annotations.get("example.com/note").map(String::as_str), Some("kept"));
}

#[tokio::test]
async fn the_mark_goes_along_with_renewals_and_an_unknown_one_keeps_the_last() {
    let server = Server::default();
    server.edit(|lease| {
        lease.metadata.annotations = Some([(CAUGHT_UP_ANNOTATION.to_owned(), "2026-01-01T00:00:00Z".to_owned())].into());
    });
    let leader = held(&server, "a").await;
    assert_eq!(leader.caught_up(), Some(mark("2026-01-01T00:00:00Z")));
    let current = Arc::new(Mutex::new(None));
    let shown = Arc::clone(&current);
    let drained = CancellationToken::new();
    let keeping = tokio::spawn(leader.keep(move || *shown.lock().unwrap(), drained.clone()));
    let before = server.writes();
    until(|| server.writes() >= before + 2).await;
    assert_eq!(read_mark(&server.lease().unwrap()), Some(mark("2026-01-01T00:00:00Z")));
    *current.lock().unwrap() = Some(mark("2026-01-01T00:00:09Z"));
    until(|| read_mark(&server.lease().unwrap()) == Some(mark("2026-01-01T00:00:09Z"))).await;
    drained.cancel();
    keeping.await.unwrap().unwrap();
}

fn foreign(seconds: Option<i32>, renewed: &str) -> Lease {
    let spec = LeaseSpec {
        holder_identity: Some("other".to_owned()),
        lease_duration_seconds: seconds,
        renew_time: Some(MicroTime(mark(renewed))),
        ..LeaseSpec::default()
    };
    Lease { spec: Some(spec), ..Lease::default() }
}

#[test]
fn expiry_counts_from_when_we_saw_the_last_change_and_never_from_the_holders_clock() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let left = |seen: &mut Option<Seen>, lease: &Lease, now| Seen::update(seen, lease, &settings("me"), now).as_secs();
    let mut seen = None;
    // Its clock is decades off, both ways: that says nothing.
    let old = foreign(Some(15), "1990-01-01T00:00:00Z");
    assert_eq!(left(&mut seen, &old, at(0)), 15);
    assert_eq!(left(&mut seen, &old, at(14)), 1);
    let renewed = foreign(Some(15), "2090-01-01T00:00:00Z");
    assert_eq!(left(&mut seen, &renewed, at(14)), 15);
    assert_eq!(left(&mut seen, &renewed, at(28)), 1);
    assert_eq!(left(&mut seen, &renewed, at(29)), 0);
}

#[test]
fn the_holders_promise_counts_and_a_senseless_one_does_not() {
    let wait = |seconds| Seen::update(&mut None, &foreign(seconds, "2026-01-01T00:00:00Z"), &settings("me"), Instant::now()).as_secs();
    assert_eq!(wait(Some(60)), 60);
    for senseless in [None, Some(0), Some(-5)] {
        assert_eq!(wait(senseless), 3600, "{senseless:?}");
    }
}

#[test]
fn a_duration_is_written_in_whole_seconds_rounded_up() {
    assert_eq!([1, 999, 1000, 1001].map(|millis| whole_seconds(Duration::from_millis(millis))), [1, 1, 1, 2]);
}
