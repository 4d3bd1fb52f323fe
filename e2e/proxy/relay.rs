//! The way of an answer to the client: frame by frame, so that a watch flows, and stoppable from outside.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::StreamExt;
use futures::future::ready;
use futures::stream;
use http::Response;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use serde_json::json;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use super::connection::{AnyError, Body};
use super::ledger::OpenCall;
use super::rule::kubernetes_status;

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

/// An answer that breaks off: its head promises the whole of it.
pub(super) fn beginning(call: OpenCall, answer: Response<Bytes>, length: usize) -> Response<Body> {
    call.amend(|entry| entry.status = Some(answer.status().as_u16()));
    answer.map(|body| {
        let kept = body.slice(..length.min(body.len().saturating_sub(1)));
        let break_off = async move {
            // The call is open as long as the body is.
            let _call = call;
            // An error at once would take the bytes along that hyper did not write yet.
            tokio::task::yield_now().await;
            Err(AnyError::from("cut by the test"))
        };
        let frames = stream::once(ready(Ok(Frame::data(kept)))).chain(stream::once(break_off));
        StreamBody::new(frames).boxed_unsync()
    })
}

/// An answer that is still coming; each frame goes on as it comes.
pub(super) fn flowing(running: &Registry<usize, WatchEnd>, call: OpenCall, answer: Response<Incoming>) -> Response<Body> {
    call.amend(|entry| entry.status = Some(answer.status().as_u16()));
    let (order, orders) = mpsc::unbounded_channel();
    running.register(call.id(), order);
    answer.map(|body| {
        let relay = Relay { body, orders, is_between_lines: true, state: State::Flowing, _call: call };
        let frames = stream::unfold(relay, |mut relay| async move { Some((relay.next().await?, relay)) });
        StreamBody::new(frames.boxed()).boxed_unsync()
    })
}

struct Relay {
    body: Incoming,
    orders: UnboundedReceiver<WatchEnd>,
    is_between_lines: bool,
    state: State,
    _call: OpenCall,
}

enum State {
    Flowing,
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
                State::Ending(_) => return self.frame().await,
                State::Flowing => tokio::select! {
                    biased;
                    Some(end) = self.orders.recv() => self.state = State::Ending(end),
                    frame = self.body.frame() => return self.pass_on(frame),
                },
            }
        }
    }

    async fn frame(&mut self) -> Option<Result<Frame<Bytes>, AnyError>> {
        let frame = self.body.frame().await;
        self.pass_on(frame)
    }

    fn pass_on(&mut self, frame: Option<Result<Frame<Bytes>, hyper::Error>>) -> Option<Result<Frame<Bytes>, AnyError>> {
        if let Some(Ok(data)) = frame.as_ref().map(|frame| frame.as_ref().map(Frame::data_ref)) {
            self.is_between_lines = data.is_none_or(|data| data.ends_with(b"\n"));
        }
        frame.map(|frame| frame.map_err(AnyError::from))
    }
}

fn gone_event() -> Bytes {
    let event = json!({ "type": "ERROR", "object": kubernetes_status(410, "Expired", "too old resource version") });
    Bytes::from(format!("{event}\n"))
}
