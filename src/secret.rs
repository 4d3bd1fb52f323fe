//! The one container for a secret value. Nothing here prints, serialises or compares one by accident.

use std::fmt;

use zeroize::Zeroizing;

/// Bytes that must never reach a log, a status, an event or a metric.
///
/// The memory is overwritten when the value is dropped. `Debug` is a fixed text; there is no
/// `Display`, no `Serialize` and no `PartialEq`. Cloning copies the bytes into another zeroising container.
#[derive(Clone)]
pub struct SecretValue(Zeroizing<Vec<u8>>);

impl SecretValue {
    /// Takes the bytes over; the caller's buffer is the container from now on.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The only way to the bytes. Files that may call it are listed in `tests/architecture.rs`.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for SecretValue {
    fn from(text: String) -> Self {
        Self::new(text.into_bytes())
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::SecretValue;

    #[test]
    fn debug_shows_no_part_of_the_value() {
        let shown = format!("{:?}", SecretValue::from("hunter2".to_owned()));
        assert_eq!(shown, "SecretValue(redacted)");
    }
}
