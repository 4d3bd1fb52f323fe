//! Numbers and times as Go reads and writes them: so they stand in a MAC of SOPS.

/// A whole number of 64 bits: decimal, or with `0x`, `0o`, `0b`, or `0` for octal; underscores are left out.
pub fn integer(text: &str) -> Option<i64> {
    let plain = text.replace('_', "");
    let (sign, digits) = match plain.as_bytes().first()? {
        b'-' => ("-", &plain[1..]),
        b'+' => ("", &plain[1..]),
        _ => ("", plain.as_str()),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = [("0x", 16), ("0o", 8), ("0b", 2)]
        .into_iter()
        .find_map(|(prefix, radix)| Some((radix, lower.strip_prefix(prefix)?)))
        .unwrap_or(match lower.strip_prefix('0') {
            Some(octal) if !octal.is_empty() => (8, octal),
            _ => (10, lower.as_str()),
        });
    if digits.starts_with(['+', '-']) {
        return None;
    }
    i64::from_str_radix(&format!("{sign}{digits}"), radix).ok()
}

/// A number of 64 bits with a point or an exponent.
pub fn float(text: &str) -> Option<f64> {
    match text {
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Some(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Some(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Some(f64::NAN),
        _ => {}
    }
    let plain = text.replace('_', "");
    let is_number = plain.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E'));
    if is_number { plain.parse().ok().filter(|number: &f64| number.is_finite()) } else { None }
}

/// The shortest digits that mean this number, without an exponent.
pub fn shown(number: f64) -> String {
    if number.is_infinite() { if number > 0.0 { "+Inf" } else { "-Inf" }.to_owned() } else { number.to_string() }
}

/// A moment: a day, or a day and a time of it. Only the spellings that SOPS itself writes.
pub fn time(text: &str) -> Option<String> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (day, rest) = text.split_at_checked(10)?;
    let mut parts = day.split('-');
    let is_day = [4, 2, 2].into_iter().all(|length| parts.next().is_some_and(|part| part.len() == length && digits(part)));
    if !is_day || parts.next().is_some() {
        return None;
    }
    if rest.is_empty() {
        return Some(format!("{day}T00:00:00Z"));
    }
    let (clock, rest) = rest.strip_prefix(['T', 't', ' '])?.split_at_checked(8)?;
    let mut parts = clock.split(':');
    let is_clock = (0..3).all(|_| parts.next().is_some_and(|part| part.len() == 2 && digits(part)));
    let (fraction, zone) = rest.split_at(rest.find(['Z', '+', '-']).unwrap_or(rest.len()));
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    let is_fraction = fraction.is_empty() || fraction.strip_prefix('.').is_some_and(|fraction| digits(fraction) && fraction.len() <= 9);
    let zone = if zone.is_empty() || zone == "+00:00" { "Z" } else { zone };
    let is_zone = zone == "Z" || (zone.len() == 6 && zone.as_bytes()[3] == b':');
    (is_clock && is_fraction && is_zone).then(|| format!("{day}T{clock}{fraction}{zone}"))
}

#[cfg(test)]
mod tests {
    use super::{float, integer, shown, time};

    #[test]
    fn numbers_are_read_and_written_as_go_does() {
        for (text, expected) in [
            ("0", Some(0)),
            ("-12", Some(-12)),
            ("+5", Some(5)),
            ("1_000", Some(1000)),
            ("0x1F", Some(31)),
            ("-0x10", Some(-16)),
            ("0o14", Some(12)),
            ("014", Some(12)),
            ("0b101", Some(5)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("08", None),
            ("1.0", None),
            ("", None),
            ("-", None),
            ("--1", None),
            ("0x-1", None),
            ("ten", None),
        ] {
            assert_eq!(integer(text), expected, "{text}");
        }
        for (text, expected) in [
            ("1.10", "1.1"),
            ("1.0", "1"),
            ("1e3", "1000"),
            ("1e21", "1000000000000000000000"),
            ("-0.0", "-0"),
            ("1e-7", "0.0000001"),
            ("12345678901234567890", "12345678901234567000"),
            (".inf", "+Inf"),
            (".nan", "NaN"),
        ] {
            assert_eq!(float(text).map(shown).as_deref(), Some(expected), "{text}");
        }
        for text in ["", "inf", "nan", "1e999", "0x1p3", "1.2.3", "e"] {
            assert_eq!(float(text), None, "{text}");
        }
    }

    #[test]
    fn times_are_written_as_go_does() {
        for (text, expected) in [
            ("2026-01-31", Some("2026-01-31T00:00:00Z")),
            ("2026-01-31T12:00:00Z", Some("2026-01-31T12:00:00Z")),
            ("2026-01-31 12:00:00", Some("2026-01-31T12:00:00Z")),
            ("2026-01-31T12:00:00.120+02:00", Some("2026-01-31T12:00:00.12+02:00")),
            ("2026-1-31", None),
            ("2026-01-3x", None),
            ("2026-01-31T12:00", None),
            ("2026-01-31Q12:00:00", None),
            ("12", None),
        ] {
            assert_eq!(time(text).as_deref(), expected, "{text}");
        }
    }
}
