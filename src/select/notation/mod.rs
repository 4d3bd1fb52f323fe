//! Documents in other notations than JSON, told by the end of the remote key: YAML, TOML and .env files are read as the JSON that they
//! mean. Exact: a number keeps its text, and one that JSON cannot write is a string. Pure.
//!
//! No alias, tag or variable reaches out of the text, and what a document grows to is bounded.

mod dotenv;
mod toml;
mod yaml;

use std::borrow::Cow;

use zeroize::Zeroizing;

use super::json::{self, Flaw};
use crate::secret::SecretValue;

/// Longest JSON that a document may become.
const MOST: usize = 8 << 20;

type Read = fn(&str) -> Result<Zeroizing<String>, Flaw>;

/// The value as JSON: as it is where it is JSON, else read in the notation that the key ends with.
pub(super) fn as_json<'a>(value: &'a SecretValue, key: &str) -> Result<Cow<'a, SecretValue>, Flaw> {
    let read = match (json::parse(value), reader_of(key)) {
        (Ok(_), _) => return Ok(Cow::Borrowed(value)),
        (Err(flaw), None) => return Err(flaw),
        (Err(_), Some(read)) => read,
    };
    let text = std::str::from_utf8(value.expose()).map_err(|_| Flaw::NotText)?;
    let mut document = read(text.strip_prefix('\u{feff}').unwrap_or(text))?;
    Ok(Cow::Owned(SecretValue::from(std::mem::take(&mut *document))))
}

fn reader_of(key: &str) -> Option<Read> {
    let name = key.rsplit('/').next().unwrap_or(key).to_ascii_lowercase();
    // What age encrypted keeps its name before `.age`.
    let (stem, extension) = name.strip_suffix(".age").unwrap_or(&name).rsplit_once('.')?;
    match extension {
        "yaml" | "yml" => Some(yaml::read),
        "toml" => Some(toml::read),
        // `.env`, `app.env`, and the custom of `.env.production`.
        "env" => Some(dotenv::read),
        _ if stem == ".env" => Some(dotenv::read),
        _ => None,
    }
}

/// Text that grows, and of which no copy is left behind.
#[derive(Default)]
pub(super) struct Sink(Zeroizing<String>);

impl Sink {
    fn beside(text: &str) -> Self {
        Self(Zeroizing::new(String::with_capacity(text.len() + text.len() / 2 + 64)))
    }

    fn push(&mut self, part: &str) -> Result<(), Flaw> {
        let length = self.0.len() + part.len();
        if length > MOST {
            return Err(Flaw::TooLarge);
        }
        self.grow(part);
        Ok(())
    }

    /// Without a bound: whoever calls it knows how much there is.
    pub(super) fn grow(&mut self, part: &str) {
        let length = self.0.len() + part.len();
        if length > self.0.capacity() {
            let mut larger = Zeroizing::new(String::with_capacity(length * 2));
            larger.push_str(&self.0);
            self.0 = larger;
        }
        self.0.push_str(part);
    }

    pub(super) fn finish(mut self) -> SecretValue {
        SecretValue::from(std::mem::take(&mut *self.0))
    }

    /// A string of JSON.
    fn string(&mut self, text: &str) -> Result<(), Flaw> {
        self.push("\"")?;
        let mut rest = text;
        while let Some(at) = rest.find(|character: char| matches!(character, '"' | '\\') || character.is_control()) {
            self.push(&rest[..at])?;
            let character = rest[at..].chars().next().ok_or(Flaw::NotText)?;
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                self.push(&format!("\\u{unit:04x}"))?;
            }
            rest = &rest[at + character.len_utf8()..];
        }
        self.push(rest)?;
        self.push("\"")
    }

    /// A number in its exact text where JSON can write it, else a string.
    fn number(&mut self, text: &str) -> Result<(), Flaw> {
        if is_number(text) { self.push(text) } else { self.string(text) }
    }
}

/// The grammar of RFC 8259.
fn is_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    digits(whole) && (whole == "0" || !whole.starts_with('0')) && fraction.is_none_or(digits) && exponent.is_none_or(digits)
}

#[cfg(test)]
mod tests {
    use super::{Flaw, as_json, is_number};
    use crate::secret::SecretValue;

    fn json(key: &str, text: &str) -> Result<String, Flaw> {
        as_json(&SecretValue::from(text.to_owned()), key).map(|value| String::from_utf8(value.expose().to_vec()).unwrap())
    }

    #[test]
    fn the_end_of_the_key_says_how_a_document_is_read_and_json_is_json_everywhere() {
        for (key, text, expected) in [
            ("app/config.yaml", "a: 1", Ok(r#"{"a":1}"#)),
            ("app/CONFIG.YML", "a: 1", Ok(r#"{"a":1}"#)),
            ("app/config.toml", "a = 1", Ok(r#"{"a":1}"#)),
            ("app/.env", "A=1", Ok(r#"{"A":"1"}"#)),
            (".env.production", "A=1", Ok(r#"{"A":"1"}"#)),
            ("app.env", "A=1", Ok(r#"{"A":"1"}"#)),
            ("app/config.yaml.age", "a: 1", Ok(r#"{"a":1}"#)),
            ("app/config.toml", "{ \"a\" : 1.10 }", Ok("{ \"a\" : 1.10 }")),
            ("app/config.json", "a: 1", Err(Flaw::NotJson)),
            ("config.yaml/x", "a: 1", Err(Flaw::NotJson)),
            ("yaml", "a: 1", Err(Flaw::NotJson)),
            ("a.yaml", "a: [", Err(Flaw::NotYaml)),
            ("a.toml", "a: 1", Err(Flaw::NotToml)),
            ("a.env", "no equals sign", Err(Flaw::NotDotenv)),
        ] {
            assert_eq!(json(key, text), expected.map(str::to_owned), "{key}: {text}");
        }
        assert_eq!(as_json(&SecretValue::new(vec![0xff]), "a.yaml").err(), Some(Flaw::NotText));
    }

    #[test]
    fn numbers_keep_their_text_and_what_json_cannot_write_is_a_string() {
        for number in ["0", "-1", "1.10", "12345678901234567890123", "1e06", "1E-3", "0.0", "-0"] {
            assert!(is_number(number), "{number}");
        }
        for text in ["", "-", "+1", "01", ".5", "1.", "1e", "0x1f", "1_000", "inf", "1 ", "1.2.3", "e5"] {
            assert!(!is_number(text), "{text}");
        }
        let yaml = "long: 12345678901234567890123\nexact: 1.10\nhex: 0x1F\noctal: 012\nquoted: \"1.10\"\ninf: .inf\n";
        let read = r#"{"long":12345678901234567890123,"exact":1.10,"hex":"0x1F","octal":"012","quoted":"1.10","inf":".inf"}"#;
        assert_eq!(json("a.yaml", yaml).unwrap(), read);
        let toml = "long = 123456789012\nexact = 1.10\nplus = +5\nspaced = 1_000\nhex = 0x1F\ninf = inf\n";
        let read = r#"{"exact":1.10,"hex":"0x1F","inf":"inf","long":123456789012,"plus":5,"spaced":1000}"#;
        assert_eq!(json("a.toml", toml).unwrap(), read);
    }

    #[test]
    fn yaml_is_read_as_it_means() {
        for (text, expected) in [
            ("", "null"),
            ("a: ~\nb: null\nc:\nd: ''\n", r#"{"a":null,"b":null,"c":null,"d":""}"#),
            ("a: true\nb: False\nc: yes\nd: 'true'\n", r#"{"a":true,"b":false,"c":"yes","d":"true"}"#),
            ("- 1\n- [a, {b: c}]\n- - x\n", r#"[1,["a",{"b":"c"}],["x"]]"#),
            ("text: |\n  one\n  two\n", "{\"text\":\"one\\u000atwo\\u000a\"}"),
            ("quote: 'a\"b\\c'", "{\"quote\":\"a\\u0022b\\u005cc\"}"),
            ("1: a\ntrue: b\n", r#"{"1":"a","true":"b"}"#),
            ("base: &b {x: 1, y: [2]}\ncopy: *b\n", r#"{"base":{"x":1,"y":[2]},"copy":{"x":1,"y":[2]}}"#),
            ("a: !!str 1\nb: !custom x\n", r#"{"a":"1","b":"x"}"#),
            ("# only a comment\n", "null"),
            ("ü: 🔑\n", r#"{"ü":"🔑"}"#),
        ] {
            let read = json("a.yaml", text).unwrap();
            assert_eq!(read, expected, "{text}");
            serde_json::from_str::<serde_json::Value>(&read).unwrap();
        }
    }

    #[test]
    fn yaml_that_cannot_be_one_json_document_is_refused_and_a_bomb_stays_small() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let before = format!("*a{},", level - 1).repeat(10);
            bomb = format!("{bomb}a{level}: &a{level} [{}]\n", before.trim_end_matches(','));
        }
        let deep = "[".repeat(100_000);
        for (text, flaw) in [
            ("a: 1\n---\nb: 2\n", Flaw::Several),
            ("? [a, b]\n: c\n", Flaw::NotYaml),
            ("a: &a [*a]\n", Flaw::NotYaml),
            ("a: *nowhere\n", Flaw::NotYaml),
            ("base: &b {x: 1}\ncopy:\n  <<: *b\n", Flaw::Merge),
            ("a: 'open", Flaw::NotYaml),
            (bomb.as_str(), Flaw::TooLarge),
            (deep.as_str(), Flaw::NotYaml),
        ] {
            assert_eq!(json("a.yaml", text), Err(flaw), "{}", &text[..text.len().min(40)]);
        }
    }

    #[test]
    fn toml_is_read_as_it_means() {
        let text =
            "title = \"a\\nb\"\nwhen = 1979-05-27T07:32:00Z\n[server]\nports = [80, 443]\n[[hosts]]\nname = 'x'\n[[hosts]]\nname = 'y'\n";
        let read = r#"{"hosts":[{"name":"x"},{"name":"y"}],"server":{"ports":[80,443]},"title":"a\u000ab","when":"1979-05-27T07:32:00Z"}"#;
        assert_eq!(json("a.toml", text).unwrap(), read);
        assert_eq!(json("a.toml", "").unwrap(), "{}");
        assert_eq!(json("a.toml", "a = 1\na = 2\n"), Err(Flaw::NotToml));
    }

    #[test]
    fn env_files_are_read_as_shells_and_compose_read_them_without_variables() {
        let text = "# comment\nexport A=1.10\nB = two words # comment\nC='single $X \\n'\nD=\"line\\nend \\\"q\\\" \\\\ \\$X\"\nE=\nF=a#b\nG=\"two\nlines\"\r\nH=x\r\n";
        let read = r#"{"A":"1.10","B":"two words","C":"single $X \u005cn","D":"line\u000aend \u0022q\u0022 \u005c $X","E":"","F":"a#b","G":"two\u000alines","H":"x"}"#;
        assert_eq!(json(".env", text).unwrap(), read);
        for wrong in ["A", "=x", "1A=x", "A=\"open", "A='open", "A=\"x\" y", "A B=c"] {
            assert_eq!(json(".env", wrong), Err(Flaw::NotDotenv), "{wrong}");
        }
    }
}
