//! The network between a store's server and its reader: a fault proxy, and what rows break there in the same way for every system.
//!
//! A subject of a system with a network holds a [`Wire`], opens its store at [`Wire::url`], passes each damage here first, and does
//! itself only what is its system's own matter.

use std::{fmt::Write as _, time::Duration};

use serde_json::{Value, json};

use super::subject::{CANARY, Damage};
use crate::proxy::{Accepting, Answer, Call, Cut, Fault, Matcher, Moment, Nth, Options, Proxy, Rule};

/// Longer than any answer takes.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// For damages that only the deadline ends.
const SHORT: Duration = Duration::from_millis(300);
/// Beyond what any backend reads of one answer.
const OVERSIZED: usize = 9 << 20;
/// What a bomb unpacks to, in MiB.
const BOMB: usize = 300;

/// See the module.
pub struct Wire {
    pub proxy: Proxy,
    /// What the store's reader gets as deadline of one look.
    pub deadline: Duration,
    /// The authority that the reader is told to trust.
    pub ca_pem: String,
    voice: Voice,
    rules: Vec<Rule>,
    /// Where a redirect leads: it must see nothing.
    elsewhere: Option<Proxy>,
}

/// How a system words an answer where the wire has to speak for it.
#[derive(Clone, Copy)]
pub struct Voice {
    /// The body of an error of that code; it holds the canary, as an error may quote anything.
    pub error: fn(u16) -> Value,
    /// A part of a list that promises more each time; none where a list is one answer by the system's protocol.
    pub endless_list: Option<fn(&Call) -> Answer>,
    /// The verb of the calls that list.
    pub list_verb: &'static str,
}

impl Wire {
    /// A proxy before the server.
    pub fn before(server: &str, ca_pem: &str, options: Options, voice: Voice) -> Self {
        let proxy = Proxy::start(server, ca_pem, options);
        let ca_pem = proxy.ca_pem().to_owned();
        Self { proxy, deadline: PATIENCE, ca_pem, voice, rules: Vec::new(), elsewhere: None }
    }

    pub fn url(&self) -> &str {
        self.proxy.url()
    }

    /// Connections and calls so far.
    pub fn traffic(&self) -> (u64, usize) {
        let seen = self.proxy.seen();
        (seen.connections_opened, seen.calls.len())
    }

    pub fn on(&mut self, matcher: Matcher, fault: Fault) {
        self.rules.push(self.proxy.on(matcher, Nth::every(), fault));
    }

    /// Does the damage, and says whether it is one of the wire.
    pub fn damage(&mut self, damage: Damage) -> bool {
        if matches!(damage, Damage::Hang | Damage::HangInTls | Damage::Dripping) {
            self.deadline = SHORT;
        }
        let fault = match damage {
            Damage::HangInTls => {
                self.proxy.accept(Accepting::HangTls);
                return true;
            }
            Damage::OtherAuthority => {
                Proxy::start(self.url(), self.proxy.ca_pem(), Options::vault()).ca_pem().clone_into(&mut self.ca_pem);
                return true;
            }
            Damage::Redirect(code) => {
                let elsewhere = self.elsewhere.insert(self.proxy.beside());
                Fault::redirect(code, elsewhere)
            }
            Damage::EndlessList => Fault::compute(self.voice.endless_list.expect("exempt otherwise")),
            Damage::Throttled(hint) => Fault::answer(self.throttled(hint)),
            Damage::Failing(code) => Fault::answer(Answer::new(code, "text/html", format!("<html>{CANARY}</html>"))),
            other => match fault(other) {
                Some(fault) => fault,
                None => return false,
            },
        };
        let matcher = if damage == Damage::EndlessList { Matcher::any().verb(self.voice.list_verb) } else { Matcher::any() };
        self.on(matcher, fault);
        true
    }

    fn throttled(&self, hint: Hint) -> Answer {
        let answer = Answer::json(429, &(self.voice.error)(429));
        match hint {
            Hint::None => answer,
            Hint::Seconds => answer.header("retry-after", "7"),
            Hint::Date => answer.header("date", "Sun, 22 Nov 2026 10:00:00 GMT").header("retry-after", "Sun, 22 Nov 2026 10:00:07 GMT"),
            Hint::Nonsense => answer.header("retry-after", CANARY),
        }
    }

    /// Takes every damage away.
    ///
    /// # Panics
    /// When a redirect was followed.
    pub fn mend(&mut self) {
        if let Some(elsewhere) = self.elsewhere.take() {
            let calls = elsewhere.calls();
            let told: Vec<_> = calls.iter().map(|call| (&call.path_and_query, &call.credentials)).collect();
            assert!(told.is_empty(), "the redirect was followed: {told:?}");
            assert_eq!(elsewhere.seen().connections_opened, 0, "the redirect was begun to be followed");
        }
        self.rules.drain(..).for_each(|rule| rule.withdraw());
        self.proxy.accept(Accepting::Normally);
        self.proxy.ca_pem().clone_into(&mut self.ca_pem);
        self.deadline = PATIENCE;
    }
}

/// What a throttled answer says of when to come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    None,
    Seconds,
    /// As a date, 7 seconds after the answer's own.
    Date,
    Nonsense,
}

/// What needs nothing but the proxy.
fn fault(damage: Damage) -> Option<Fault> {
    let page = |code| Fault::answer(Answer::new(code, "text/html; charset=utf-8", format!("<!doctype html><p>{CANARY}")));
    let json = |text: String| Fault::answer(Answer::new(200, "application/json", text));
    Some(match damage {
        Damage::Slow => Fault::delay(SHORT),
        Damage::Hang => Fault::hang(),
        Damage::Dripping => Fault::drip(Duration::from_millis(5)),
        Damage::Reset => Fault::reset(Moment::AfterCommit),
        Damage::Close => Fault::drop(Moment::BeforeCommit),
        Damage::Truncated => Fault::cut(Cut::Promised, 10),
        Damage::TruncatedChunks => Fault::cut(Cut::Chunked, 10),
        Damage::TruncatedUnnoticed => Fault::cut(Cut::Unnoticed, 10),
        Damage::Malformed => json(format!("{{\"data\":{{\"data\":{{\"value\":\"{CANARY}\"}}")),
        Damage::TwoAnswers => json(format!("{{\"data\":{{\"value\":\"{CANARY}\"}}}}{{}}")),
        Damage::Deep => json(deep()),
        Damage::Null => json("null".to_owned()),
        Damage::OtherShape => json(format!("{{\"data\":[\"{CANARY}\"],\"metadata\":7,\"items\":{{}}}}")),
        Damage::NoBody => json(String::new()),
        Damage::NoContent => Fault::answer(Answer::new(204, "application/json", "")),
        Damage::Page => page(200),
        Damage::MissingPage => page(404),
        Damage::Relabelled => Fault::relabel("text/html"),
        Damage::Oversized => json(" ".repeat(OVERSIZED)),
        Damage::Endless => Fault::endless("{\"data\":{\"data\":{\"value\":\"", vec![b'a'; 64 << 10]),
        Damage::Bomb => Fault::answer(Answer::bomb(BOMB, &["gzip"])),
        Damage::NestedBomb => Fault::answer(Answer::bomb(BOMB, &["gzip", "deflate"])),
        Damage::LargeHeaders => Fault::answer(Answer::json(200, &json!({})).header("x-large", &"a".repeat(1 << 20))),
        Damage::ManyHeaders => {
            let many = (0..10_000).fold(Answer::json(200, &json!({})), |answer, number| answer.header(&format!("x-{number}"), "a"));
            Fault::answer(many)
        }
        _ => return None,
    })
}

/// JSON that costs a stack where it is read by recursion.
fn deep() -> String {
    const DEPTH: usize = 200_000;
    let mut text = String::with_capacity(DEPTH * 10);
    (0..DEPTH).for_each(|_| text.push_str("{\"data\":"));
    write!(text, "\"{CANARY}\"").expect("memory takes everything");
    (0..DEPTH).for_each(|_| text.push('}'));
    text
}
