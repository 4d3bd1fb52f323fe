//! Which names a granted search takes: below its path, matching its expression, admitted by the store's patterns. Pure.

use regex::{Regex, RegexBuilder};

use super::pattern::Pattern;
use crate::{
    fault::{Fault, Reason, quote},
    item::FindRef,
    name::RemoteKey,
};

/// Memory of one compiled expression, in bytes: a tenant writes it.
pub(super) const REGEX_LIMIT: usize = 2 << 20;

/// A search that is ready to judge names. What a listing returns is filtered by this, whatever the backend claims.
#[derive(Clone, Debug)]
pub struct Search<'a> {
    path: Option<&'a RemoteKey>,
    regex: Option<Regex>,
    allowed: Option<Vec<Pattern>>,
}

impl<'a> Search<'a> {
    /// Compiles the expression; linear time, bounded memory.
    ///
    /// # Errors
    /// `InvalidSpec` when it is no expression or too large.
    pub fn new(find: &'a FindRef) -> Result<Self, Fault> {
        let regex = find.regexp.as_deref().map(compile).transpose()?;
        let allowed = find.allowed.as_ref().map(|patterns| patterns.iter().map(|pattern| Pattern::new(pattern)).collect());
        Ok(Self { path: find.listing.path.as_ref(), regex, allowed })
    }

    /// Whether the search takes this name.
    #[must_use]
    pub fn takes(&self, name: &RemoteKey) -> bool {
        self.path.is_none_or(|path| is_below(path, name))
            && self.regex.as_ref().is_none_or(|regex| regex.is_match(name.as_str()))
            && self.allowed.as_ref().is_none_or(|patterns| patterns.iter().any(|pattern| pattern.admits(name)))
    }
}

fn is_below(path: &RemoteKey, name: &RemoteKey) -> bool {
    let path = path.as_str().trim_end_matches('/');
    name.as_str().strip_prefix(path).is_some_and(|rest| rest.len() > 1 && rest.starts_with('/'))
}

fn compile(expression: &str) -> Result<Regex, Fault> {
    RegexBuilder::new(expression).size_limit(REGEX_LIMIT).dfa_size_limit(REGEX_LIMIT).build().map_err(|error| {
        let what = match error {
            regex::Error::CompiledTooBig(_) => "is too large: simplify it or repeat less",
            _ => "is no regular expression: correct it (RE2 syntax, no look-around, no back-references)",
        };
        Fault::invalid(Reason::InvalidSpec, format!("find.name.regexp {} {what}", quote(expression)))
    })
}
