//! What SOPS writes about a file beside its values: for whom the data key is sealed, which values are encrypted, the MAC.

use std::collections::BTreeMap;

use regex::Regex;

use super::Flaw;

/// Fields by their path, in the flat form that SOPS gives them where a notation knows no levels: `age__list_0__map_enc`.
pub type Fields = BTreeMap<String, String>;

/// Recipients of one file that are tried.
const MOST_RECIPIENTS: usize = 1000;

pub struct Metadata {
    /// The data key, sealed for each recipient of age.
    pub recipients: Vec<String>,
    pub rule: Rule,
    pub mac: String,
    pub mac_only_encrypted: bool,
    /// Bound to the MAC.
    pub last_modified: String,
}

/// Which values are encrypted, by the names on the way to them.
pub enum Rule {
    UnencryptedSuffix(String),
    EncryptedSuffix(String),
    Unencrypted(Regex),
    Encrypted(Regex),
}

impl Rule {
    pub fn encrypts(&self, path: &[String]) -> bool {
        match self {
            Self::UnencryptedSuffix(suffix) => !path.iter().any(|name| name.ends_with(suffix)),
            Self::EncryptedSuffix(suffix) => path.iter().any(|name| name.ends_with(suffix)),
            Self::Unencrypted(pattern) => !path.iter().any(|name| pattern.is_match(name)),
            Self::Encrypted(pattern) => path.iter().any(|name| pattern.is_match(name)),
        }
    }
}

impl Metadata {
    pub fn read(fields: &Fields) -> Result<Self, Flaw> {
        if fields.is_empty() {
            return Err(Flaw::Damaged("what SOPS writes about it is missing"));
        }
        if fields.keys().any(|name| name.starts_with("key_groups")) {
            return Err(Flaw::Unsupported("key groups, between which SOPS divides the data key"));
        }
        let field = |name: &str| fields.get(name).filter(|text| !text.is_empty()).cloned();
        let needed = |name: &str| field(name).ok_or(Flaw::Damaged("what SOPS writes about it is incomplete"));
        let recipients: Vec<String> = (0..MOST_RECIPIENTS).map_while(|index| field(&format!("age__list_{index}__map_enc"))).collect();
        let metadata = Self {
            recipients,
            rule: rule(&field)?,
            mac: needed("mac")?,
            mac_only_encrypted: field("mac_only_encrypted").is_some_and(|text| text.eq_ignore_ascii_case("true")),
            last_modified: needed("lastmodified")?,
        };
        if metadata.recipients.is_empty() { Err(Flaw::NoRecipient) } else { Ok(metadata) }
    }
}

fn rule(field: &impl Fn(&str) -> Option<String>) -> Result<Rule, Flaw> {
    if ["encrypted_comment_regex", "unencrypted_comment_regex"].into_iter().any(|name| field(name).is_some()) {
        return Err(Flaw::Unsupported("values that are encrypted by their comments"));
    }
    let pattern = |text: String| Regex::new(&text).map_err(|_| Flaw::Unsupported("a regular expression that is not understood"));
    let mut rules = Vec::new();
    if let Some(suffix) = field("unencrypted_suffix") {
        rules.push(Rule::UnencryptedSuffix(suffix));
    }
    if let Some(suffix) = field("encrypted_suffix") {
        rules.push(Rule::EncryptedSuffix(suffix));
    }
    if let Some(text) = field("unencrypted_regex") {
        rules.push(Rule::Unencrypted(pattern(text)?));
    }
    if let Some(text) = field("encrypted_regex") {
        rules.push(Rule::Encrypted(pattern(text)?));
    }
    match (rules.pop(), rules.is_empty()) {
        (None, _) => Ok(Rule::UnencryptedSuffix("_unencrypted".to_owned())),
        (Some(rule), true) => Ok(rule),
        (Some(_), false) => Err(Flaw::Damaged("two rules of what is encrypted")),
    }
}
