//! .env files as JSON: an object of strings. No variable is put in, no command is run.
//!
//! `NAME=value`, `export` before it, comments after `#`. `'single quotes'` hold everything as it is; `"double quotes"` know `\n`, `\r`,
//! `\t`, `\"`, `\\`, `\$` and may go over lines; without quotes a value ends before ` #` or the end of its line.

use zeroize::Zeroizing;

use super::Sink;
use crate::select::json::Flaw;

pub(super) fn read(text: &str) -> Result<Zeroizing<String>, Flaw> {
    let mut json = Sink::beside(text);
    json.push("{")?;
    let mut rest = text.trim_start();
    let mut separator = "";
    while !rest.is_empty() {
        if rest.starts_with('#') {
            rest = line(rest).1.trim_start();
            continue;
        }
        let (name, after) = rest.split_once('=').ok_or(Flaw::NotDotenv)?;
        let name = name.trim_end();
        let name = name.strip_prefix("export ").map_or(name, str::trim_start);
        if !is_name(name) {
            return Err(Flaw::NotDotenv);
        }
        json.push(separator)?;
        json.string(name)?;
        json.push(":")?;
        rest = value(&mut json, after.trim_start_matches([' ', '\t']))?.trim_start();
        separator = ",";
    }
    json.push("}")?;
    Ok(json.0)
}

fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    name.bytes().all(plain) && name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
}

fn line(text: &str) -> (&str, &str) {
    text.split_once('\n').unwrap_or((text, ""))
}

/// Writes one value and returns what follows its line.
fn value<'a>(json: &mut Sink, text: &'a str) -> Result<&'a str, Flaw> {
    if let Some(quoted) = text.strip_prefix('\'') {
        let (value, rest) = quoted.split_once('\'').ok_or(Flaw::NotDotenv)?;
        json.string(value)?;
        return end_of_line(rest);
    }
    if let Some(quoted) = text.strip_prefix('"') {
        let end = closing(quoted).ok_or(Flaw::NotDotenv)?;
        json.string(&unescaped(&quoted[..end]))?;
        return end_of_line(&quoted[end + 1..]);
    }
    let (line, rest) = line(text);
    let comment = if line.starts_with('#') { Some(0) } else { line.find(" #").or_else(|| line.find("\t#")) };
    json.string(line[..comment.unwrap_or(line.len())].trim_end())?;
    Ok(rest)
}

/// After a closing quote only a comment may follow.
fn end_of_line(text: &str) -> Result<&str, Flaw> {
    let (line, rest) = line(text);
    let after = line.trim();
    if after.is_empty() || after.starts_with('#') { Ok(rest) } else { Err(Flaw::NotDotenv) }
}

/// Where the quote that is not escaped stands.
fn closing(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

fn unescaped(text: &str) -> Zeroizing<String> {
    let mut plain = Zeroizing::new(String::with_capacity(text.len()));
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            plain.push(character);
            continue;
        }
        match characters.next() {
            Some('n') => plain.push('\n'),
            Some('r') => plain.push('\r'),
            Some('t') => plain.push('\t'),
            Some(same @ ('"' | '\\' | '$')) => plain.push(same),
            Some(other) => plain.extend(['\\', other]),
            None => plain.push('\\'),
        }
    }
    plain
}
