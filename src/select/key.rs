//! Keys of a Secret: what is one, and how a remote name becomes one. Pure.

/// Kubernetes' own bound.
const MAX_LENGTH: usize = 253;

/// Whether Kubernetes takes the text as a key of a Secret.
pub(super) fn is_valid(key: &str) -> bool {
    (1..=MAX_LENGTH).contains(&key.len()) && key.chars().all(is_allowed) && key != "." && !key.starts_with("..")
}

/// Every character that no key may have becomes `_`.
pub(super) fn convert(name: &str) -> String {
    name.chars().map(|character| if is_allowed(character) { character } else { '_' }).collect()
}

fn is_allowed(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '-' | '.' | '_')
}
