//! The way of an answer to the client: frame by frame, so that a watch flows, and stoppable from outside.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::ready;
use futures::{Stream, StreamExt, stream};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use serde_json::json;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use super::connection::{AnyError, Body};
use super::fault::{Cut, kubernetes_status};
use super::ledger::OpenCall;
use super::rule::Rule;

/// How a running watch is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchEnd {
    /// The connection breaks in the middle of the answer.
    Cut,
    /// The answer ends in good order, as at the server's own time-out.
    Finish,
    /// An `ERROR` event with 410 `Expired`, then the end, as when the server compacted its history.
    Gone,
}

/// What a test asks of a running watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    End(WatchEnd),
    /// Nothing more is passed on,
    Hold,
    /// until it goes on with all that came meanwhile.
    GoOn,
}

/// Who takes orders, by number, as long as somebody listens.
pub(super) struct Registry<Key, Order>(Mutex<HashMap<Key, UnboundedSender<Order>>>);

impl<Key, Order> Default for Registry<Key, Order> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<Key: Copy + Eq + Hash, Order: Copy> Registry<Key, Order> {
    pub fn register(&self, key: Key, sender: UnboundedSender<Order>) {
        let mut senders = self.lock();
        senders.retain(|_, sender| !sender.is_closed());
        senders.insert(key, sender);
    }

    /// Gives the order to all whose key is wanted, and says to how many.
    pub fn order(&self, order: Order, mut is_wanted: impl FnMut(Key) -> bool) -> usize {
        let senders = self.lock();
        let wanted = senders.iter().filter(|(key, _)| is_wanted(**key));
        wanted.filter(|(_, sender)| sender.send(order).is_ok()).count()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, UnboundedSender<Order>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer whose bytes are all there.
pub(super) fn whole(call: OpenCall, answer: Response<Bytes>) -> Response<Body> {
    call.amend(|entry| entry.status = Some(answer.status().as_u16()));
    answer.map(|body| {
        // The call is open as long as the body is.
        let body = Full::new(body).map_err(move |never| {
            let _call = &call;
            match never {}
        });
        body.boxed_unsync()
    })
}

/// An answer of which the end is missing.
pub(super) fn beginning(call: OpenCall, mut answer: Response<Bytes>, cut: Cut, length: usize) -> Response<Body> {
    let kept = answer.body().slice(..length.min(answer.body().len().saturating_sub(1)));
    match cut {
        Cut::Promised => {}
        Cut::Chunked => drop(answer.headers_mut().remove(CONTENT_LENGTH)),
        Cut::Unnoticed => {
            answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(kept.len()));
            return whole(call, answer.map(|_| kept));
        }
    }
    let frames = stream::once(ready(Ok(kept))).chain(stream::once(async {
        // An error at once would take the bytes along that hyper did not write yet.
        tokio::task::yield_now().await;
        Err("cut by the test".into())
    }));
    streamed(call, answer, frames)
}

/// An answer whose last byte never comes, one byte after each pause.
pub(super) fn dripping(call: OpenCall, answer: Response<Bytes>, pause: Duration, rule: Rule) -> Response<Body> {
    let body = answer.body().clone();
    let frames = stream::unfold(0, move |at| {
        let (body, rule) = (body.clone(), rule.clone());
        async move {
            if at == body.len() {
                return None;
            }
            tokio::time::sleep(pause).await;
            if at + 1 == body.len() {
                rule.released().await;
            }
            Some((Ok(body.slice(at..=at)), at + 1))
        }
    });
    streamed(call, answer, frames)
}

/// An answer without an end.
pub(super) fn endless(call: OpenCall, beginning: Bytes, piece: Bytes) -> Response<Body> {
    let mut answer = Response::new(Bytes::new());
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let frames = stream::once(ready(beginning)).chain(stream::repeat(piece)).map(Ok);
    streamed(call, answer, frames)
}

fn streamed(
    call: OpenCall,
    answer: Response<Bytes>,
    frames: impl Stream<Item = Result<Bytes, AnyError>> + Send + 'static,
) -> Response<Body> {
    call.amend(|entry| entry.status = Some(answer.status().as_u16()));
    answer.map(|_| {
        let frames = frames.map(move |frame| {
            // The call is open as long as the body is.
            let _call = &call;
            frame.map(Frame::data)
        });
        StreamBody::new(frames).boxed_unsync()
    })
}

/// An answer that is still coming; each frame goes on as it comes, or each line twice.
pub(super) fn flowing(running: &Registry<usize, Order>, call: OpenCall, answer: Response<Incoming>, is_doubled: bool) -> Response<Body> {
    let (order, orders) = mpsc::unbounded_channel();
    // Before the status is told: who saw it may give orders.
    running.register(call.id(), order);
    call.amend(|entry| entry.status = Some(answer.status().as_u16()));
    let (mut head, body) = answer.into_parts();
    if is_doubled {
        head.headers.remove(CONTENT_LENGTH);
    }
    let doubling = is_doubled.then(BytesMut::new);
    let relay = Relay { body, orders, doubling, is_between_lines: true, state: State::Flowing, _call: call };
    let frames = stream::unfold(relay, |mut relay| async move { Some((relay.next().await?, relay)) });
    Response::from_parts(head, StreamBody::new(frames.boxed()).boxed_unsync())
}

struct Relay {
    body: Incoming,
    orders: UnboundedReceiver<Order>,
    /// The line that is not complete yet, where lines are doubled.
    doubling: Option<BytesMut>,
    is_between_lines: bool,
    state: State,
    _call: OpenCall,
}

enum State {
    Flowing,
    Held,
    Ending(WatchEnd),
    Ended,
}

impl Relay {
    async fn next(&mut self) -> Option<Result<Frame<Bytes>, AnyError>> {
        loop {
            match self.state {
                State::Ended => return None,
                State::Ending(WatchEnd::Cut) => return Some(Err("cut by the test".into())),
                State::Ending(end) if self.is_between_lines => {
                    self.state = State::Ended;
                    return (end == WatchEnd::Gone).then(|| Ok(Frame::data(gone_event())));
                }
                // An event that was begun is completed first.
                State::Ending(_) => {
                    let frame = self.body.frame().await;
                    return self.pass_on(frame);
                }
                State::Held => match self.orders.recv().await {
                    Some(order) => self.obey(order),
                    None => self.state = State::Flowing,
                },
                State::Flowing => tokio::select! {
                    biased;
                    Some(order) = self.orders.recv() => self.obey(order),
                    frame = self.body.frame() => return self.pass_on(frame),
                },
            }
        }
    }

    fn obey(&mut self, order: Order) {
        self.state = match order {
            Order::End(end) => State::Ending(end),
            Order::Hold => State::Held,
            Order::GoOn => State::Flowing,
        };
    }

    fn pass_on(&mut self, frame: Option<Result<Frame<Bytes>, hyper::Error>>) -> Option<Result<Frame<Bytes>, AnyError>> {
        let Some(Ok(frame)) = frame else { return frame.map(|failed| failed.map_err(AnyError::from)) };
        let Ok(data) = frame.into_data() else { return Some(Ok(Frame::data(Bytes::new()))) };
        self.is_between_lines = data.ends_with(b"\n");
        let data = match &mut self.doubling {
            Some(begun) => doubled(begun, &data),
            None => data,
        };
        Some(Ok(Frame::data(data)))
    }
}

/// Every line that is complete by now, twice; what was begun stays for the next time.
fn doubled(begun: &mut BytesMut, data: &[u8]) -> Bytes {
    begun.extend_from_slice(data);
    let mut twice = BytesMut::new();
    while let Some(end) = begun.iter().position(|byte| *byte == b'\n') {
        let line = begun.split_to(end + 1);
        twice.extend_from_slice(&line);
        twice.extend_from_slice(&line);
    }
    twice.freeze()
}

fn gone_event() -> Bytes {
    let event = json!({ "type": "ERROR", "object": kubernetes_status(410, "Expired", "too old resource version") });
    Bytes::from(format!("{event}\n"))
}
