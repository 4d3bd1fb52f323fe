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

    /// Whether it certainly takes every name below its path, so that nothing is read with them that may not be.
    #[must_use]
    pub fn takes_all(&self) -> bool {
        let beginning = self.path.map_or_else(String::new, |path| format!("{}/", path.as_str().trim_end_matches('/')));
        let is_allowed = |patterns: &Vec<Pattern>| patterns.iter().any(|pattern| pattern.admits_all(&beginning));
        self.regex.is_none() && self.allowed.as_ref().is_none_or(is_allowed)
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

#[cfg(test)]
mod tests {
    use super::Search;
    use crate::{
        item::{FindRef, Listing},
        name::{ProviderKind, RemoteKey},
    };

    #[test]
    fn a_search_takes_all_only_where_every_name_below_its_path_is_certainly_allowed() {
        let cases = [
            (Some("/app"), None, None, true),
            (Some("/app/"), None, None, true),
            (None, None, None, true),
            (Some("/app"), Some("."), None, false),
            (Some("/app"), None, Some(vec!["/app/**"]), true),
            (Some("/app/shop"), None, Some(vec!["/other", "/app/**"]), true),
            (None, None, Some(vec!["**"]), true),
            (Some("/app"), None, Some(vec![]), false),
            (Some("/app"), None, Some(vec!["/app/*"]), false),
            (Some("/app"), None, Some(vec!["/app/**/db"]), false),
            (Some("/app"), None, Some(vec!["/app/a**"]), false),
            (Some("/app"), None, Some(vec!["/app"]), false),
            (Some("/apps"), None, Some(vec!["/app/**"]), false),
            (None, None, Some(vec!["/app/**"]), false),
        ];
        for (path, regexp, allowed, expected) in cases {
            let key = |path| RemoteKey::parse(ProviderKind::AwsParameterStore, path).unwrap();
            let find = FindRef {
                provider: ProviderKind::AwsParameterStore,
                listing: Listing { path: path.map(key), ..Listing::default() },
                regexp: regexp.map(str::to_owned),
                allowed: allowed.as_ref().map(|patterns: &Vec<&str>| patterns.iter().map(ToString::to_string).collect()),
                is_metadata: false,
            };
            assert_eq!(Search::new(&find).unwrap().takes_all(), expected, "{find:?}");
        }
    }
}
