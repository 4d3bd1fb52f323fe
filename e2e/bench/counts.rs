//! What the operator cost, by the API server's audit log. `make bench` prints these counts, `make test` asserts them.

use std::collections::{BTreeMap, BTreeSet};

use crate::harness::audit::Request;

/// Requests of one operator over a time.
pub struct Cost<'a>(pub &'a [Request]);

impl Cost<'_> {
    /// All requests, watches and the Lease included.
    pub fn calls(&self) -> usize {
        self.0.len()
    }

    /// Writes, the Lease's aside.
    pub fn writes(&self) -> BTreeMap<String, usize> {
        self.count(|request| !is_read(request) && !is_lease(request))
    }

    /// Writes of a namespace.
    pub fn writes_in(&self, namespace: &str) -> BTreeMap<String, usize> {
        self.count(|request| !is_read(request) && request.namespace == namespace)
    }

    /// Everything but watches and the Lease.
    pub fn work(&self) -> BTreeMap<String, usize> {
        self.count(|request| !request.is_background())
    }

    /// Reads of single objects of a kind in a namespace.
    pub fn reads_of(&self, namespace: &str, resource: &str) -> usize {
        self.0.iter().filter(|request| request.verb == "get" && request.namespace == namespace && request.resource == resource).count()
    }

    /// Kinds that are watched, as paths of their lists.
    pub fn watched(&self) -> BTreeSet<String> {
        self.0.iter().filter(|request| request.verb == "watch").map(path).collect()
    }

    /// Reads of lists beyond their first page.
    pub fn further_pages(&self) -> usize {
        self.0.iter().filter(|request| request.verb == "list" && request.uri.contains("continue=")).count()
    }

    pub fn lists_and_watches(&self) -> usize {
        self.calls() - self.others()
    }

    /// Calls of a restart that neither list nor watch: 6 are allowed.
    pub fn others(&self) -> usize {
        self.0.iter().filter(|request| !["list", "watch"].contains(&request.verb.as_str())).count()
    }

    fn count(&self, is_counted: impl Fn(&Request) -> bool) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for request in self.0.iter().filter(|request| is_counted(request)) {
            let group = if request.group.is_empty() { String::new() } else { format!("{}/", request.group) };
            *counts.entry(format!("{} {group}{}", request.verb, request.resource)).or_default() += 1;
        }
        counts
    }
}

/// The path of a list or watch without its query.
pub fn path(request: &Request) -> String {
    request.uri.split('?').next().unwrap_or_default().to_owned()
}

fn is_read(request: &Request) -> bool {
    ["get", "list", "watch"].contains(&request.verb.as_str())
}

fn is_lease(request: &Request) -> bool {
    request.resource == "leases"
}
