//! The rules, each with what it forbids and what to do instead. Lists and map are in `layers`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::layers::{self, Layer};
use super::parse::{Crate, Mention, Module, Source, What, Written};
use super::resolve::{Absolute, is_ours};

/// One broken rule at one place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    pub file: String,
    pub line: usize,
    pub rule: &'static str,
    pub found: String,
    pub remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}. Remedy: {}", self.file, self.line, self.rule, self.found, self.remedy)
    }
}

pub const IMPORT: &str = "forbidden import";
pub const CYCLE: &str = "cycle between folders";
pub const UNKNOWN: &str = "module outside the map";
pub const CLUSTER: &str = "the Kubernetes API outside cluster/";
pub const SURFACE: &str = "the Kubernetes API handed out of cluster/";
pub const EXPOSED: &str = "value exposed outside the list";
pub const SHOWN: &str = "value shown by a trait";
pub const IMPURE: &str = "I/O, async or a clock in a pure layer";
pub const ENVIRONMENT: &str = "environment read outside config.rs";
pub const ANYHOW: &str = "anyhow outside main and cli";
pub const DRAWER: &str = "module named like a drawer";
pub const FOREIGN: &str = "code from outside the module tree";
pub const OWNED: &str = "a system reached outside its folder";
pub const HEADER: &str = "file that does not say what it owns";
pub const STALE: &str = "list entry that nothing uses";

/// All findings in the crate, each once, in the order of files and lines.
pub fn check(parsed: &Crate) -> Vec<Finding> {
    let mut findings = BTreeSet::new();
    let mut edges = Edges::default();
    for module in parsed.modules.values() {
        check_module(module, &mut findings);
        for mention in &module.mentions {
            let judged = Judged { parsed, module, mention };
            judged.check(&mut findings, &mut edges);
        }
    }
    findings.extend(edges.cycles());
    findings.into_iter().collect()
}

/// Names of files and folders, also where nothing declares them.
pub fn check_file_names(sources: &[Source]) -> Vec<Finding> {
    let is_drawer = |path: &str| path.trim_end_matches(".rs").split('/').any(|part| layers::DRAWERS.contains(&part));
    sources.iter().filter(|source| is_drawer(&source.path)).map(|source| drawer(&source.path, 1, &source.path)).collect()
}

/// Files that do not begin with what they own; a module's tests own what their module does.
pub fn check_headers(sources: &[Source]) -> Vec<Finding> {
    let is_silent = |source: &&Source| !source.path.ends_with("/tests.rs") && !source.text.starts_with("//!");
    let finding = |source: &Source| Finding {
        file: source.path.clone(),
        line: 1,
        rule: HEADER,
        found: "the first line is code".to_owned(),
        remedy: "begin with `//!`: what the file owns, what must not be there".to_owned(),
    };
    sources.iter().filter(is_silent).map(finding).collect()
}

/// Entries of the lists that no code needs any more: a list that only grows protects nothing.
pub fn check_lists(parsed: &Crate) -> Vec<Finding> {
    let exposes = |file: &str| {
        let modules = parsed.modules.values().filter(|module| module.file == file);
        modules.flat_map(|module| &module.mentions).any(is_accessor)
    };
    let unused = layers::EXPOSING.iter().filter(|(file, _)| !exposes(file));
    let mut findings: Vec<Finding> =
        unused.map(|(file, _)| stale(file, "it is listed in EXPOSING and exposes no value".to_owned())).collect();
    findings.extend(stale_edges(parsed, layers::SIBLINGS, "SIBLINGS"));
    findings.extend(stale_edges(parsed, layers::EXCEPTIONS, "EXCEPTIONS"));
    findings
}

/// Listed edges between folders that are both there, and that no line needs. Folders to come may be listed before they are there.
fn stale_edges(parsed: &Crate, list: &[(&str, &str, &str)], name: &str) -> Vec<Finding> {
    let is_there = |part: &str| parsed.modules.keys().any(|path| is_within(path, part));
    let unused = list.iter().filter(|(from, to, _)| is_there(from) && is_there(to) && !is_used(parsed, from, to));
    unused
        .map(|(from, to, _)| stale("tests/architecture/layers.rs", format!("{from} → {to} is listed in {name} and nothing uses it")))
        .collect()
}

fn is_used(parsed: &Crate, from: &str, to: &str) -> bool {
    let users = parsed.modules.values().filter(|module| is_within(&module.path, from));
    let mut mentions = users.flat_map(|module| module.mentions.iter().map(move |mention| (module, mention)));
    mentions.any(|(module, mention)| match &mention.what {
        What::Path(path) | What::Import(path) | What::Glob(path) | What::MacroName(path) => {
            parsed.places(module, path).iter().any(|place| is_ours(place) && is_within(place, to))
        }
        _ => false,
    })
}

fn is_accessor(mention: &Mention) -> bool {
    !mention.is_test && matches!(&mention.what, What::Method(name) if layers::ACCESSORS.contains(&name.as_str()))
}

fn check_module(module: &Module, findings: &mut BTreeSet<Finding>) {
    let name = module.path.last().map_or("", String::as_str);
    if layers::DRAWERS.contains(&name) {
        findings.insert(drawer(&module.file, module.line, name));
    }
    let unit = unit_of(&module.path);
    if layers::layer_of(unit).is_none() {
        findings.insert(Finding {
            file: module.file.clone(),
            line: module.line,
            rule: UNKNOWN,
            found: format!("`{unit}` is in no layer"),
            remedy: "put the code where its feature lives, or give the folder a line in UNITS of tests/architecture/layers.rs".to_owned(),
        });
    }
}

/// One mention in its module, ready to be judged.
struct Judged<'a> {
    parsed: &'a Crate,
    module: &'a Module,
    mention: &'a Mention,
}

impl Judged<'_> {
    fn check(&self, findings: &mut BTreeSet<Finding>, edges: &mut Edges) {
        match &self.mention.what {
            What::Path(path) | What::Import(path) => self.check_path(path, false, findings, edges),
            What::Glob(path) => self.check_path(path, true, findings, edges),
            What::MacroName(path) => self.check_macro(path, findings, edges),
            What::Surface(path) => self.check_surface(path, findings),
            What::Method(name) => self.check_method(name, findings),
            What::Async => self.check_async(findings),
            What::ForeignCode => self.report(findings, FOREIGN, "`#[path]` or `include!`", "declare the module where its file lies"),
            What::BuiltPath => {
                self.report(findings, FOREIGN, "`::$…` builds a path", "take a whole `$name:path`, so that the caller spells it out");
            }
            What::EnvironmentAttribute => self.check_environment_attribute(findings),
            What::SecretTrait(name) => self.check_secret_trait(name, findings),
            What::SecretDerive(name) => self.check_secret_derive(name, findings),
            What::SecretAccessor(name) => self.check_secret_accessor(name, findings),
            What::SecretConversion(name) => self.check_secret_conversion(name, findings),
            What::ModuleFile(name) => self.check_module_file(name, findings),
        }
    }

    fn report(&self, findings: &mut BTreeSet<Finding>, rule: &'static str, found: impl Into<String>, remedy: impl Into<String>) {
        findings.insert(Finding {
            file: self.module.file.clone(),
            line: self.mention.line,
            rule,
            found: found.into(),
            remedy: remedy.into(),
        });
    }

    fn check_path(&self, written: &Written, is_glob: bool, findings: &mut BTreeSet<Finding>, edges: &mut Edges) {
        for place in self.parsed.places(self.module, written) {
            if is_ours(&place) {
                self.check_import(written, &place, findings, edges);
            } else {
                self.check_outside(written, &place, is_glob, findings);
            }
        }
    }

    /// `env!` and `option_env!` are read by the compiler, every other macro is code of its path.
    fn check_macro(&self, written: &Written, findings: &mut BTreeSet<Finding>, edges: &mut Edges) {
        let name = written.segments.last().map_or("", String::as_str);
        if !matches!(name, "env" | "option_env") {
            self.check_path(written, false, findings, edges);
        }
    }

    fn check_import(&self, written: &Written, place: &Absolute, findings: &mut BTreeSet<Finding>, edges: &mut Edges) {
        let (from, to) = (self.unit(), self.unit_of_place(place));
        if let Err(reason) = may_use(self.parsed, &self.module.path, place, to) {
            let found = format!("{} uses `{}`{}", shown(&self.module.path), shown(place), detour(written, place));
            self.report(findings, IMPORT, found, reason);
        } else if from != to && !self.mention.is_test {
            edges.note(from, to, &self.module.file, self.mention.line);
        }
    }

    fn check_outside(&self, written: &Written, place: &Absolute, is_glob: bool, findings: &mut BTreeSet<Finding>) {
        let found = format!("`{}`{}", shown(place), detour(written, place));
        let hits = |list: &[&str]| list.iter().any(|forbidden| is_below(place, forbidden, is_glob));
        if hits(layers::CLUSTER_ONLY) && !self.may_speak_to_cluster() {
            self.report(findings, CLUSTER, found.clone(), "call a function of `cluster`, or add one there");
        }
        if hits(layers::EXPOSING_TRAITS) && !self.may_expose() {
            self.report(findings, EXPOSED, found.clone(), EXPOSED_REMEDY);
        }
        for (what, owners, why) in layers::OWNED {
            if is_below(place, what, is_glob) && !self.is_in(owners) && !self.mention.is_test {
                let remedy = format!("{why}: it belongs to {}", owners.join(", "));
                self.report(findings, OWNED, found.clone(), remedy);
            }
        }
        if is_below(place, "std::env", false) && !self.may_read_environment() {
            self.report(findings, ENVIRONMENT, found.clone(), "read it in config.rs and take it as an argument");
        }
        if is_below(place, "anyhow", false) && !self.is_in(layers::ANYHOW) {
            self.report(findings, ANYHOW, found.clone(), "give the module an error enum with `thiserror`");
        }
        if self.must_be_pure() && (hits(layers::IMPURE) || is_clock(place)) {
            self.report(findings, IMPURE, found, IMPURE_REMEDY);
        }
    }

    /// `pub` and `pub(crate)` in `cluster/`: what leaves the folder must not be a handle to speak with.
    fn check_surface(&self, written: &Written, findings: &mut BTreeSet<Finding>) {
        if self.unit() != layers::CLUSTER {
            return;
        }
        let is_handle = |place: &Absolute| layers::HANDLES.iter().any(|handle| is_below(place, handle, false));
        if self.parsed.places(self.module, written).iter().any(is_handle) {
            let remedy = "make it `pub(super)`, and offer a function that does what the caller wants";
            self.report(findings, SURFACE, format!("`{}` in a public signature", written.segments.join("::")), remedy);
        }
    }

    fn check_method(&self, name: &str, findings: &mut BTreeSet<Finding>) {
        if layers::ACCESSORS.contains(&name) && !self.may_expose() {
            self.report(findings, EXPOSED, format!("`{name}`"), EXPOSED_REMEDY);
        }
        if layers::CLIENT_REQUESTS.contains(&name) && !self.may_speak_to_cluster() {
            self.report(findings, CLUSTER, format!("`{name}`"), "call a function of `cluster`, or add one there");
        }
        if layers::CLOCK_METHODS.contains(&name) && self.must_be_pure() {
            self.report(findings, IMPURE, format!("`{name}` reads a clock"), IMPURE_REMEDY);
        }
    }

    fn check_async(&self, findings: &mut BTreeSet<Finding>) {
        if self.must_be_pure() {
            self.report(findings, IMPURE, "`async` or `await`", IMPURE_REMEDY);
        }
    }

    fn check_environment_attribute(&self, findings: &mut BTreeSet<Finding>) {
        if !self.may_read_environment() {
            self.report(findings, ENVIRONMENT, "`env` in an argument's attribute", "declare the flag in config.rs");
        }
    }

    fn check_secret_trait(&self, name: &str, findings: &mut BTreeSet<Finding>) {
        if !layers::QUIET_TRAITS.contains(&name) {
            self.report(findings, SHOWN, format!("`{name}` for {}", layers::SECRET_TYPE), ONE_ACCESSOR);
        }
    }

    fn check_secret_derive(&self, name: &str, findings: &mut BTreeSet<Finding>) {
        if layers::NOT_DERIVED.contains(&name) {
            self.report(findings, SHOWN, format!("derived `{name}` for {}", layers::SECRET_TYPE), "write it by hand, with a fixed text");
        } else {
            self.check_secret_trait(name, findings);
        }
    }

    fn check_secret_accessor(&self, name: &str, findings: &mut BTreeSet<Finding>) {
        if !layers::ACCESSORS.contains(&name) {
            self.report(findings, SHOWN, format!("`{name}` of {}", layers::SECRET_TYPE), ONE_ACCESSOR);
        }
    }

    fn check_secret_conversion(&self, name: &str, findings: &mut BTreeSet<Finding>) {
        self.report(findings, SHOWN, format!("`{name}` out of {}", layers::SECRET_TYPE), ONE_ACCESSOR);
    }

    /// The library's files compiled once more into the binary would escape the map.
    fn check_module_file(&self, name: &str, findings: &mut BTreeSet<Finding>) {
        if self.unit() == layers::BINARY {
            self.report(findings, FOREIGN, format!("`mod {name};` in the binary"), "declare it in lib.rs and use it as `keyferry::…`");
        }
    }

    fn unit(&self) -> &str {
        unit_of(&self.module.path)
    }

    fn unit_of_place<'p>(&self, place: &'p Absolute) -> &'p str {
        let is_module = place.len() > 1 && self.parsed.modules.contains_key(&place[..2]);
        match unit_of(place) {
            unit if is_module || layers::layer_of(unit).is_some() => unit,
            _ => layers::LIBRARY,
        }
    }

    fn is_in(&self, units: &[&str]) -> bool {
        units.contains(&self.unit())
    }

    fn must_be_pure(&self) -> bool {
        let is_pure_layer = matches!(layers::layer_of(self.unit()), Some(Layer::Vocabulary | Layer::Decision));
        let is_pure_part = layers::PURE.iter().any(|part| is_within(&self.module.path, part));
        (is_pure_layer || is_pure_part) && !self.mention.is_test
    }

    /// A macro may be expanded outside the folder that defines it.
    fn may_speak_to_cluster(&self) -> bool {
        self.unit() == layers::CLUSTER && !self.mention.is_macro_body
    }

    fn may_expose(&self) -> bool {
        let is_listed = layers::EXPOSING.iter().any(|(file, _)| *file == self.module.file);
        self.mention.is_test || (is_listed && !self.mention.is_macro_body)
    }

    fn may_read_environment(&self) -> bool {
        self.unit() == layers::ENVIRONMENT || self.mention.is_test
    }
}

const EXPOSED_REMEDY: &str =
    "pass the SecretValue on to a file of EXPOSING in tests/architecture/layers.rs; a new file there needs a reason";
const ONE_ACCESSOR: &str = "there is one accessor, so that every use of a value can be found";
const IMPURE_REMEDY: &str = "take clock, randomness and what was read as arguments; the I/O belongs to an adapter";

/// Whether a module may use a path of ours, else what to do instead.
fn may_use(parsed: &Crate, from: &[String], to: &Absolute, to_unit: &str) -> Result<(), String> {
    let from_unit = unit_of(from);
    if from_unit == to_unit {
        return may_use_inside(parsed, from, to);
    }
    let (Some(from_layer), Some(to_layer)) = (layers::layer_of(from_unit), layers::layer_of(to_unit)) else { return Ok(()) };
    if is_exception(from, to) || is_listed_sibling(from_unit, to_unit) {
        return Ok(());
    }
    if layers::OUTSIDERS.contains(&from_unit) && layers::BEHIND_ENGINE.contains(&to_unit) {
        return Err(format!("`{from_unit}` reaches backends only through `engine`"));
    }
    if layers::CONTENT_DECISIONS.contains(&to_unit) && shown(from) != layers::COMPOSER && !shown(from).starts_with("engine::plan::") {
        return Err(format!("only `{}` composes `{to_unit}`; use what it returns", layers::COMPOSER));
    }
    match from_layer.cmp(&to_layer) {
        std::cmp::Ordering::Greater => Ok(()),
        std::cmp::Ordering::Less => {
            Err(format!("`{to_unit}` is above `{from_unit}`: take what you need as an argument, or move the type down"))
        }
        std::cmp::Ordering::Equal if from_layer == Layer::Vocabulary => Ok(()),
        std::cmp::Ordering::Equal if from_layer == Layer::Decision => {
            Err(format!("decisions do not know each other: `{}` puts them together, shared types are vocabulary", layers::COMPOSER))
        }
        std::cmp::Ordering::Equal => Err(format!(
            "`{from_unit}` does not know its sibling `{to_unit}`; an allowed edge stands in SIBLINGS of tests/architecture/layers.rs"
        )),
    }
}

/// Inside `backend` providers do not know each other; inside `engine` a stage does not know a later one and calls none.
fn may_use_inside(parsed: &Crate, from: &[String], to: &Absolute) -> Result<(), String> {
    match unit_of(from) {
        "backend" => may_use_provider(part_of(from), part_of(to)),
        "engine" => may_use_stage(parsed, part_of(from), part_of(to), to),
        _ => Ok(()),
    }
}

fn may_use_provider(from: &str, to: &str) -> Result<(), String> {
    let are_two = from != to && [from, to].iter().all(|part| layers::PROVIDERS.contains(part));
    if are_two {
        Err(format!("the providers `{from}` and `{to}` do not know each other: what they share belongs to `backend`"))
    } else {
        Ok(())
    }
}

fn may_use_stage(parsed: &Crate, from: &str, to: &str, path: &Absolute) -> Result<(), String> {
    let order = |stage: &str| layers::STAGES.iter().position(|known| *known == stage);
    let (Some(here), Some(there)) = (order(from), order(to)) else { return Ok(()) };
    if there > here {
        return Err(format!("stage `{from}` comes before `{to}`: it returns what `{to}` takes, and knows nothing of it"));
    }
    let owner = parsed.deepest_module(path);
    let calls = parsed.modules.get(&path[..owner]).zip(path.get(owner)).is_some_and(|(module, name)| module.functions.contains(name));
    if there < here && calls {
        return Err(format!("no stage calls an earlier one: `{from}` takes the result of `{to}` as an argument"));
    }
    Ok(())
}

fn is_listed_sibling(from: &str, to: &str) -> bool {
    layers::SIBLINGS.iter().any(|(a, b, _)| *a == from && *b == to)
}

fn is_exception(from: &[String], to: &Absolute) -> bool {
    layers::EXCEPTIONS.iter().any(|(a, b, _)| is_within(from, a) && is_within(to, b))
}

/// Whether a path is the named one or below it; the library's root is everything right below it that is no folder of the map.
fn is_within(path: &[String], part: &str) -> bool {
    let name = shown(path);
    name == part || name.strip_prefix(part).is_some_and(|rest| rest.starts_with("::")) || (part == layers::LIBRARY && name == "crate")
}

/// The folder of a path: what stands right below the root.
fn unit_of(path: &[String]) -> &str {
    match path {
        [root, ..] if root == layers::BINARY => layers::BINARY,
        [_, unit, ..] => unit,
        _ => layers::LIBRARY,
    }
}

fn part_of(path: &[String]) -> &str {
    path.get(2).map_or("", String::as_str)
}

fn shown(path: &[String]) -> String {
    match path {
        [root, rest @ ..] if root == "crate" && !rest.is_empty() => rest.join("::"),
        _ => path.join("::"),
    }
}

fn detour(written: &Written, place: &Absolute) -> String {
    let text = written.segments.join("::");
    if text.trim_start_matches("crate::") == shown(place) { String::new() } else { format!(", written `{text}`") }
}

/// Whether a path is the forbidden one or below it; a glob also reaches what is right below itself.
fn is_below(place: &[String], forbidden: &str, is_glob: bool) -> bool {
    let forbidden: Vec<&str> = forbidden.split("::").collect();
    let standard = |segment: &str| if matches!(segment, "core" | "alloc") { "std".to_owned() } else { segment.to_owned() };
    let agrees = place.iter().zip(&forbidden).enumerate().all(|(at, (a, b))| if at == 0 { standard(a) == *b } else { a == b });
    agrees && (place.len() >= forbidden.len() || (is_glob && place.len() + 1 == forbidden.len()))
}

/// `jiff::Timestamp::now`, `std::time::Instant::now`; a type of ours that no name leads to begins with a capital letter.
fn is_clock(place: &[String]) -> bool {
    let [root, .., last] = place else { return false };
    root.starts_with(|first: char| first.is_lowercase()) && layers::CLOCK_FUNCTIONS.contains(&last.as_str())
}

fn drawer(file: &str, line: usize, name: &str) -> Finding {
    Finding {
        file: file.to_owned(),
        line,
        rule: DRAWER,
        found: format!("`{name}`"),
        remedy: "name the module after what it owns".to_owned(),
    }
}

fn stale(file: &str, found: String) -> Finding {
    Finding { file: file.to_owned(), line: 1, rule: STALE, found, remedy: "remove the entry".to_owned() }
}

/// Who uses whom among the folders, with one place for each edge.
#[derive(Default)]
struct Edges {
    places: BTreeMap<(String, String), (String, usize)>,
}

impl Edges {
    fn note(&mut self, from: &str, to: &str, file: &str, line: usize) {
        self.places.entry((from.to_owned(), to.to_owned())).or_insert_with(|| (file.to_owned(), line));
    }

    /// One finding for each edge that closes a circle.
    fn cycles(&self) -> Vec<Finding> {
        let closing = self.places.iter().filter_map(|((from, to), place)| self.way(to, from).map(|way| (way, place)));
        closing
            .map(|(way, (file, line))| {
                let remedy = "break the circle: one direction becomes an argument or a type in the vocabulary".to_owned();
                let found = format!("{} → {}", way.last().cloned().unwrap_or_default(), way.join(" → "));
                Finding { file: file.clone(), line: *line, rule: CYCLE, found, remedy }
            })
            .collect()
    }

    /// A way along the edges, both ends included.
    fn way(&self, from: &str, to: &str) -> Option<Vec<String>> {
        let mut ways = vec![vec![from.to_owned()]];
        let mut seen = BTreeSet::from([from.to_owned()]);
        while let Some(way) = ways.pop() {
            let last = way.last().expect("a way has its start");
            if last == to {
                return Some(way);
            }
            for (_, next) in self.places.keys().filter(|(start, _)| start == last) {
                if seen.insert(next.clone()) {
                    ways.push([way.clone(), vec![next.clone()]].concat());
                }
            }
        }
        None
    }
}
