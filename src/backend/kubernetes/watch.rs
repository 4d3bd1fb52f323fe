//! Keeps the board current: one list and then watches of the metadata of one kind in the remote namespace, for as long as the store is
//! open. Each watch is short, so that one that hangs is noticed, and a right that was taken away.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::{
    answer::{self, Event, Mark, Page},
    board::Board,
    connection::{Connection, View, timed},
    failure::Failure,
    place::Resource,
};

/// How long the server is asked to keep a watch.
const WATCH: Duration = Duration::from_secs(30);
/// What it gets beyond that, connecting included. A watch that says nothing for longer hangs: what it showed is not believed.
const GRACE: Duration = Duration::from_secs(5);
/// Objects in one page of a list.
const PAGE: usize = 500;
/// Objects of one kind: a server that invents them for ever must not hold the caller for ever.
const MAX_OBJECTS: usize = 100_000;
/// Between attempts, at first and at last.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// When a credential that may not list and watch is tried again: somebody may have given it the right.
const REFUSED: Duration = Duration::from_secs(60);

/// What one watch is about.
#[derive(Clone)]
pub(super) struct Subject {
    pub connection: Arc<Connection>,
    pub namespace: Arc<str>,
    pub resource: Resource,
    /// Of one page.
    pub deadline: Duration,
}

/// Never ends by itself.
pub(super) async fn keep(subject: Subject, board: Arc<Board>) {
    let mut pause = PAUSES.0;
    loop {
        let began = Instant::now();
        let failure = follow(&subject, &board).await;
        let is_refused = matches!(failure, Failure::Denied | Failure::Unauthenticated);
        board.lose(subject.resource, is_refused);
        // The kind of what went wrong; bodies are in no failure.
        tracing::debug!(resource = subject.resource.plural(), %failure, "a watch of a store ended");
        pause = if began.elapsed() > WATCH { PAUSES.0 } else { (pause * 2).min(PAUSES.1) };
        let wait = match failure {
            Failure::Denied | Failure::Unauthenticated => REFUSED,
            Failure::Outdated | Failure::TimedOut => PAUSES.0,
            Failure::Throttled { after: Some(after) } => after.clamp(PAUSES.0, REFUSED),
            _ => pause,
        };
        sleep_until(Instant::now() + wait).await;
    }
}

/// Lists, then watches for as long as that goes well.
async fn follow(subject: &Subject, board: &Board) -> Failure {
    let (objects, mut version) = match list(subject).await {
        Ok(listed) => listed,
        Err(failure) => return failure,
    };
    board.list(subject.resource, objects);
    loop {
        let began = Instant::now();
        match watch(subject, board, version).await {
            Ok(next) => version = next,
            Err(failure) => return failure,
        }
        // A server that ends each watch at once is not asked without end.
        sleep_until(began + PAUSES.0).await;
    }
}

/// All objects, complete or not at all, and the version from which a watch goes on.
pub(super) async fn list(subject: &Subject) -> Result<(BTreeMap<String, Mark>, String), Failure> {
    let Subject { connection, namespace, resource, deadline } = subject;
    let (mut objects, mut next) = (BTreeMap::new(), None::<String>);
    loop {
        let (limit, rest) = (PAGE.to_string(), next.iter().map(|next| ("continue", next.as_str())));
        let path = with_query(&resource.path(namespace), [("limit", limit.as_str())].into_iter().chain(rest));
        let Page { version, objects: some, next: rest } =
            answer::page(&timed(Instant::now() + *deadline, connection.get(&path, View::MetadataList)).await?)?;
        objects.extend(some);
        if objects.len() > MAX_OBJECTS || rest.is_some() && rest == next {
            return Err(Failure::Endless);
        }
        next = rest;
        if next.is_none() {
            return Ok((objects, version));
        }
    }
}

/// One watch until the server ends it; the version from which the next goes on.
async fn watch(subject: &Subject, board: &Board, mut version: String) -> Result<String, Failure> {
    let seconds = WATCH.as_secs().to_string();
    let asked = [("watch", "true"), ("allowWatchBookmarks", "true"), ("timeoutSeconds", &seconds), ("resourceVersion", &version)];
    let path = with_query(&subject.resource.path(&subject.namespace), asked);
    let mut lines = subject.connection.watch(&path, Instant::now() + WATCH + GRACE).await?;
    while let Some(line) = lines.next().await? {
        if line.trim_ascii().is_empty() {
            continue;
        }
        version = match answer::event(&line)? {
            Event::Seen(name, mark) => {
                let version = mark.version.clone();
                board.seen(subject.resource, name, mark);
                version
            }
            Event::Gone(name, version) => {
                board.gone(subject.resource, name);
                version
            }
            Event::Bookmark(version) => version,
        };
    }
    Ok(version)
}

fn with_query<'a>(path: &str, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    format!("{path}?{query}")
}
