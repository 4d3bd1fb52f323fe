//! Patterns on remote keys: what `allowedKeys` means, character by character. Pure, linear in pattern × key.

use crate::name::{ProviderKind, RemoteKey, canonical_pattern};

/// The variable that stands for the asking object's namespace.
const NAMESPACE: &str = "{namespace}";

/// The patterns as they bind one namespace: `{namespace}` replaced, then brought into the provider's canonical form.
///
/// A namespace that is no DNS label could carry `*` or `/` and widen a pattern; the API server admits none, and no pattern binds
/// it here. A pattern that can name no key (it climbs, it is empty) admits nothing and is left out.
#[must_use]
pub fn expand(patterns: &[String], provider: ProviderKind, namespace: &str) -> Vec<String> {
    if !is_dns_label(namespace) {
        return Vec::new();
    }
    patterns.iter().filter_map(|pattern| canonical_pattern(provider, &pattern.replace(NAMESPACE, namespace)).ok()).collect()
}

/// Whether one of the expanded patterns admits the key: `*` is any text without `/`, `**` any text, and `**/` also nothing at all.
#[must_use]
pub fn key_allowed(patterns: &[String], key: &RemoteKey) -> bool {
    patterns.iter().any(|pattern| Pattern::new(pattern).admits(key))
}

/// An expanded pattern that is ready for many keys.
#[derive(Clone, Debug)]
pub(super) struct Pattern(Vec<Token>);

impl Pattern {
    pub(super) fn new(expanded: &str) -> Self {
        Self(tokens(expanded))
    }

    pub(super) fn admits(&self, key: &RemoteKey) -> bool {
        admits(&self.0, key.as_str())
    }

    /// Whether it certainly admits every key that begins so.
    pub(super) fn admits_all(&self, beginning: &str) -> bool {
        self.0.last() == Some(&Token::Any) && admits(&self.0, beginning)
    }
}

fn is_dns_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Token {
    Literal(char),
    /// `*`: any text without `/`.
    Segment,
    /// `**`: any text.
    Any,
    /// The door to `**/`: may be passed by (no folder at all) or entered.
    Folders,
    /// Inside `**/`: left at a `/` only.
    InFolders,
}

/// A pattern as a row of states, one beyond the last meaning "matched".
fn tokens(pattern: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = pattern;
    while let Some(next) = rest.chars().next() {
        let stars = rest.len() - rest.trim_start_matches('*').len();
        let begins_segment = matches!(tokens.last(), None | Some(Token::Literal('/') | Token::InFolders));
        rest = match (stars, &rest[stars..]) {
            (0, _) => {
                tokens.push(Token::Literal(next));
                &rest[next.len_utf8()..]
            }
            (1, after) => {
                tokens.push(Token::Segment);
                after
            }
            (_, after) if begins_segment && after.starts_with('/') => {
                tokens.extend([Token::Folders, Token::InFolders]);
                &after[1..]
            }
            (_, after) => {
                tokens.push(Token::Any);
                after
            }
        };
    }
    tokens
}

/// Runs all ways through the pattern at once, so that no key makes it slow.
fn admits(tokens: &[Token], key: &str) -> bool {
    let mut reached = vec![false; tokens.len() + 1];
    reached[0] = true;
    pass_by(tokens, &mut reached);
    for character in key.chars() {
        let mut next = vec![false; tokens.len() + 1];
        for (at, token) in tokens.iter().enumerate().filter(|(at, _)| reached[*at]) {
            match token {
                Token::Literal(literal) => next[at + 1] |= *literal == character,
                Token::Segment => next[at] |= character != '/',
                Token::Any => next[at] = true,
                Token::Folders => {}
                Token::InFolders => {
                    next[at] = true;
                    next[at + 1] |= character == '/';
                }
            }
        }
        pass_by(tokens, &mut next);
        reached = next;
    }
    reached[tokens.len()]
}

/// Opens the states that cost no character.
fn pass_by(tokens: &[Token], reached: &mut [bool]) {
    for (at, token) in tokens.iter().enumerate() {
        if !reached[at] {
            continue;
        }
        match token {
            Token::Segment | Token::Any => reached[at + 1] = true,
            Token::Folders => {
                reached[at + 1] = true;
                reached[at + 2] = true;
            }
            Token::Literal(_) | Token::InFolders => {}
        }
    }
}
