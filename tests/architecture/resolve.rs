//! From a written path to what it may stand for: through aliases, globs, type aliases and chains of re-exports.
//!
//! Names are resolved generously: where several things may be meant all of them are followed, because a checker that
//! guesses must guess on the safe side. Every stop on the way is part of the answer, so a detour through an allowed module
//! does not launder a forbidden one, and a forbidden module cannot be entered for something allowed that it passes on.

use std::collections::BTreeSet;

use super::parse::{Crate, Module, Written};

/// A path from its root: `["crate", "engine", "Plan"]`, or `["kube", "Api"]` for another crate.
pub type Absolute = Vec<String>;

/// Longer chains of aliases than this are a mistake, or an attempt.
const DEEPEST: usize = 32;

pub fn is_ours(path: &[String]) -> bool {
    path.first().is_some_and(|root| root == "crate" || root == super::layers::BINARY)
}

impl Crate {
    /// Everything that `written` may stand for in `module`, with all stops on the way.
    pub fn places(&self, module: &Module, written: &Written) -> BTreeSet<Absolute> {
        let mut found = BTreeSet::new();
        for start in self.absolute(module, written, 0) {
            self.follow(&start, &mut found, 0);
        }
        found
    }

    /// Roots a written path: by its first segment, the module's own names, its globs, else as another crate's.
    fn absolute(&self, module: &Module, written: &Written, depth: usize) -> Vec<Absolute> {
        let Some((first, rest)) = written.segments.split_first() else { return Vec::new() };
        if depth > DEEPEST {
            return Vec::new();
        }
        if written.is_rooted {
            return vec![outside(written)];
        }
        match first.as_str() {
            "crate" => vec![joined(&module.path[..1], rest)],
            "self" => vec![below(&module.path, rest)],
            "super" => vec![below(&module.path, &written.segments)],
            name => self.absolute_name(module, name, written, rest, depth),
        }
    }

    fn absolute_name(&self, module: &Module, name: &str, written: &Written, rest: &[String], depth: usize) -> Vec<Absolute> {
        let mut found = Vec::new();
        for target in module.aliases.get(name).into_iter().flatten() {
            if target.segments.first().is_some_and(|first| first == name) && !target.is_rooted {
                found.push(outside(&Written { segments: [&target.segments[..], rest].concat(), is_rooted: true }));
            } else {
                found.extend(self.absolute(module, target, depth + 1).into_iter().map(|start| joined(&start, rest)));
            }
        }
        if self.declares(module, name) {
            found.push(joined(&module.path, &written.segments));
        }
        if found.is_empty() {
            found.extend(self.through_globs(module, &written.segments, depth));
            found.push(outside(written));
        }
        found
    }

    /// What a name may be when only globs can explain it.
    fn through_globs(&self, module: &Module, segments: &[String], depth: usize) -> Vec<Absolute> {
        let bases = module.globs.iter().flat_map(|glob| self.absolute(module, glob, depth + 1));
        bases.map(|base| joined(&base, segments)).collect()
    }

    fn declares(&self, module: &Module, name: &str) -> bool {
        module.items.contains(name) || self.modules.contains_key(&joined(&module.path, &[name.to_owned()]))
    }

    /// Walks a path through our modules, and on to wherever re-exports lead.
    fn follow(&self, path: &[String], found: &mut BTreeSet<Absolute>, depth: usize) {
        if depth > DEEPEST || !found.insert(path.to_vec()) || !is_ours(path) {
            return;
        }
        let length = self.deepest_module(path);
        let (Some(module), Some(name)) = (self.modules.get(&path[..length]), path.get(length)) else { return };
        let rest = &path[length + 1..];
        for target in module.aliases.get(name).into_iter().flatten() {
            for start in self.absolute(module, target, depth + 1) {
                self.follow(&joined(&start, rest), found, depth + 1);
            }
        }
        if !module.items.contains(name) && !module.aliases.contains_key(name) {
            for start in self.through_globs(module, &path[length..], depth) {
                self.follow(&start, found, depth + 1);
            }
        }
    }

    /// How many segments of the path name a module of ours.
    pub fn deepest_module(&self, path: &[String]) -> usize {
        (1..=path.len()).rev().find(|length| self.modules.contains_key(&path[..*length])).unwrap_or(1)
    }
}

/// A path of another crate; the library under its own name is ours.
fn outside(written: &Written) -> Absolute {
    let mut path = written.segments.clone();
    if let Some(first) = path.first_mut().filter(|first| *first == "keyferry") {
        "crate".clone_into(first);
    }
    path
}

/// Climbs one module for each `super`, wherever it stands at the beginning.
fn below(base: &[String], segments: &[String]) -> Absolute {
    let climbs = segments.iter().take_while(|segment| *segment == "super").count();
    joined(&base[..base.len().saturating_sub(climbs)], &segments[climbs..])
}

fn joined(base: &[String], rest: &[String]) -> Absolute {
    [base, rest].concat()
}
