//! The input of an operation: its members, within the bounds that the vendor's models give.

use serde_json::{Map, Value};

use super::failure::{Failure, Result};

/// A JSON object; members that no operation knows are passed over, as AWS does.
pub struct Input(Map<String, Value>);

impl Input {
    pub fn parse(body: &[u8]) -> Result<Self> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(members)) => Ok(Self(members)),
            _ => Err(Failure::new("SerializationException", "")),
        }
    }

    fn member(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    pub fn has(&self, name: &str) -> bool {
        self.member(name).is_some()
    }

    /// A text of so many characters.
    pub fn text(&self, name: &str, min: usize, max: usize) -> Result<Option<&str>> {
        let Some(value) = self.member(name) else { return Ok(None) };
        let text = value.as_str().ok_or_else(|| Failure::new("SerializationException", "STRING_VALUE expected"))?;
        within(name, text.chars().count(), min, max)?;
        Ok(Some(text))
    }

    pub fn required(&self, name: &str, min: usize, max: usize) -> Result<&str> {
        self.text(name, min, max)?.ok_or_else(|| Failure::validation(name, "Member must not be null"))
    }

    /// One of some words.
    pub fn word(&self, name: &str, words: &[&str]) -> Result<Option<&str>> {
        let word = self.text(name, 0, usize::MAX)?;
        if word.is_some_and(|word| !words.contains(&word)) {
            return Err(Failure::validation(name, &format!("Member must satisfy enum value set: [{}]", words.join(", "))));
        }
        Ok(word)
    }

    pub fn number(&self, name: &str, min: i64, max: i64) -> Result<Option<i64>> {
        let Some(value) = self.member(name) else { return Ok(None) };
        let number = value.as_i64().ok_or_else(|| Failure::new("SerializationException", "NUMBER_VALUE expected"))?;
        if number < min {
            return Err(Failure::validation(name, &format!("Member must have value greater than or equal to {min}")));
        }
        if number > max {
            return Err(Failure::validation(name, &format!("Member must have value less than or equal to {max}")));
        }
        Ok(Some(number))
    }

    pub fn flag(&self, name: &str) -> Result<bool> {
        let flag = self.member(name).map(|value| value.as_bool().ok_or_else(|| Failure::new("SerializationException", "")));
        Ok(flag.transpose()?.unwrap_or_default())
    }

    /// So many texts; none where the member is missing.
    pub fn texts(&self, name: &str, min: usize, max: usize) -> Result<Option<Vec<&str>>> {
        let Some(value) = self.member(name) else { return Ok(None) };
        let malformed = || Failure::new("SerializationException", "START_ARRAY expected");
        let texts: Vec<&str> =
            value.as_array().ok_or_else(malformed)?.iter().map(Value::as_str).collect::<Option<_>>().ok_or_else(malformed)?;
        within(name, texts.len(), min, max)?;
        Ok(Some(texts))
    }

    /// So many objects; none where the member is missing.
    pub fn objects(&self, name: &str, max: usize) -> Result<Vec<Self>> {
        let Some(value) = self.member(name) else { return Ok(Vec::new()) };
        let malformed = || Failure::new("SerializationException", "START_ARRAY expected");
        let objects = value.as_array().ok_or_else(malformed)?.iter().map(|object| object.as_object().cloned().map(Self));
        let objects: Vec<Self> = objects.collect::<Option<_>>().ok_or_else(malformed)?;
        within(name, objects.len(), 0, max)?;
        Ok(objects)
    }

    pub fn object(&self, name: &str) -> Option<Self> {
        self.member(name)?.as_object().cloned().map(Self)
    }

    /// `Tags` as (key, value), within the bounds of both services.
    pub fn tags(&self, max: usize) -> Result<Vec<(String, String)>> {
        let tag = |tag: &Self| Ok((tag.required("Key", 1, 128)?.to_owned(), tag.text("Value", 0, 256)?.unwrap_or_default().to_owned()));
        self.objects("Tags", max)?.iter().map(tag).collect()
    }

    pub fn value(&self, name: &str) -> Value {
        self.0.get(name).cloned().unwrap_or_default()
    }
}

/// One page of what there is: where it begins is the token of the page before.
pub fn page<'a, T>(all: &'a [T], input: &Input, size: i64, bad_token: &str) -> Result<(&'a [T], Option<String>)> {
    let size = usize::try_from(input.number("MaxResults", 1, size)?.unwrap_or(size)).unwrap_or(usize::MAX);
    let start = match input.text("NextToken", 1, 4096)? {
        None => 0,
        Some(token) => from_token(token)
            .filter(|start| *start <= all.len())
            .ok_or_else(|| Failure::new(bad_token, "The token is not one of this list."))?,
    };
    let end = all.len().min(start + size);
    let next = (end < all.len()).then(|| format!("page-{end}-of-the-same-list"));
    Ok((&all[start..end], next))
}

fn from_token(token: &str) -> Option<usize> {
    token.strip_prefix("page-")?.strip_suffix("-of-the-same-list")?.parse().ok()
}

fn within(name: &str, length: usize, min: usize, max: usize) -> Result<()> {
    if length < min {
        return Err(Failure::validation(name, &format!("Member must have length greater than or equal to {min}")));
    }
    if length > max {
        return Err(Failure::validation(name, &format!("Member must have length less than or equal to {max}")));
    }
    Ok(())
}
