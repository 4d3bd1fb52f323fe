//! What the API server wrote down about every request: the only witness that counts what the operator costs.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Deserialize;

/// The user that the operator is.
pub const OPERATOR: &str = "system:serviceaccount:keyferry-system:keyferry";

/// One request that was answered; a watch when it began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub user: String,
    pub verb: String,
    pub group: String,
    /// `secrets`, `externalsecrets/status`; empty for what is no resource.
    pub resource: String,
    pub namespace: String,
    pub name: String,
    pub code: u16,
    /// `allow`, `forbid`, or empty where nobody was asked.
    pub decision: String,
    pub uri: String,
    /// When it was answered; a watch when it began.
    pub at: Timestamp,
}

impl fmt::Display for Request {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verb, group, resource, namespace, name, code, .. } = self;
        let what = if resource.is_empty() { &self.uri } else { resource };
        let group = if group.is_empty() { String::new() } else { format!("{group}/") };
        write!(out, "{verb} {group}{what} {namespace}/{name} -> {code}")
    }
}

impl Request {
    /// (verb, group, resource), as RBAC rules name them: a patch that made something needed the right to create it, too.
    pub fn rights(&self) -> impl Iterator<Item = (String, String, String)> {
        let made = (self.verb == "patch" && self.code == 201).then_some("create");
        let verbs = [Some(self.verb.as_str()), made].into_iter().flatten();
        verbs.map(|verb| (verb.to_owned(), self.group.clone(), self.resource.clone())).collect::<Vec<_>>().into_iter()
    }

    /// The operator's own life: its Lease and its watches' long requests.
    pub fn is_background(&self) -> bool {
        self.resource == "leases" || self.verb == "watch"
    }
}

/// A place in the log: everything before it was answered before it was taken.
#[derive(Clone, Copy, Debug)]
pub struct Mark(u64);

/// A reader of one audit log.
#[derive(Clone, Debug)]
pub struct Audit {
    path: PathBuf,
}

impl Audit {
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Now.
    pub fn mark(&self) -> Mark {
        Mark(std::fs::metadata(&self.path).expect("an audit log").len())
    }

    /// All answered requests since a mark. A line is in the log before its request is answered.
    pub fn since(&self, mark: Mark) -> Vec<Request> {
        self.read(mark).0
    }

    /// The same, and where to go on.
    pub fn read(&self, mark: Mark) -> (Vec<Request>, Mark) {
        let mut file = File::open(&self.path).expect("an audit log");
        file.seek(SeekFrom::Start(mark.0)).expect("a log can be sought in");
        let mut text = String::new();
        file.read_to_string(&mut text).expect("an audit log is text");
        // The last line may be half written.
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        (whole.lines().filter_map(parse).collect(), Mark(mark.0 + whole.len() as u64))
    }

    /// The operator's requests since a mark.
    pub fn of_operator(&self, mark: Mark) -> Vec<Request> {
        let mut requests = self.since(mark);
        requests.retain(|request| request.user == OPERATOR);
        requests
    }

    /// What the operator did since a mark besides watching and holding its Lease, as `verb group/resource` with counts.
    pub fn work_of_operator(&self, mark: Mark) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for request in self.of_operator(mark).iter().filter(|request| !request.is_background()) {
            let group = if request.group.is_empty() { String::new() } else { format!("{}/", request.group) };
            *counts.entry(format!("{} {group}{}", request.verb, request.resource)).or_default() += 1;
        }
        counts
    }
}

fn parse(line: &str) -> Option<Request> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Line {
        stage: String,
        verb: String,
        #[serde(rename = "requestURI")]
        uri: String,
        stage_timestamp: Timestamp,
        user: User,
        #[serde(default)]
        object_ref: ObjectRef,
        #[serde(default)]
        response_status: Status,
        #[serde(default)]
        annotations: BTreeMap<String, String>,
    }
    #[derive(Deserialize)]
    struct User {
        /// Empty for a request whose credential was refused.
        #[serde(default)]
        username: String,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct ObjectRef {
        resource: String,
        subresource: String,
        namespace: String,
        name: String,
        api_group: String,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Status {
        code: u16,
    }
    let line: Line = serde_json::from_str(line).unwrap_or_else(|error| panic!("a line of the audit log: {error}: {line}"));
    let counted = if line.verb == "watch" { "ResponseStarted" } else { "ResponseComplete" };
    // A request that was refused before it began has one stage only.
    let is_counted = line.stage == counted || (line.verb == "watch" && line.response_status.code >= 400);
    let reference = line.object_ref;
    let resource = match reference.subresource.as_str() {
        "" => reference.resource,
        subresource => format!("{}/{subresource}", reference.resource),
    };
    is_counted.then(|| Request {
        user: line.user.username,
        verb: line.verb,
        group: reference.api_group,
        resource,
        namespace: reference.namespace,
        name: reference.name,
        code: line.response_status.code,
        decision: line.annotations.get("authorization.k8s.io/decision").cloned().unwrap_or_default(),
        uri: line.uri,
        at: line.stage_timestamp,
    })
}
