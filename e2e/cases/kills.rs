//! SIGKILL of the operator at every call that it makes, to the API server and to a store, each in turn: what comes out after its restart
//! is what comes out without.
//!
//! A round is a mix of creates, changes, renames and deletes over fresh objects. The first one is not disturbed: its calls are the points,
//! its end is the reference. Every further round kills at one point, before or after it was committed, and starts the operator again.

mod mix;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Write as _;
use std::pin::pin;
use std::time::Instant;

use serde_json::Value;

use crate::harness::{Canary, FileStore, Settings, VaultStore, World};
use crate::proxy::{Call, Fault, Matcher, Moment, Nth, Operation, Proxy, Rule, occurrences};
use mix::Mix;

/// Renewals of the Lease go on for ever; so many calls of each kind are points.
const OF_THE_LEASE: u64 = 2;

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_call_while_things_change_it_ends_where_it_would_have() {
    Box::pin(Stage::set().await.kill_at_every_point(Script::Living)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_call_of_a_start_with_a_backlog_it_ends_where_it_would_have() {
    Box::pin(Stage::set().await.kill_at_every_point(Script::Backlog)).await;
}

/// When people do what they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Script {
    /// While the operator runs.
    Living,
    /// While it is dead, so that everything waits for its start: that, too, is killed at each of its calls.
    Backlog,
}

/// What all rounds share.
struct Stage {
    world: World,
    file: FileStore,
    bao: VaultStore,
    /// Values of the first and of the second generation.
    values: [Canary; 2],
}

/// A call at which the operator dies. Names are those of round 0.
#[derive(Clone, PartialEq, Eq)]
struct Point {
    wire: Wire,
    operation: Operation,
    nth: u64,
    moment: Moment,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wire {
    ApiServer,
    Store,
}

impl fmt::Display for Point {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wire, operation, nth, moment } = self;
        write!(out, "{wire:?}: {operation}, call {nth}, {moment:?}")
    }
}

impl Stage {
    async fn set() -> Self {
        let settings = Settings::default().argument("--write-concurrency=1");
        // Two misses, and what else only waits: a round takes as long as its waits.
        let timings = [("leaseRetry", "50ms"), ("misses", "400ms"), ("absent", "300ms"), ("backoff", "100ms")];
        let settings = timings.iter().fold(settings, |settings, (name, value)| settings.timing(name, value));
        let world = World::prepare(settings).await;
        // Their logins are checked once, before the first round: a check that falls due by itself would be a call of one round only.
        let admitted = format!("conditions: [{{namespaces: [{}]}}]\n  refreshInterval: 0s", world.namespace());
        let file = world.file_store_named(&format!("{}-file", world.namespace()), &admitted).await;
        let bao = world.vault().await;
        bao.apply(&world, "  refreshInterval: 0s").await;
        let values = [world.canary_of(1), world.canary_of(2)];
        Self { world, file, bao, values }
    }

    async fn kill_at_every_point(self, script: Script) {
        let began = Instant::now();
        self.world.operator.start();
        self.world.operator.synced().await;
        for store in [&self.file.name, &self.bao.name] {
            self.world.cluster.store_says(store, "True", "Synced").await;
        }
        let (points, reference) = self.undisturbed(script).await;
        for (number, point) in points.iter().enumerate() {
            println!("{:?} round {}: killed at {point}", began.elapsed(), number + 1);
            let mut round = Round::begin(&self, script, number + 1, Some(point));
            round.play().await;
            assert_same(&round.end_state().await, &reference, point);
            round.is_told_right().await;
            round.clean().await;
        }
        // Past the capture of a test that passes: the number is part of the result.
        let _ = writeln!(std::io::stderr(), "{script:?}: killed at each of {} points in {:?}", points.len(), began.elapsed());
        assert!(points.len() >= 20, "a mix with so few calls shows little: {}", points.len());
        self.world.finish().await;
    }

    /// The first round: where it can be interrupted, and how it ends.
    async fn undisturbed(&self, script: Script) -> (Vec<Point>, BTreeMap<String, Value>) {
        let mut round = Round::begin(self, script, 0, None);
        let starts = [self.world.proxy.calls().len(), self.bao.proxy.calls().len()];
        round.play().await;
        let [api_server, store] = round.done_at;
        let mut points = points_of(Wire::ApiServer, script, &self.world.proxy.calls()[starts[0]..api_server]);
        points.extend(points_of(Wire::Store, script, &self.bao.proxy.calls()[starts[1]..store]));
        let reference = round.end_state().await;
        round.is_told_right().await;
        round.clean().await;
        (points, reference)
    }

    fn proxy(&self, wire: Wire) -> &Proxy {
        match wire {
            Wire::ApiServer => &self.world.proxy,
            Wire::Store => &self.bao.proxy,
        }
    }
}

fn assert_same(end: &BTreeMap<String, Value>, reference: &BTreeMap<String, Value>, point: &Point) {
    let names: BTreeSet<&String> = end.keys().chain(reference.keys()).collect();
    for name in names {
        assert_eq!(end.get(name), reference.get(name), "{name}, killed at {point}, and without");
    }
}

/// The points that calls are: each before and after its commit.
fn points_of(wire: Wire, script: Script, calls: &[Call]) -> Vec<Point> {
    let mut points = Vec::new();
    for (operation, nth) in occurrences(calls) {
        let is_watch = operation.verb == "watch";
        // Logins, lists, watches and the Lease belong to a life, not to what changes in it: the other script kills there.
        let is_of_the_life = !mix::is_of_round_0(&operation) && operation.resource != "events";
        if (script == Script::Living && is_of_the_life) || (operation.resource == "leases" && nth > OF_THE_LEASE) {
            continue;
        }
        points.push(Point { wire, operation: operation.clone(), nth, moment: Moment::BeforeCommit });
        // A watch has no end after which it was committed.
        if !is_watch {
            points.push(Point { wire, operation, nth, moment: Moment::AfterCommit });
        }
    }
    points
}

/// One mix, with one kill.
struct Round<'a> {
    stage: &'a Stage,
    script: Script,
    mix: Mix<'a>,
    rule: Option<Rule>,
    is_reborn: bool,
    /// Calls that each proxy had seen when everything had arrived; what fails is looked at for ever.
    done_at: [usize; 2],
}

impl<'a> Round<'a> {
    /// From now on the point's call is lethal.
    fn begin(stage: &'a Stage, script: Script, number: usize, point: Option<&Point>) -> Self {
        let mix = Mix { stage, number };
        if script == Script::Backlog {
            stage.world.operator.kill();
        }
        let rule = point.map(|point| {
            let operator = stage.world.operator.clone();
            let wanted = mix.of_this_round(&point.operation);
            let kill = Fault::kill(point.moment, move || operator.kill());
            stage.proxy(point.wire).on(Matcher::operation(&wanted), Nth::only(point.nth), kill)
        });
        Self { stage, script, mix, rule, is_reborn: false, done_at: [0; 2] }
    }

    async fn play(&mut self) {
        let mix = self.mix;
        if self.script == Script::Backlog {
            self.stage.forget_everything().await;
            mix.create().await;
            self.stage.world.operator.start();
        } else {
            mix.create().await;
        }
        self.through(mix.is_created()).await;
        mix.nothing_is_lost_yet().await;
        if self.script == Script::Backlog {
            self.stage.world.operator.kill();
            // Its last call may have been the lethal one.
            self.until_no_call_dies().await;
            self.is_reborn |= self.has_struck();
            mix.change().await;
            self.stage.world.operator.start();
        } else {
            mix.change().await;
        }
        self.through(mix.is_changed()).await;
        self.done_at = [Wire::ApiServer, Wire::Store].map(|wire| self.stage.proxy(wire).calls().len());
        if let Some(rule) = self.rule.clone().filter(|_| !self.is_reborn) {
            // What it does again and again, it does again.
            rule.fired().await;
            self.revive().await;
            mix.is_changed().await;
        }
        self.stage.world.a_while().await;
        mix.is_changed().await;
        assert!(self.stage.world.operator.is_running(), "the operator ended\n{}", self.stage.world.operator.last_words());
    }

    /// Waits for a phase to end, and brings the operator back when it dies meanwhile.
    async fn through(&mut self, phase: impl Future<Output = ()>) {
        let mut phase = pin!(phase);
        if let Some(rule) = self.rule.clone().filter(|_| !self.is_reborn) {
            tokio::select! {
                () = rule.fired() => {
                    self.revive().await;
                    phase.await;
                }
                () = &mut phase => {}
            }
        } else {
            phase.await;
        }
        // What ended the phase may have been what the lethal call committed.
        self.until_no_call_dies().await;
        if self.has_struck() && !self.is_reborn {
            self.revive().await;
        }
    }

    async fn revive(&mut self) {
        self.until_no_call_dies().await;
        self.is_reborn = true;
        self.stage.world.operator.start();
    }

    async fn until_no_call_dies(&self) {
        let is_dying = |call: &Call| call.fault == Some("kill") && call.is_open;
        for wire in [Wire::ApiServer, Wire::Store] {
            self.stage.proxy(wire).await_calls(|calls| !calls.iter().any(is_dying)).await;
        }
    }

    fn has_struck(&self) -> bool {
        self.rule.as_ref().is_some_and(|rule| rule.times_fired() > 0)
    }

    async fn end_state(&self) -> BTreeMap<String, Value> {
        self.mix.end_state().await
    }

    async fn is_told_right(&self) {
        self.mix.was_never_wrong().await;
    }

    async fn clean(&self) {
        self.mix.clean().await;
    }
}
