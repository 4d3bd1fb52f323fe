//! Durations as manifests and settings write them: the grammar of Go's `time.ParseDuration`, without a sign and without rounding.

use std::time::Duration;

/// Longest text that is read.
pub const LONGEST_TEXT: usize = 64;

/// Go keeps a duration in 63 bits of nanoseconds: about 292 years.
const MOST_NANOSECONDS: u128 = i64::MAX as u128;

/// Largest scale of a fraction that still counts: an hour is 3.6 × 10¹² ns, so later digits are below one nanosecond.
const FINEST: u128 = 1_000_000_000_000_000;

/// Units with their nanoseconds; longer spellings before their prefixes. Both signs for micro, as Go takes them.
const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Why a text is no duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    #[error("is no duration: write it like 30s or 1h30m, or 0")]
    Malformed,
    #[error("has a number without a unit: write ns, us, ms, s, m or h after it")]
    MissingUnit,
    #[error("is negative: a duration cannot be")]
    Negative,
    #[error("is longer than about 292 years")]
    TooLong,
}

/// Reads a duration. `0` needs no unit. Digits below one nanosecond are cut off, as Go does.
///
/// # Errors
/// [`DurationError`]; it does not repeat the text.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    if text.len() > LONGEST_TEXT {
        return Err(DurationError::Malformed);
    }
    let (negative, rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let nanoseconds = magnitude(rest)?;
    if negative && nanoseconds > 0 { Err(DurationError::Negative) } else { Ok(Duration::from_nanos(nanoseconds)) }
}

/// Writes a duration so that [`parse`] gives it back: the largest units first, nothing that is zero.
#[must_use]
pub fn format(duration: Duration) -> String {
    let mut left = duration.as_nanos();
    if left == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, size) in [("h", UNITS[7].1), ("m", UNITS[6].1), ("s", UNITS[5].1), ("ms", UNITS[4].1), ("us", UNITS[1].1), ("ns", 1)] {
        if left >= size {
            text.push_str(&(left / size).to_string());
            text.push_str(unit);
            left %= size;
        }
    }
    text
}

fn magnitude(text: &str) -> Result<u64, DurationError> {
    if text == "0" {
        return Ok(0);
    }
    let (mut rest, mut total) = (text, 0_u128);
    loop {
        let (part, after) = component(rest)?;
        total += part;
        if total > MOST_NANOSECONDS {
            return Err(DurationError::TooLong);
        }
        if after.is_empty() {
            return u64::try_from(total).map_err(|_| DurationError::TooLong);
        }
        rest = after;
    }
}

/// One number with its unit, in nanoseconds, and what follows it.
fn component(text: &str) -> Result<(u128, &str), DurationError> {
    let (whole, rest) = digits(text);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => digits(rest),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(DurationError::Malformed);
    }
    let (size, after) = unit(rest)?;
    let whole = whole.bytes().try_fold(0_u128, |sum, digit| {
        let sum = sum * 10 + u128::from(digit - b'0');
        if sum > MOST_NANOSECONDS { Err(DurationError::TooLong) } else { Ok(sum) }
    })?;
    Ok((whole * size + below_one(fraction, size), after))
}

/// The nanoseconds of the digits after the point.
fn below_one(fraction: &str, size: u128) -> u128 {
    let (mut numerator, mut scale) = (0_u128, 1_u128);
    for digit in fraction.bytes() {
        if scale == FINEST {
            break;
        }
        numerator = numerator * 10 + u128::from(digit - b'0');
        scale *= 10;
    }
    numerator * size / scale
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

fn unit(text: &str) -> Result<(u128, &str), DurationError> {
    let name = text.split(|sign: char| sign.is_ascii_digit() || sign == '.').next().unwrap_or_default();
    if name.is_empty() {
        return Err(DurationError::MissingUnit);
    }
    let (_, size) = UNITS.iter().find(|(unit, _)| *unit == name).ok_or(DurationError::Malformed)?;
    Ok((*size, &text[name.len()..]))
}

#[cfg(test)]
mod tests {
    use super::{DurationError, LONGEST_TEXT, format, parse};
    use proptest::prelude::{any, proptest};
    use std::time::Duration;

    #[test]
    fn go_durations_are_read_exactly() {
        let cases = [
            ("0", 0),
            ("+0", 0),
            ("-0", 0),
            ("0s", 0),
            ("-0s", 0),
            ("30s", 30_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1h1h", 7_200_000_000_000),
            ("+5s", 5_000_000_000),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("100ms", 100_000_000),
            ("2us3\u{b5}s4\u{3bc}s", 9_000),
            ("0.000000001s", 1),
            ("0.9ns", 0),
            ("0.3333333333333333333h", 1_200_000_000_000 - 1),
            ("9223372036854775807ns", i64::MAX as u64),
        ];
        for (text, nanoseconds) in cases {
            assert_eq!(parse(text), Ok(Duration::from_nanos(nanoseconds)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_the_reason() {
        let cases = [
            ("", DurationError::Malformed),
            ("+", DurationError::Malformed),
            ("-", DurationError::Malformed),
            ("3", DurationError::MissingUnit),
            ("1h3", DurationError::MissingUnit),
            ("-5s", DurationError::Negative),
            (".s", DurationError::Malformed),
            ("s", DurationError::Malformed),
            ("1d", DurationError::Malformed),
            ("1S", DurationError::Malformed),
            ("1e3s", DurationError::Malformed),
            (" 1s", DurationError::Malformed),
            ("1s ", DurationError::Malformed),
            ("1..5s", DurationError::MissingUnit),
            ("--1s", DurationError::Malformed),
            ("--0", DurationError::Malformed),
            ("-+0", DurationError::Malformed),
            ("1h-5m", DurationError::Malformed),
            ("9223372036854775808ns", DurationError::TooLong),
            ("9999999999999999999999999999999999999999999999h", DurationError::TooLong),
            ("2562048h", DurationError::TooLong),
            ("\u{663}s", DurationError::Malformed),
        ];
        for (text, error) in cases {
            assert_eq!(parse(text), Err(error), "{text:?}");
        }
        let zeros = |length: usize| format!("{}s", "0".repeat(length - 1));
        assert_eq!(parse(&zeros(LONGEST_TEXT)), Ok(Duration::ZERO));
        assert_eq!(parse(&zeros(LONGEST_TEXT + 1)), Err(DurationError::Malformed));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(nanoseconds in 0..i64::MAX as u64) {
            let duration = Duration::from_nanos(nanoseconds);
            assert_eq!(parse(&format(duration)), Ok(duration));
        }

        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = parse(&text);
        }
    }

    #[test]
    fn what_is_written_is_short() {
        for text in ["0s", "10s", "1h30m", "24h", "1m500ms", "1us1ns"] {
            assert_eq!(format(parse(text).unwrap()), text);
        }
    }
}
