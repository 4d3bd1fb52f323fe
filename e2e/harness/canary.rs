//! Values that can be found again: what tests plant in backends, and what must stand in no other place than the target.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

/// A planted value. Its text has characters that every encoding writes differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canary {
    pub text: String,
    /// Two parts that no encoding of text changes.
    parts: [String; 2],
}

impl Canary {
    pub fn new() -> Self {
        Self::with_suffix("")
    }

    /// One of several values that belong together: a target that holds two generations at once was mixed.
    pub fn of_generation(generation: u32) -> Self {
        Self::with_suffix(&format!("#g{generation}."))
    }

    fn with_suffix(suffix: &str) -> Self {
        let parts = [random_hex(), random_hex()];
        let text = format!("{}\"\\/ü%&= {}{suffix}", parts[0], parts[1]);
        Self { text, parts }
    }

    /// A value without special characters, for places that take no others (a token).
    pub fn plain(text: &str) -> Self {
        Self { text: text.to_owned(), parts: [text.to_owned(), text.to_owned()] }
    }

    pub fn bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// The first form of the value that stands in the text, by name.
    pub fn found_in(&self, text: &str) -> Option<&'static str> {
        let holds = |needle: &String| !needle.is_empty() && text.contains(needle.as_str());
        self.forms().into_iter().find(|(_, needles)| needles.iter().any(holds)).map(|(name, _)| name)
    }

    /// Raw, URL- and JSON-escaped text all keep the parts as they are; base64 has three alignments.
    fn forms(&self) -> Vec<(&'static str, Vec<String>)> {
        let hex = |upper: bool| {
            self.parts.iter().map(move |part| {
                part.bytes().fold(String::new(), |mut text, byte| {
                    let _ = if upper { write!(text, "{byte:02X}") } else { write!(text, "{byte:02x}") };
                    text
                })
            })
        };
        vec![
            ("raw or escaped", self.parts.to_vec()),
            ("hex", hex(false).chain(hex(true)).collect()),
            ("base64", self.parts.iter().flat_map(|part| base64_forms(part.as_bytes())).collect()),
        ]
    }
}

/// What of the base64 of any longer text depends on these bytes only, at each of the three alignments.
fn base64_forms(bytes: &[u8]) -> Vec<String> {
    let mut forms = Vec::new();
    for shift in 0..3 {
        let mut padded = vec![0; shift];
        padded.extend_from_slice(bytes);
        for engine in [STANDARD, URL_SAFE] {
            let text = engine.encode(&padded);
            let start = (shift * 8).div_ceil(6);
            let end = (padded.len() * 8) / 6;
            forms.push(text[start..end].to_owned());
        }
    }
    forms
}

/// The generations that stand in a text.
pub fn generations(text: &str) -> Vec<u32> {
    let starts = text.match_indices("#g").map(|(at, _)| &text[at + 2..]);
    starts.filter_map(|rest| rest.split_once('.').and_then(|(number, _)| number.parse().ok())).collect()
}

pub fn random_hex() -> String {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system has randomness");
    format!("{:016x}", u64::from_be_bytes(bytes))
}
