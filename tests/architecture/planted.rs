//! Planted violations: every rule bites, whichever way the forbidden thing is spelled, and clean code passes.

use super::layers;
use super::parse::{Crate, Source, module_path};
use super::rules::{self, Finding};

/// One planted violation: the files, and where which rule must find it.
struct Planted {
    spelled: &'static str,
    files: &'static [(&'static str, &'static str)],
    rule: &'static str,
    at: (&'static str, usize),
}

fn check(files: &[(&str, &str)]) -> Vec<Finding> {
    let sources: Vec<Source> = files.iter().map(|(path, text)| Source::new(path, text)).collect();
    rules::check(&Crate::parse(&sources))
}

fn assert_found(cases: &[Planted]) {
    for case in cases {
        let findings = check(case.files);
        let is_it = |finding: &Finding| finding.rule == case.rule && (finding.file.as_str(), finding.line) == case.at;
        let shown: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert!(findings.iter().any(is_it), "{}: not found at {:?}; found: {shown:#?}", case.spelled, case.at);
    }
}

fn assert_clean(files: &[(&str, &str)]) {
    let shown: Vec<String> = check(files).iter().map(ToString::to_string).collect();
    assert!(shown.is_empty(), "{files:?}: {shown:#?}");
}

#[test]
fn a_forbidden_import_is_found_however_it_is_spelled() {
    let rule = rules::IMPORT;
    assert_found(&[
        Planted { spelled: "use", files: &[("src/access/mod.rs", "use crate::cluster::Objects;")], rule, at: ("src/access/mod.rs", 1) },
        Planted {
            spelled: "full path in a function body",
            files: &[("src/access/mod.rs", "fn f() {\n    crate::backend::open();\n}")],
            rule,
            at: ("src/access/mod.rs", 2),
        },
        Planted {
            spelled: "full path in a signature, behind generics",
            files: &[("src/access/mod.rs", "fn f(x: Option<Vec<crate::engine::Plan>>) {}")],
            rule,
            at: ("src/access/mod.rs", 1),
        },
        Planted {
            spelled: "trait bound",
            files: &[("src/access/mod.rs", "fn f<T>(x: T)\nwhere\n    T: crate::backend::Backend,\n{}")],
            rule,
            at: ("src/access/mod.rs", 3),
        },
        Planted {
            spelled: "grouped use",
            files: &[("src/access/mod.rs", "use crate::{\n    name::Name,\n    backend::{Backend, Answer as A},\n};")],
            rule,
            at: ("src/access/mod.rs", 3),
        },
        Planted { spelled: "glob", files: &[("src/access/mod.rs", "use crate::backend::*;")], rule, at: ("src/access/mod.rs", 1) },
        Planted {
            spelled: "super",
            files: &[("src/access/rules.rs", "use super::super::cluster::Objects;")],
            rule,
            at: ("src/access/rules.rs", 1),
        },
        Planted {
            spelled: "super out of nested inline modules",
            files: &[("src/access/mod.rs", "mod inner {\n    mod most {\n        fn f() { super::super::super::engine::run() }\n    }\n}")],
            rule,
            at: ("src/access/mod.rs", 3),
        },
        Planted {
            spelled: "self, then super",
            files: &[("src/access/mod.rs", "use self::super::cluster as c;")],
            rule,
            at: ("src/access/mod.rs", 1),
        },
        Planted {
            spelled: "alias of the crate's root",
            files: &[("src/access/mod.rs", "use crate as everything;\nfn f() { everything::cluster::get() }")],
            rule,
            at: ("src/access/mod.rs", 2),
        },
        Planted {
            spelled: "alias of the crate's root through self",
            files: &[("src/access/mod.rs", "use crate::{self as everything};\nfn f() { everything::cluster::get() }")],
            rule,
            at: ("src/access/mod.rs", 2),
        },
        Planted {
            spelled: "extern crate self",
            files: &[("src/access/mod.rs", "extern crate self as me;\nfn f() { me::cluster::get() }")],
            rule,
            at: ("src/access/mod.rs", 2),
        },
        Planted {
            spelled: "raw identifier",
            files: &[("src/access/mod.rs", "use crate::r#cluster::Objects;")],
            rule,
            at: ("src/access/mod.rs", 1),
        },
        Planted {
            spelled: "use inside a function",
            files: &[("src/access/mod.rs", "fn f() {\n    use crate::cluster as names;\n    names::get();\n}")],
            rule,
            at: ("src/access/mod.rs", 2),
        },
        Planted {
            spelled: "path in an attribute's text",
            files: &[("src/crd/mod.rs", "struct S {\n    #[serde(with = \"crate::backend::format\")]\n    x: u8,\n}")],
            rule,
            at: ("src/crd/mod.rs", 2),
        },
        Planted {
            spelled: "derive",
            files: &[("src/crd/mod.rs", "#[derive(Clone, crate::cluster::Watched)]\nstruct S;")],
            rule,
            at: ("src/crd/mod.rs", 1),
        },
        Planted {
            spelled: "test code is held too",
            files: &[("src/access/mod.rs", "#[cfg(test)]\nmod tests {\n    use crate::cluster::Objects;\n}")],
            rule,
            at: ("src/access/mod.rs", 3),
        },
        Planted {
            spelled: "the binary's modules below the library",
            files: &[("src/engine/mod.rs", "use crate::config::Config;")],
            rule,
            at: ("src/engine/mod.rs", 1),
        },
    ]);
}

#[test]
fn a_re_export_launders_nothing() {
    let rule = rules::IMPORT;
    assert_found(&[
        Planted {
            spelled: "the re-export itself",
            files: &[("src/name.rs", "pub use crate::cluster::Objects;")],
            rule,
            at: ("src/name.rs", 1),
        },
        Planted {
            spelled: "its user",
            files: &[("src/name.rs", "pub use crate::cluster::Objects as Things;"), ("src/access/mod.rs", "use crate::name::Things;")],
            rule,
            at: ("src/access/mod.rs", 1),
        },
        Planted {
            spelled: "a chain over the library's root, with aliases",
            files: &[
                ("src/lib.rs", "pub mod access;\npub mod fault;\npub use fault::Inner as Outer;"),
                ("src/fault.rs", "pub use crate::backend::Answer as Inner;"),
                ("src/access/mod.rs", "fn f(x: crate::Outer) {}"),
            ],
            rule,
            at: ("src/access/mod.rs", 1),
        },
        Planted {
            spelled: "a glob re-export",
            files: &[
                ("src/name.rs", "pub use crate::cluster::*;"),
                ("src/cluster/mod.rs", "pub struct Objects;"),
                ("src/access/mod.rs", "fn f() {\n    crate::name::Objects::get();\n}"),
            ],
            rule,
            at: ("src/access/mod.rs", 2),
        },
        Planted {
            spelled: "a name that only two globs explain",
            files: &[
                ("src/name.rs", "pub use crate::cluster::*;"),
                ("src/cluster/mod.rs", "pub struct Objects;"),
                ("src/access/mod.rs", "use crate::name::*;\nfn f(x: Objects) {}"),
            ],
            rule,
            at: ("src/access/mod.rs", 2),
        },
        Planted {
            spelled: "a type alias",
            files: &[
                ("src/engine/mod.rs", "pub type Shared<T> = crate::backend::Answer<T>;"),
                ("src/scan/mod.rs", "fn f(x: crate::engine::Shared<u8>) {}"),
            ],
            rule,
            at: ("src/scan/mod.rs", 1),
        },
        Planted {
            spelled: "an upper module entered for a lower thing",
            files: &[("src/engine/mod.rs", "pub use crate::name::Name;"), ("src/cache/mod.rs", "use crate::engine::Name;")],
            rule,
            at: ("src/cache/mod.rs", 1),
        },
        Planted {
            spelled: "a re-exported module",
            files: &[
                ("src/engine/mod.rs", "pub use crate::backend as sources;"),
                ("src/api/mod.rs", "fn f() { crate::engine::sources::open(); }"),
            ],
            rule,
            at: ("src/api/mod.rs", 1),
        },
    ]);
}

#[test]
fn a_macro_hides_nothing() {
    let rule = rules::IMPORT;
    assert_found(&[
        Planted {
            spelled: "argument of a macro",
            files: &[("src/access/mod.rs", "fn f() {\n    vec![1, crate::cluster::count()];\n}")],
            rule,
            at: ("src/access/mod.rs", 2),
        },
        Planted {
            spelled: "argument of a format macro",
            files: &[("src/access/mod.rs", "fn f() {\n    let _ = format!(\"{}{x}\", 1, x = crate::cluster::count());\n}")],
            rule,
            at: ("src/access/mod.rs", 2),
        },
        Planted {
            spelled: "arm of a macro with its own syntax",
            files: &[(
                "src/refresh/mod.rs",
                "async fn f() {\n    tokio::select! {\n        _ = done() => {}\n        x = crate::controller::wait() => drop(x),\n    }\n}",
            )],
            rule,
            at: ("src/refresh/mod.rs", 4),
        },
        Planted {
            spelled: "use inside a macro's block",
            files: &[(
                "src/access/mod.rs",
                "fn f() {\n    run! { x => {\n        use crate::cluster as c;\n        c::count()\n    } }\n}",
            )],
            rule,
            at: ("src/access/mod.rs", 4),
        },
        Planted {
            spelled: "nested macros",
            files: &[("src/access/mod.rs", "fn f() {\n    vec![format!(\"{}\",\n        vec![crate::cluster::count()].len())];\n}")],
            rule,
            at: ("src/access/mod.rs", 3),
        },
        Planted {
            spelled: "body of a macro's definition",
            files: &[("src/access/mod.rs", "macro_rules! m {\n    ($x:expr) => { $crate::cluster::get($x) };\n}")],
            rule,
            at: ("src/access/mod.rs", 2),
        },
        Planted {
            spelled: "alias used in a macro",
            files: &[
                ("src/name.rs", "pub use crate::cluster as c;"),
                ("src/access/mod.rs", "use crate::name as n;\nfn f() { println!(\"{}\", n::c::count()); }"),
            ],
            rule,
            at: ("src/access/mod.rs", 2),
        },
        Planted {
            spelled: "a macro called by its path",
            files: &[("src/access/mod.rs", "fn f() {\n    crate::cluster::list!();\n}")],
            rule,
            at: ("src/access/mod.rs", 2),
        },
        Planted {
            spelled: "items made by a macro",
            files: &[("src/access/mod.rs", "thread_local! {\n    static X: crate::cluster::Objects = None;\n}")],
            rule,
            at: ("src/access/mod.rs", 2),
        },
    ]);
}

#[test]
fn each_layer_and_each_sibling_is_held() {
    let rule = rules::IMPORT;
    assert_found(&[
        Planted {
            spelled: "vocabulary uses a decision",
            files: &[("src/fault.rs", "use crate::schedule::Due;")],
            rule,
            at: ("src/fault.rs", 1),
        },
        Planted {
            spelled: "decisions know each other",
            files: &[("src/select/mod.rs", "use crate::validate::check;")],
            rule,
            at: ("src/select/mod.rs", 1),
        },
        Planted {
            spelled: "another stage composes the content",
            files: &[("src/engine/fetch.rs", "use crate::select::select;")],
            rule,
            at: ("src/engine/fetch.rs", 1),
        },
        Planted {
            spelled: "an adapter knows a shell",
            files: &[("src/cache/mod.rs", "use crate::refresh::Poller;")],
            rule,
            at: ("src/cache/mod.rs", 1),
        },
        Planted {
            spelled: "the backend knows its governor",
            files: &[("src/backend/mod.rs", "use crate::governor::Permit;")],
            rule,
            at: ("src/backend/mod.rs", 1),
        },
        Planted {
            spelled: "the engine knows the poller",
            files: &[("src/engine/mod.rs", "use crate::refresh::Poller;")],
            rule,
            at: ("src/engine/mod.rs", 1),
        },
        Planted {
            spelled: "an outsider reaches a backend",
            files: &[("src/dashboard/mod.rs", "use crate::governor::Permit;")],
            rule,
            at: ("src/dashboard/mod.rs", 1),
        },
        Planted {
            spelled: "the exception is for one file of cli only",
            files: &[("src/cli/plan.rs", "use crate::backend::file::Store;")],
            rule,
            at: ("src/cli/plan.rs", 1),
        },
        Planted {
            spelled: "providers know each other",
            files: &[("src/backend/vault/mod.rs", "use super::super::backend::file::Store;")],
            rule,
            at: ("src/backend/vault/mod.rs", 1),
        },
        Planted {
            spelled: "providers know each other through what backend re-exports",
            files: &[
                ("src/backend/mod.rs", "pub use file::Store;"),
                ("src/backend/vault.rs", "use super::Store;"),
                ("src/backend/file.rs", ""),
            ],
            rule,
            at: ("src/backend/vault.rs", 1),
        },
        Planted {
            spelled: "a stage knows a later one",
            files: &[("src/engine/fetch.rs", "use super::plan::Plan;")],
            rule,
            at: ("src/engine/fetch.rs", 1),
        },
        Planted {
            spelled: "a stage calls an earlier one",
            files: &[("src/engine/apply.rs", "fn f() {\n    super::fetch::fetch();\n}"), ("src/engine/fetch.rs", "pub fn fetch() {}")],
            rule,
            at: ("src/engine/apply.rs", 2),
        },
    ]);
}

#[test]
fn folders_that_know_each_other_are_found() {
    assert_found(&[Planted {
        spelled: "in the vocabulary, where siblings may know each other",
        files: &[
            ("src/fault.rs", "use crate::crd::Reason;"),
            ("src/crd/mod.rs", "\nuse crate::name::Name;"),
            ("src/name.rs", "\n\nuse crate::fault::Fault;"),
        ],
        rule: rules::CYCLE,
        at: ("src/name.rs", 3),
    }]);
}

#[test]
fn the_listed_edges_have_no_cycle() {
    for (from, to, _) in layers::SIBLINGS {
        assert_ne!(from, to);
        assert!(!leads_to(to, from), "{from} → {to} closes a circle in SIBLINGS");
    }
}

fn leads_to(from: &str, to: &str) -> bool {
    layers::SIBLINGS.iter().any(|(a, b, _)| *a == from && (*b == to || leads_to(b, to)))
}

#[test]
fn every_list_names_folders_of_the_map_and_gives_reasons() {
    for (from, to, why) in layers::SIBLINGS.iter().chain(layers::EXCEPTIONS) {
        for path in [from, to] {
            let unit = path.split("::").next().unwrap_or_default();
            assert!(layers::layer_of(unit).is_some(), "`{unit}` is not in UNITS");
        }
        assert!(!why.is_empty(), "{from} → {to} has no reason");
    }
    for (file, why) in layers::EXPOSING {
        assert!(layers::layer_of(&module_path(file)[1]).is_some(), "{file} is in no layer");
        assert!(!why.is_empty(), "{file} has no reason");
    }
}

#[test]
fn the_kubernetes_api_outside_cluster_is_found_however_it_is_spelled() {
    let rule = rules::CLUSTER;
    assert_found(&[
        Planted { spelled: "use", files: &[("src/controller/mod.rs", "use kube::Api;")], rule, at: ("src/controller/mod.rs", 1) },
        Planted {
            spelled: "full path",
            files: &[("src/controller/mod.rs", "fn f(c: C) {\n    ::kube::api::Api::<Pod>::all(c);\n}")],
            rule,
            at: ("src/controller/mod.rs", 2),
        },
        Planted {
            spelled: "alias of the crate",
            files: &[("src/engine/mod.rs", "use kube as k;\nfn f(x: k::Api<Pod>) {}")],
            rule,
            at: ("src/engine/mod.rs", 2),
        },
        Planted {
            spelled: "alias",
            files: &[("src/engine/mod.rs", "use kube::{api::{Api as Handle, Patch}, ResourceExt};")],
            rule,
            at: ("src/engine/mod.rs", 1),
        },
        Planted { spelled: "glob", files: &[("src/engine/mod.rs", "use kube::api::*;")], rule, at: ("src/engine/mod.rs", 1) },
        Planted { spelled: "glob of the crate", files: &[("src/engine/mod.rs", "use kube::*;")], rule, at: ("src/engine/mod.rs", 1) },
        Planted {
            spelled: "macro",
            files: &[("src/engine/mod.rs", "fn f() {\n    tokio::join!(kube::Api::<Pod>::all(c).get(\"x\"), other());\n}")],
            rule,
            at: ("src/engine/mod.rs", 2),
        },
        Planted {
            spelled: "path from the root, past a name of ours",
            files: &[("src/engine/mod.rs", "use crate::name as kube;\nfn f(x: ::kube::Api<Pod>) {}")],
            rule,
            at: ("src/engine/mod.rs", 2),
        },
        Planted {
            spelled: "type alias made by a macro",
            files: &[
                ("src/cluster/mod.rs", "only_linux! {\n    type Handle<K> = kube::Api<K>;\n    pub use self::Handle as Things;\n}"),
                ("src/controller/mod.rs", "fn f(x: crate::cluster::Things<Pod>) {}"),
            ],
            rule,
            at: ("src/controller/mod.rs", 1),
        },
        Planted {
            spelled: "extern crate",
            files: &[("src/engine/mod.rs", "extern crate kube as k;\nfn f(x: k::Api<Pod>) {}")],
            rule,
            at: ("src/engine/mod.rs", 2),
        },
        Planted {
            spelled: "re-export out of cluster",
            files: &[("src/cluster/mod.rs", "pub use kube::Api as Handle;"), ("src/controller/mod.rs", "use crate::cluster::Handle;")],
            rule,
            at: ("src/controller/mod.rs", 1),
        },
        Planted {
            spelled: "re-export of the whole crate",
            files: &[("src/cluster/mod.rs", "pub use kube;"), ("src/controller/mod.rs", "fn f(x: crate::cluster::kube::Api<Pod>) {}")],
            rule,
            at: ("src/controller/mod.rs", 1),
        },
        Planted {
            spelled: "type alias out of cluster",
            files: &[
                ("src/cluster/mod.rs", "use kube::Api;\npub type Pods = Api<Pod>;"),
                ("src/controller/mod.rs", "use crate::cluster::Pods;"),
            ],
            rule,
            at: ("src/controller/mod.rs", 1),
        },
        Planted {
            spelled: "a macro defined in cluster, expanded elsewhere",
            files: &[("src/cluster/mod.rs", "macro_rules! api {\n    ($c:expr) => { kube::Api::all($c) };\n}")],
            rule,
            at: ("src/cluster/mod.rs", 2),
        },
        Planted {
            spelled: "the client",
            files: &[("src/controller/mod.rs", "fn f(client: kube::Client) {}")],
            rule,
            at: ("src/controller/mod.rs", 1),
        },
        Planted {
            spelled: "a request of the client",
            files: &[("src/controller/mod.rs", "fn f(x: X) {\n    x.client().request_text(r);\n}")],
            rule,
            at: ("src/controller/mod.rs", 2),
        },
        Planted {
            spelled: "in the binary",
            files: &[("src/main.rs", "fn main() { kube::Client::try_default(); }")],
            rule,
            at: ("src/main.rs", 1),
        },
        Planted {
            spelled: "in test code",
            files: &[("src/controller/mod.rs", "#[cfg(test)]\nmod tests {\n    use kube::Api;\n}")],
            rule,
            at: ("src/controller/mod.rs", 3),
        },
    ]);
    assert_found(&[
        Planted {
            spelled: "a function of cluster returns a handle",
            files: &[("src/cluster/mod.rs", "use kube::Api as A;\npub fn pods() -> Option<A<Pod>> { None }")],
            rule: rules::SURFACE,
            at: ("src/cluster/mod.rs", 2),
        },
        Planted {
            spelled: "a field that others see is a handle",
            files: &[("src/cluster/mod.rs", "pub struct Pods {\n    pub(crate) api: kube::Api<Pod>,\n}")],
            rule: rules::SURFACE,
            at: ("src/cluster/mod.rs", 2),
        },
        Planted {
            spelled: "the client is lent",
            files: &[("src/cluster/mod.rs", "use kube::Client;\npub fn client() -> &'static Client { todo() }")],
            rule: rules::SURFACE,
            at: ("src/cluster/mod.rs", 2),
        },
        Planted {
            spelled: "a variant is a handle",
            files: &[("src/cluster/mod.rs", "pub enum Pods {\n    All(kube::Api<Pod>),\n}")],
            rule: rules::SURFACE,
            at: ("src/cluster/mod.rs", 2),
        },
        Planted {
            spelled: "a callback is handed a handle",
            files: &[("src/cluster/mod.rs", "use kube::Api;\npub fn with(f: impl FnOnce(Api<Pod>)) {}")],
            rule: rules::SURFACE,
            at: ("src/cluster/mod.rs", 2),
        },
        Planted {
            spelled: "a trait names a handle",
            files: &[("src/cluster/mod.rs", "use kube::Api;\nimpl Handles for Cluster { type Pods = Api<Pod>; }")],
            rule: rules::SURFACE,
            at: ("src/cluster/mod.rs", 2),
        },
        Planted {
            spelled: "a trait's function returns a handle",
            files: &[("src/cluster/mod.rs", "use kube::Api;\npub trait Handles { fn pods(&self) -> Api<Pod>; }")],
            rule: rules::SURFACE,
            at: ("src/cluster/mod.rs", 2),
        },
    ]);
}

#[test]
fn a_value_exposed_outside_the_list_is_found_however_it_is_spelled() {
    let rule = rules::EXPOSED;
    assert_found(&[
        Planted {
            spelled: "method",
            files: &[("src/controller/mod.rs", "fn f(v: V) {\n    v\n        .expose();\n}")],
            rule,
            at: ("src/controller/mod.rs", 3),
        },
        Planted {
            spelled: "path",
            files: &[("src/controller/mod.rs", "fn f(v: V) {\n    crate::secret::SecretValue::expose(&v);\n}")],
            rule,
            at: ("src/controller/mod.rs", 2),
        },
        Planted {
            spelled: "function handed to another",
            files: &[("src/controller/mod.rs", "use crate::secret::SecretValue as V;\nfn f(v: Option<&V>) { v.map(V::expose); }")],
            rule,
            at: ("src/controller/mod.rs", 2),
        },
        Planted {
            spelled: "path behind a qualified type",
            files: &[("src/controller/mod.rs", "fn f(v: V) { <crate::secret::SecretValue>::expose(&v); }")],
            rule,
            at: ("src/controller/mod.rs", 1),
        },
        Planted {
            spelled: "re-export with another name",
            files: &[
                ("src/cache/mod.rs", "pub use crate::secret::SecretValue as Held;"),
                ("src/controller/mod.rs", "fn f(v: V) { crate::cache::Held::expose(&v); }"),
            ],
            rule,
            at: ("src/controller/mod.rs", 1),
        },
        Planted {
            spelled: "format macro",
            files: &[("src/controller/mod.rs", "fn f(v: V) {\n    tracing::info!(value = ?v.expose(), \"read\");\n}")],
            rule,
            at: ("src/controller/mod.rs", 2),
        },
        Planted {
            spelled: "macro with its own syntax",
            files: &[(
                "src/controller/mod.rs",
                "async fn f() {\n    tokio::select! {\n        v = get() => show(v.expose()),\n        else => {}\n    }\n}",
            )],
            rule,
            at: ("src/controller/mod.rs", 3),
        },
        Planted {
            spelled: "method name handed to a macro",
            files: &[("src/controller/mod.rs", "fn f(v: V) { call!(v, expose); }")],
            rule,
            at: ("src/controller/mod.rs", 1),
        },
        Planted {
            spelled: "trait of the crate below",
            files: &[("src/controller/mod.rs", "use secrecy::ExposeSecret;")],
            rule,
            at: ("src/controller/mod.rs", 1),
        },
        Planted {
            spelled: "trait under an alias, its method",
            files: &[("src/controller/mod.rs", "use secrecy::{ExposeSecret as _};\nfn f(v: V) { v.expose_secret(); }")],
            rule,
            at: ("src/controller/mod.rs", 2),
        },
        Planted {
            spelled: "trait by a glob",
            files: &[("src/controller/mod.rs", "use secrecy::*;")],
            rule,
            at: ("src/controller/mod.rs", 1),
        },
        Planted {
            spelled: "trait by a re-export",
            files: &[("src/secret.rs", "pub use secrecy::ExposeSecret as Show;"), ("src/controller/mod.rs", "use crate::secret::Show;")],
            rule,
            at: ("src/controller/mod.rs", 1),
        },
        Planted {
            spelled: "a macro that others expand",
            files: &[("src/digest.rs", "macro_rules! shown {\n    ($v:expr) => { $v.expose() };\n}")],
            rule,
            at: ("src/digest.rs", 2),
        },
        Planted {
            spelled: "code that only looks like a test",
            files: &[("src/controller/mod.rs", "#[cfg(not(test))]\nmod tests {\n    fn f(v: V) { v.expose(); }\n}")],
            rule,
            at: ("src/controller/mod.rs", 3),
        },
        Planted {
            spelled: "a file that is only called tests",
            files: &[("src/controller/mod.rs", "mod tests;"), ("src/controller/tests.rs", "fn f(v: V) { v.expose(); }")],
            rule,
            at: ("src/controller/tests.rs", 1),
        },
    ]);
    assert_found(&[
        Planted {
            spelled: "a trait that shows",
            files: &[("src/secret.rs", "impl std::fmt::Display for SecretValue {}")],
            rule: rules::SHOWN,
            at: ("src/secret.rs", 1),
        },
        Planted {
            spelled: "a trait that lends, in another file",
            files: &[("src/cache/mod.rs", "\nimpl AsRef<[u8]> for crate::secret::SecretValue {}")],
            rule: rules::SHOWN,
            at: ("src/cache/mod.rs", 2),
        },
        Planted {
            spelled: "a derive",
            files: &[("src/secret.rs", "#[derive(Clone, serde::Serialize)]\npub struct SecretValue(Vec<u8>);")],
            rule: rules::SHOWN,
            at: ("src/secret.rs", 1),
        },
        Planted {
            spelled: "a second accessor",
            files: &[(
                "src/secret.rs",
                "impl SecretValue {\n    pub fn len(&self) -> usize { 0 }\n    pub(crate) fn bytes(&self) -> &[u8] { &self.0 }\n}",
            )],
            rule: rules::SHOWN,
            at: ("src/secret.rs", 3),
        },
        Planted {
            spelled: "a conversion",
            files: &[("src/secret.rs", "\nimpl From<SecretValue> for Vec<u8> {}")],
            rule: rules::SHOWN,
            at: ("src/secret.rs", 2),
        },
        Planted {
            spelled: "a conversion of a borrowed value, in a file that may expose",
            files: &[("src/digest.rs", "\nimpl From<&crate::secret::SecretValue> for Vec<u8> {}")],
            rule: rules::SHOWN,
            at: ("src/digest.rs", 2),
        },
        Planted {
            spelled: "a trait of ours, in a file that may expose",
            files: &[("src/digest.rs", "\nimpl Peek for SecretValue { fn peek(&self) -> &[u8] { self.expose() } }")],
            rule: rules::SHOWN,
            at: ("src/digest.rs", 2),
        },
        Planted {
            spelled: "a derived Debug",
            files: &[("src/secret.rs", "#[derive(Debug)]\npub struct SecretValue(Vec<u8>);")],
            rule: rules::SHOWN,
            at: ("src/secret.rs", 1),
        },
    ]);
}

#[test]
fn a_system_is_reached_from_its_folder_only() {
    let rule = rules::OWNED;
    let at = ("src/engine/mod.rs", 2);
    assert_found(&[
        Planted { spelled: "HTTP", files: &[("src/engine/mod.rs", "\nuse reqwest::Client;")], rule, at },
        Planted {
            spelled: "a provider's client",
            files: &[("src/engine/mod.rs", "use vaultrs as v;\nfn f() { v::kv2::read(); }")],
            rule,
            at,
        },
        Planted { spelled: "processes", files: &[("src/engine/mod.rs", "\nuse std::process::Command;")], rule, at },
    ]);
}

#[test]
fn pure_layers_have_no_clock_no_input_and_no_async() {
    let rule = rules::IMPURE;
    let at = ("src/schedule/mod.rs", 2);
    assert_found(&[
        Planted { spelled: "async fn", files: &[("src/schedule/mod.rs", "\nasync fn f() {}")], rule, at },
        Planted { spelled: "async block", files: &[("src/schedule/mod.rs", "fn f() {\n    let x = async { 1 };\n}")], rule, at },
        Planted { spelled: "async in a macro", files: &[("src/schedule/mod.rs", "fn f() {\n    run!(x => async { 1 });\n}")], rule, at },
        Planted { spelled: "async in a trait", files: &[("src/schedule/mod.rs", "trait T {\n    async fn f();\n}")], rule, at },
        Planted { spelled: "files", files: &[("src/schedule/mod.rs", "\nuse std::fs;")], rule, at },
        Planted { spelled: "files by alias", files: &[("src/schedule/mod.rs", "use std as s;\nfn f() { s::fs::read(\"x\"); }")], rule, at },
        Planted { spelled: "files by glob", files: &[("src/schedule/mod.rs", "\nuse std::*;")], rule, at },
        Planted { spelled: "network", files: &[("src/schedule/mod.rs", "\nfn f(x: std::net::TcpStream) {}")], rule, at },
        Planted { spelled: "core's network", files: &[("src/schedule/mod.rs", "\nuse core::net::IpAddr;")], rule, at },
        Planted { spelled: "runtime", files: &[("src/schedule/mod.rs", "\nuse tokio::sync::Mutex;")], rule, at },
        Planted { spelled: "client", files: &[("src/schedule/mod.rs", "\nfn f(c: &reqwest::Client) {}")], rule, at },
        Planted { spelled: "randomness", files: &[("src/schedule/mod.rs", "\nuse aws_lc_rs::rand::fill;")], rule, at },
        Planted { spelled: "wall clock", files: &[("src/schedule/mod.rs", "\nfn f() { std::time::SystemTime::now(); }")], rule, at },
        Planted {
            spelled: "wall clock of jiff",
            files: &[("src/schedule/mod.rs", "use jiff::Timestamp as T;\nfn f() { T::now(); }")],
            rule,
            at,
        },
        Planted {
            spelled: "clock handed on",
            files: &[("src/schedule/mod.rs", "use std::time::*;\nfn f() { g(Instant::now) }")],
            rule,
            at,
        },
        Planted {
            spelled: "clock of a parent",
            files: &[
                ("src/schedule/mod.rs", "use jiff::Timestamp;\nmod slots;"),
                ("src/schedule/slots.rs", "use super::*;\n\nfn f() { Timestamp::now(); }"),
            ],
            rule,
            at: ("src/schedule/slots.rs", 3),
        },
        Planted {
            spelled: "clock in a macro",
            files: &[("src/schedule/mod.rs", "fn f() {\n    dbg!(k8s_openapi::jiff::Timestamp::now());\n}")],
            rule,
            at,
        },
        Planted { spelled: "hidden clock", files: &[("src/schedule/mod.rs", "fn f(x: X) {\n    x.elapsed();\n}")], rule, at },
        Planted { spelled: "future by hand", files: &[("src/schedule/mod.rs", "\nfn f() -> impl std::future::Future {}")], rule, at },
        Planted { spelled: "log", files: &[("src/schedule/mod.rs", "fn f() {\n    tracing::info!(\"x\");\n}")], rule, at },
        Planted {
            spelled: "a part of the engine that decides",
            files: &[("src/engine/plan/record.rs", "\nuse tokio::fs;")],
            rule,
            at: ("src/engine/plan/record.rs", 2),
        },
        Planted { spelled: "vocabulary", files: &[("src/name.rs", "\nuse tokio::fs;")], rule, at: ("src/name.rs", 2) },
    ]);
}

#[test]
fn the_environment_has_one_reader() {
    let rule = rules::ENVIRONMENT;
    let at = ("src/backend/env.rs", 2);
    assert_found(&[
        Planted { spelled: "use", files: &[("src/backend/env.rs", "\nuse std::env;")], rule, at },
        Planted { spelled: "full path", files: &[("src/backend/env.rs", "fn f() {\n    std::env::vars_os();\n}")], rule, at },
        Planted { spelled: "alias", files: &[("src/backend/env.rs", "use std as s;\nfn f() { s::env::var(\"X\"); }")], rule, at },
        Planted {
            spelled: "macro",
            files: &[("src/backend/env.rs", "fn f() {\n    format!(\"{:?}\", std::env::var(\"X\"));\n}")],
            rule,
            at,
        },
        Planted {
            spelled: "re-export",
            files: &[("src/config.rs", "pub use std::env as variables;"), ("src/main.rs", "\nuse keyferry::config::variables;")],
            rule,
            at: ("src/main.rs", 2),
        },
        Planted {
            spelled: "clap",
            files: &[("src/cli/mod.rs", "struct A {\n    #[arg(long, env = \"KEYFERRY_X\")]\n    x: u8,\n}")],
            rule,
            at: ("src/cli/mod.rs", 2),
        },
    ]);
    assert_clean(&[("src/cli/mod.rs", "const V: &str = std::env!(\"CARGO_PKG_VERSION\");\nconst W: &str = env!(\"X\");")]);
}

#[test]
fn anyhow_is_for_main_and_cli() {
    let rule = rules::ANYHOW;
    let at = ("src/cluster/mod.rs", 2);
    assert_found(&[
        Planted { spelled: "use", files: &[("src/cluster/mod.rs", "\nuse anyhow::Context as _;")], rule, at },
        Planted { spelled: "full path", files: &[("src/cluster/mod.rs", "\nfn f() -> anyhow::Result<()> { Ok(()) }")], rule, at },
        Planted { spelled: "macro", files: &[("src/cluster/mod.rs", "fn f() {\n    anyhow::bail!(\"x\");\n}")], rule, at },
        Planted {
            spelled: "re-export",
            files: &[("src/cli/mod.rs", "pub use anyhow::Result as Done;"), ("src/config.rs", "\n\nuse crate::cli::Done;")],
            rule,
            at: ("src/config.rs", 3),
        },
    ]);
    assert_clean(&[("src/main.rs", "fn main() -> anyhow::Result<()> { Ok(()) }"), ("src/cli/run.rs", "use anyhow::Context;")]);
}

#[test]
fn drawers_and_code_from_elsewhere_are_found() {
    assert_found(&[
        Planted { spelled: "file", files: &[("src/engine/utils.rs", "")], rule: rules::DRAWER, at: ("src/engine/utils.rs", 1) },
        Planted { spelled: "folder", files: &[("src/helpers/mod.rs", "")], rule: rules::DRAWER, at: ("src/helpers/mod.rs", 1) },
        Planted { spelled: "inline", files: &[("src/name.rs", "\nmod common {}")], rule: rules::DRAWER, at: ("src/name.rs", 2) },
        Planted {
            spelled: "path attribute",
            files: &[("src/access/mod.rs", "\n#[path = \"../cluster/mod.rs\"]\nmod other;")],
            rule: rules::FOREIGN,
            at: ("src/access/mod.rs", 2),
        },
        Planted {
            spelled: "path attribute under a condition",
            files: &[("src/access/mod.rs", "\n#[cfg_attr(all(), path = \"../cluster/mod.rs\")]\nmod other;")],
            rule: rules::FOREIGN,
            at: ("src/access/mod.rs", 2),
        },
        Planted {
            spelled: "a path put together by a macro",
            files: &[("src/access/mod.rs", "macro_rules! at {\n    ($a:ident, $b:ident) => { $a::$b };\n}")],
            rule: rules::FOREIGN,
            at: ("src/access/mod.rs", 2),
        },
        Planted {
            spelled: "include",
            files: &[("src/access/mod.rs", "\ninclude!(\"../cluster/mod.rs\");")],
            rule: rules::FOREIGN,
            at: ("src/access/mod.rs", 2),
        },
        Planted {
            spelled: "the library's file in the binary",
            files: &[("src/main.rs", "\nmod engine;")],
            rule: rules::FOREIGN,
            at: ("src/main.rs", 2),
        },
        Planted { spelled: "unknown folder", files: &[("src/vault/mod.rs", "")], rule: rules::UNKNOWN, at: ("src/vault/mod.rs", 1) },
    ]);
    let named = [Source::new("e2e/common/wait.rs", ""), Source::new("tests/helpers.rs", ""), Source::new("e2e/harness/mod.rs", "")];
    let found = rules::check_file_names(&named);
    assert_eq!(found.iter().map(|finding| finding.file.as_str()).collect::<Vec<_>>(), ["e2e/common/wait.rs", "tests/helpers.rs"]);
}

#[test]
fn a_list_entry_that_nothing_uses_is_found() {
    let files = [
        ("src/digest.rs", "pub fn hex() {}"),
        ("src/governor/mod.rs", "use crate::metrics::Metrics;"),
        ("src/metrics/mod.rs", ""),
        ("src/backend/mod.rs", ""),
    ];
    let sources: Vec<Source> = files.iter().map(|(path, text)| Source::new(path, text)).collect();
    let found: Vec<String> = rules::check_lists(&Crate::parse(&sources)).into_iter().map(|finding| finding.to_string()).collect();
    assert!(found.iter().any(|text| text.starts_with("src/digest.rs:1: list entry that nothing uses")), "{found:#?}");
    assert!(found.iter().any(|text| text.contains("governor → backend is listed in SIBLINGS")), "{found:#?}");
    assert!(!found.iter().any(|text| text.contains("governor → metrics")), "{found:#?}");
}

#[test]
fn a_file_without_a_header_is_found() {
    let sources = [
        Source::new("src/name.rs", "use std::fmt;"),
        Source::new("src/fault.rs", "//! Faults."),
        Source::new("src/access/tests.rs", "use super::*;"),
    ];
    let found = rules::check_headers(&sources);
    assert_eq!(found.iter().map(|finding| finding.file.as_str()).collect::<Vec<_>>(), ["src/name.rs"]);
}

#[test]
fn a_finding_names_place_rule_and_remedy() {
    let found = check(&[("src/access/mod.rs", "\n\nuse crate::cluster::Objects;")]);
    let [finding] = found.as_slice() else { panic!("one violation, one finding: {found:?}") };
    let text = finding.to_string();
    assert!(text.starts_with("src/access/mod.rs:3: forbidden import: access uses `cluster::Objects`"), "{text}");
    assert!(text.contains("Remedy: `cluster` is above `access`"), "{text}");
}

#[test]
fn clean_code_passes() {
    assert_clean(&[
        (
            "src/lib.rs",
            "pub mod access;\npub mod backend;\npub mod cluster;\npub mod config;\npub mod engine;\npub mod fault;\npub mod name;\npub mod secret;\npub mod select;",
        ),
        ("src/main.rs", "use keyferry::config::Config;\nfn main() -> anyhow::Result<()> { Config::read()?.run() }"),
        ("src/name.rs", "pub struct Name(String);"),
        (
            "src/secret.rs",
            "pub struct SecretValue(Vec<u8>);\nimpl std::fmt::Debug for SecretValue {}\nimpl From<Vec<u8>> for SecretValue {}\nimpl SecretValue {\n    pub fn new(b: Vec<u8>) -> Self { Self(b) }\n    pub fn expose(&self) -> &[u8] { &self.0 }\n    pub fn len(&self) -> usize { 0 }\n}",
        ),
        ("src/fault.rs", "use crate::name::Name;\npub struct Fault(Name);"),
        (
            "src/access/mod.rs",
            "use std::collections::BTreeMap;\nuse jiff::Timestamp;\nuse crate::name::Name;\nmod rules;\npub use rules::judge;\n#[cfg(test)]\nmod tests;",
        ),
        (
            "src/access/rules.rs",
            "use super::{Name, Timestamp};\npub fn judge(name: &Name, now: Timestamp) -> bool { vec![name].is_empty() && now < now }",
        ),
        (
            "src/access/tests.rs",
            "use super::*;\nfn f(v: crate::secret::SecretValue) { v.expose(); jiff::Timestamp::now(); std::fs::read(\"x\"); }",
        ),
        ("src/select/mod.rs", "pub struct Moment;\nimpl Moment { pub fn now() -> Self { Self } }\nfn f() { Moment::now(); }"),
        (
            "src/backend/mod.rs",
            "pub mod env;\npub mod fake;\npub trait Backend { async fn get(&self); }\npub fn all() { env::new(); fake::new(); }",
        ),
        ("src/backend/env.rs", "use super::Backend;\npub fn new() {}"),
        ("src/backend/fake.rs", "use crate::secret::SecretValue;\npub fn new() {}"),
        (
            "src/cluster/mod.rs",
            "use kube::{Api, Client};\nmod apply;\npub struct Cluster { client: Client }\nfn pods(c: Client) -> Api<Pod> { Api::all(c) }",
        ),
        ("src/cluster/apply.rs", "pub(super) fn secrets(c: kube::Client) -> kube::Api<Secret> { kube::Api::all(c) }"),
        ("src/engine/mod.rs", "pub mod fetch;\npub mod plan;\npub use fetch::Snapshot;\npub fn run() { fetch::fetch(); plan::plan(); }"),
        ("src/engine/fetch.rs", "use crate::access::judge;\nuse crate::backend::Backend;\npub struct Snapshot;\npub fn fetch() {}"),
        ("src/engine/plan.rs", "use super::fetch::Snapshot;\nuse crate::{access::judge, select};\npub fn plan() {}"),
        ("src/cache/mod.rs", "#[cfg(test)]\nfn shown(v: crate::secret::SecretValue) -> usize { v.expose().len() }"),
        ("src/config.rs", "use std::env;\npub struct Config { #[arg(long, env = \"KEYFERRY_X\")] x: u8 }"),
        ("src/cli/store.rs", "use crate::backend::file::Store;\nuse anyhow::Context as _;"),
    ]);
}
